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
    """The mean of the members' probabilities.

    Args:
        card: of the model, with `mean`.
        parts: of each member in the card's order, [N, K, …] float32 that sums to 1 over K.

    Returns:
        The same shape and type; sums to 1 over K.
    """
    if card["mean"] == "arithmetic":
        total = np.zeros(parts[0].shape, np.float32)
        for part in parts:
            total += part
        return total / np.float32(len(parts))
    logs = np.zeros(parts[0].shape, np.float32)
    for part in parts:
        logs += np.log(np.maximum(part, np.float32(_LEAST)))
    product = np.exp(logs / np.float32(len(parts)))
    mean: Probabilities = product / product.sum(1, keepdims=True)
    return mean
