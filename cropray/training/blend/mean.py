"""The mean of several models' probabilities. Needs numpy only: a registered model carries this module."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

KIND: Final = "blend"  # the family's name, in its cards
CARD_VERSION: Final = 1
FOLDER: Final = "members"  # of a model's folder: one folder for each member, by its name
_LEAST: Final = 1e-4
"""Probability below which a geometric mean takes a member's for this: trees that never saw a class say 0, and no single member
rules a class out."""

Probabilities = npt.NDArray[np.float32]


def combine(card: Mapping[str, Any], parts: Sequence[Probabilities]) -> Probabilities:
    """See `average`.

    Args:
        card: of the model.
        parts: of each of its members, in order.
    """
    return average(card["mean"], [member["weight"] for member in card["members"]], parts)


def average(mean: str, weights: Sequence[int], parts: Sequence[Probabilities]) -> Probabilities:
    """The mean of several models' probabilities.

    Args:
        mean: `arithmetic` or `geometric`.
        weights: times that each model counts.
        parts: of each model, [N, K, …] float32 that sums to 1 over K.

    Returns:
        The same shape and type; sums to 1 over K.
    """
    total = np.zeros(parts[0].shape, np.float32)
    for weight, part in zip(weights, parts, strict=True):
        total += np.float32(weight) * (part if mean == "arithmetic" else np.log(np.maximum(part, np.float32(_LEAST))))
    total /= np.float32(sum(weights))
    if mean == "arithmetic":
        return total
    product = np.exp(total)
    scaled: Probabilities = product / product.sum(1, keepdims=True)
    return scaled
