"""How sure a model may say it is, learnt out of fold: one temperature, sets of classes, and what confidence is worth."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.core.metrics import PROBABILITY_FLOOR
from cropray.training.decision import Probabilities

LEAST_T: Final = 0.2  # beyond these a model is so sure, or so unsure, that its probabilities are of no use anyway
MOST_T: Final = 5.0
N_BINS: Final = 10
_ROUNDING: Final = 1e-9  # of sums of shares
_STEPS: Final = 40  # of the bisection: the range shrinks to 1e-11 of itself
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """Pixels whose confidence lies between two numbers."""

    low: float
    high: float
    pixels: float
    confidence: float
    """Mean probability of the class that was decided for."""
    accuracy: float
    """Share of the pixels that are right; of a model that is sure as it should be, the confidence."""


def learn_temperature(probabilities: Probabilities, labels: npt.NDArray[np.uint8], weights: Floats) -> float:
    """The temperature of the least negative log-likelihood (Guo et al. 2017, arXiv 1706.04599), from `LEAST_T` to `MOST_T`.

    Args:
        probabilities: [N, K]; those below `PROBABILITY_FLOOR` count as the floor.
        labels: [N] true class indices, of classes that the model could learn.
        weights: [N] how many pixels a row stands for.

    Returns:
        1 where there is no row.
    """
    if not len(labels):
        return 1.0
    logs = np.log(np.maximum(probabilities.astype(np.float64), PROBABILITY_FLOOR))
    of_truth = logs[np.arange(len(labels)), labels]

    def slope(power: float) -> float:
        """Of the loss in 1 / temperature, in which it is convex."""
        powers = np.exp(power * (logs - logs.max(1, keepdims=True)))
        mean = (powers * logs).sum(1) / powers.sum(1)
        return float((weights * (mean - of_truth)).sum())

    low, high = 1 / MOST_T, 1 / LEAST_T
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def set_threshold(of_truth: Floats, zones: npt.NDArray[np.int64], weights: Floats, coverage: float) -> float:
    """The probability from which on classes belong to a pixel's set, so that sets hold the true class in a new zone.

    Of a pixel drawn from a zone that is like those here, the set holds the true class with probability `coverage` or more:
    conformal prediction with zones as groups (Dunn, Wasserman and Ramdas 2022, arXiv 1809.07441, CDF pooling). Each zone
    counts alike, and the new one for the worst.

    Args:
        of_truth: [N] probability of the true class, out of fold.
        zones: [N] position of its zone.
        weights: [N] how many pixels a row stands for.
        coverage: 0-1.

    Returns:
        0 where zones are too few to promise so much: sets hold all classes.
    """
    if not len(of_truth):
        return 0.0
    _, zones = np.unique(zones, return_inverse=True)
    in_zone = np.bincount(zones, weights)
    order = np.argsort(of_truth)
    below = np.cumsum((weights / in_zone[zones])[order] / (len(in_zone) + 1)) + 1 / (len(in_zone) + 1)
    n_out = int(np.searchsorted(below, 1 - coverage + _ROUNDING, side="right"))  # rows that sets need not hold
    return float(of_truth[order][n_out]) if n_out else 0.0


def reliability(confidence: Floats, is_right: npt.NDArray[np.bool_], weights: Floats) -> list[Bin]:
    """What confidence is worth, in tenths that hold a pixel.

    Args:
        confidence: [N] probability of the class that was decided for.
        is_right: [N] whether it is the true one.
        weights: [N] how many pixels a row stands for.
    """
    position = np.minimum((confidence * N_BINS).astype(np.int64), N_BINS - 1)
    pixels, sure, right = (
        np.bincount(position, weights * values, N_BINS) for values in (np.ones(len(confidence)), confidence, is_right)
    )
    return [
        Bin(i / N_BINS, (i + 1) / N_BINS, float(pixels[i]), float(sure[i] / pixels[i]), float(right[i] / pixels[i]))
        for i in np.flatnonzero(pixels).tolist()
    ]


def calibration_error(table: list[Bin]) -> float:
    """Expected calibration error: how far confidence is from accuracy, on average over pixels."""
    off = sum(row.pixels * abs(row.confidence - row.accuracy) for row in table)
    return off / max(sum(row.pixels for row in table), 1.0)
