"""Scores from exact counts.

One integer cube `zone × true × predicted` is the only source of every score. Workers add counts and
never average; macro scores average over the classes that are present in the true labels.

There is one loss: -ln max(p, PROBABILITY_FLOOR), nats, where p is the float32 probability that a model gives to the
true class. Trees, CNN, validation and test all use it, so that their losses can be compared. Unbounded, a single pixel
that a network is sure of wrongly could outweigh thousands.

A fit cannot learn a class of which its training zones hold no pixel. What such pixels cost says nothing about a fit, and
though they are few they can be a quarter of a fold's loss. The loss that stops a fit and chooses a configuration
leaves them out, and they are counted beside it (`untrained_pixels`). All other scores keep every pixel, and so does
the loss of a test, which neither stops nor chooses anything. (The `train_loss` of a CNN's history is what its steps
lower: weighted as the settings say, with dropout, unbounded.)
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.errors import AccountingError

Counts = npt.NDArray[np.int64]
BOOTSTRAP_SAMPLES: Final = 1000
INTERVAL: Final = 0.95  # central share of the bootstrap distribution
PROBABILITY_FLOOR: Final = 1e-16  # smallest probability whose logarithm is taken (36.8 nats), as in XGBoost's mlogloss


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Scores of one class."""

    class_id: int
    support: int
    """True pixels."""
    predicted: int
    """Predicted pixels."""
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one set of pixels."""

    n_pixels: int
    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    loss: float | None
    """Mean negative log-likelihood per pixel (nats), of the pixels of trained classes where `n_untrained` is not None;
    None where it was not computed."""
    classes: tuple[ClassScore, ...]
    """One per class that is present in the true or predicted labels."""
    n_untrained: int | None = None
    """Pixels of classes that the model's training zones lack; None where that is not known."""

    def as_metrics(self, prefix: str) -> dict[str, float]:
        """Tracker keys, `<prefix>_accuracy` and so on."""
        values = {
            f"{prefix}_accuracy": self.accuracy,
            f"{prefix}_macro_precision": self.macro_precision,
            f"{prefix}_macro_recall": self.macro_recall,
            f"{prefix}_macro_f1": self.macro_f1,
        }
        if self.loss is not None:
            values = {f"{prefix}_loss": self.loss, **values}
        return values if self.n_untrained is None else {**values, f"{prefix}_untrained_pixels": self.n_untrained}


def confusion(true: npt.ArrayLike, predicted: npt.ArrayLike, n_classes: int) -> Counts:
    """Count pairs of class indices.

    Args:
        true: any shape, class index 0 … n_classes − 1.
        predicted: the same shape.
        n_classes: number of class indices.

    Returns:
        [true, predicted] int64.
    """
    flat = np.asarray(true, np.int64).ravel() * n_classes + np.asarray(predicted, np.int64).ravel()
    return np.bincount(flat, minlength=n_classes * n_classes).reshape(n_classes, n_classes).astype(np.int64)


def log_loss_sum(probabilities: npt.NDArray[np.float32], true: npt.NDArray[np.uint8]) -> float:
    """Negative log-likelihood summed over pixels, nats; exact, whatever their order.

    Args:
        probabilities: [N, K]; those below `PROBABILITY_FLOOR` count as the floor.
        true: [N] class indices.
    """
    of_truth = probabilities[np.arange(len(true)), true].astype(np.float64)
    return math.fsum(-np.log(np.maximum(of_truth, PROBABILITY_FLOOR)))


def score(matrix: Counts, loss_sum: float | None = None, untrained: Collection[int] | None = None) -> Scores:
    """Scores of a confusion matrix.

    A class that is never predicted has precision 0. Macro scores average over classes with support.

    Args:
        matrix: [true, predicted] counts.
        loss_sum: summed negative log-likelihood of the same pixels, nats; of those of trained classes only where
            `untrained` is given.
        untrained: indices of classes without a training pixel; None: not known.

    Raises:
        AccountingError: the matrix holds no pixel, or none of a trained class though a loss is asked for.
    """
    total = int(matrix.sum())
    if total == 0:
        raise AccountingError("no labelled pixel to score; check the labels of these zones")
    n_untrained = None if untrained is None else int(matrix[sorted(untrained)].sum())
    n_of_loss = total - (n_untrained or 0)
    if loss_sum is not None and n_of_loss == 0:
        raise AccountingError(
            f"all {total:,} labelled pixels to score are of classes that the training zones lack, so that there is no "
            f"loss; add training zones that hold these classes, or lower dataset.n_folds"
        )
    support, predicted, hits = matrix.sum(1), matrix.sum(0), np.diag(matrix)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    present = support > 0
    classes = tuple(
        ClassScore(int(i), int(support[i]), int(predicted[i]), float(precision[i]), float(recall[i]), float(f1[i]))
        for i in np.flatnonzero(present | (predicted > 0))
    )
    return Scores(
        n_pixels=total,
        accuracy=float(hits.sum() / total),
        macro_precision=float(precision[present].mean()),
        macro_recall=float(recall[present].mean()),
        macro_f1=float(f1[present].mean()),
        loss=None if loss_sum is None else loss_sum / n_of_loss,
        classes=classes,
        n_untrained=n_untrained,
    )


def score_study_protocol(matrix: Counts) -> Scores:
    """Scores with the original study's macro average: over all classes of the matrix, present or not.

    Source: original study's notebooks (51 labels averaged, one of which never occurs).
    """
    honest = score(matrix)
    n_classes = len(matrix)
    return dataclasses.replace(
        honest,
        macro_precision=sum(row.precision for row in honest.classes) / n_classes,
        macro_recall=sum(row.recall for row in honest.classes) / n_classes,
        macro_f1=sum(row.f1 for row in honest.classes) / n_classes,
    )


def check_cube(cube: Counts, zone_ids: Sequence[str], n_labelled: Mapping[str, int]) -> None:
    """Prove that every labelled pixel of every zone was counted exactly once.

    Args:
        cube: [zone, true, predicted].
        zone_ids: zone of each cube row.
        n_labelled: labelled pixels per zone, from the dataset's manifest.

    Raises:
        AccountingError: a zone is missing, or a sum differs.
    """
    counted: dict[str, int] = {}
    for zone_id, n in zip(zone_ids, cube.sum((1, 2)).tolist(), strict=True):
        counted[zone_id] = counted.get(zone_id, 0) + n  # a zone that comes twice must not hide behind itself
    if counted != dict(n_labelled):
        wrong = {z: (counted.get(z), n_labelled.get(z)) for z in {*counted, *n_labelled}}
        listing = ", ".join(f"{z}: counted {a}, manifest {b}" for z, (a, b) in sorted(wrong.items()) if a != b)
        raise AccountingError(
            f"the cube does not match the manifest ({listing}); rebuild the dataset and evaluate again"
        )


def bootstrap_intervals(cube: Counts, seed: int, n_samples: int = BOOTSTRAP_SAMPLES) -> dict[str, tuple[float, float]]:
    """95 % intervals of the scores by drawing zones with replacement.

    Zones, not pixels, are drawn: pixels of one zone are not independent.

    Args:
        cube: [zone, true, predicted].
        seed: of the draws.
        n_samples: number of draws.

    Returns:
        score key (`test_accuracy` …) → (lower, upper).
    """
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(cube), size=(n_samples, len(cube)))
    samples = [score(cube[draw].sum(0)).as_metrics("test") for draw in draws]
    tail = (1 - INTERVAL) / 2
    return {
        key: (
            float(np.quantile([s[key] for s in samples], tail)),
            float(np.quantile([s[key] for s in samples], 1 - tail)),
        )
        for key in samples[0]
    }
