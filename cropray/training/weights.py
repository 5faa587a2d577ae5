"""Weights of classes that are seldom and of single rows, for networks and trees alike. Needs numpy only."""

from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

ClassWeighting = Literal["none", "sqrt_inverse", "inverse", "effective"]
EFFECTIVE_BETA: Final = 0.9999  # source: Cui et al. 2019, arXiv 1901.05555, their best on large sets


def class_weights(counts: npt.NDArray[np.int64], weighting: ClassWeighting) -> npt.NDArray[np.float64]:
    """Weight of each class in the training loss; the mean over labelled training pixels is 1.

    Args:
        counts: [K] labelled training pixels per class, no others.
        weighting: `none`; weights ∝ 1 / count (`inverse`: scikit-learn's `balanced`), ∝ 1 / √count (`sqrt_inverse`), or
            ∝ (1 - β) / (1 - βᶜᵒᵘⁿᵗ) (`effective`), which no longer falls beyond some ten thousand pixels.

    Returns:
        [K] float64; classes without a training pixel get 0, they are no target (1 where nothing is weighed).
    """
    if weighting == "none":
        return np.ones(len(counts))
    weights = np.where(counts > 0, _raw(np.maximum(counts, 1), weighting), 0.0)
    mean = (weights * counts).sum() / max(counts.sum(), 1)
    scaled: npt.NDArray[np.float64] = weights / mean
    return scaled


def row_weights(
    own: npt.NDArray[Any] | None, of_class: npt.NDArray[Any] | None, labels: npt.NDArray[np.uint8]
) -> npt.NDArray[Any] | None:
    """[N] weight of each training row, which counts as so many rows; None: 1.

    Args:
        own: [N] what the dataset says; None: nothing.
        of_class: [K] see `class_weights`; None: 1.
        labels: [N] class indices.
    """
    if own is None or of_class is None:
        return own if of_class is None else of_class[labels]
    weights: npt.NDArray[Any] = own * of_class[labels]
    return weights


def _raw(counts: npt.NDArray[np.int64], weighting: ClassWeighting) -> Any:
    if weighting == "sqrt_inverse":
        return 1 / np.sqrt(counts)
    if weighting == "inverse":
        return 1 / counts
    if weighting == "effective":
        return (1 - EFFECTIVE_BETA) / -np.expm1(counts * np.log(EFFECTIVE_BETA))
    raise ValueError(f"class_weighting is '{weighting}'; it can be {', '.join(get_args(ClassWeighting))}")
