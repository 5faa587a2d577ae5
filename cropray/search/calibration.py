"""How sure a model may say it is: one temperature, learnt out of fold, and a table of what confidence is worth."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.core.metrics import PROBABILITY_FLOOR
from cropray.training.decision import Probabilities

LEAST_T: Final = 0.2  # beyond these a model is so sure, or so unsure, that its probabilities are of no use anyway
MOST_T: Final = 5.0
N_BINS: Final = 10
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
