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

`METRICS` lists what is scored. To add a score, write a function at the top of a module and add an entry (`METRICS.add`): tables,
pictures and tracker show it, intervals are made where the entry says how, and `search.objective: val_<key>` chooses by it.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.core.errors import AccountingError
from cropray.core.registry import Catalogue

Counts = npt.NDArray[np.int64]
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
    values: Mapping[str, float | None]
    """Key of each of `METRICS` → score; None where it was not computed."""
    classes: tuple[ClassScore, ...]
    """One per class that is present in the true or predicted labels."""
    n_untrained: int | None = None
    """Pixels of classes that the model's training zones lack; None where that is not known."""

    def __getitem__(self, key: str) -> float | None:
        """A score by its key in `METRICS`; None where it was not computed."""
        return self.values[key]

    @property
    def loss(self) -> float | None:
        """Mean negative log-likelihood per pixel (nats), of the pixels of trained classes where `n_untrained` is not None."""
        return self.values["loss"]

    @property
    def accuracy(self) -> float:
        """Share of the pixels that are right."""
        return self.known("accuracy")

    @property
    def macro_precision(self) -> float:
        """Mean over the classes with support."""
        return self.known("macro_precision")

    @property
    def macro_recall(self) -> float:
        """Mean over the classes with support."""
        return self.known("macro_recall")

    @property
    def macro_f1(self) -> float:
        """Mean over the classes with support."""
        return self.known("macro_f1")

    def known(self, key: str) -> float:
        """A score that needs no loss."""
        value = self.values[key]
        assert value is not None
        return value

    def as_metrics(self, prefix: str) -> dict[str, float]:
        """Tracker keys, `<prefix>_accuracy` and so on."""
        values = {f"{prefix}_{key}": value for key, value in self.values.items() if value is not None}
        return values if self.n_untrained is None else {**values, f"{prefix}_untrained_pixels": self.n_untrained}


@dataclass(frozen=True, slots=True)
class Ratios:
    """A macro score: the mean over classes of a ratio of sums over zones."""

    over: Counts
    """[zone, class]."""
    under: Counts
    """[zone, class]."""

    def total(self) -> npt.NDArray[np.float64]:
        """[class] ratio over all zones; 0 where there is nothing under it."""
        values: npt.NDArray[np.float64] = self.over.sum(0) / np.maximum(self.under.sum(0), 1)
        return values

    def deviations(self) -> npt.NDArray[np.float64]:
        """[zone] pseudo-value less the score. A class that no other zone tells anything of keeps its ratio."""
        over, under = self.over.sum(0) - self.over, self.under.sum(0) - self.under
        without = np.where(under > 0, over / np.maximum(under, 1), self.total())
        deviations: npt.NDArray[np.float64] = (len(self.over) - 1) * (self.total() - without).mean(1)
        return deviations

    def mean(self) -> float:
        """The score."""
        return float(self.total().mean())

    def pixel_error(self) -> float:
        """Standard error of the score from drawing pixels; half a pixel is added to either side of each ratio."""
        n = self.under.sum(0) + 1.0
        share = np.minimum((self.over.sum(0) + 0.5) / n, 1.0)
        return float(np.sqrt((share * (1 - share) / n).sum()) / len(n))


@dataclass(frozen=True, slots=True)
class Metric:
    """One score."""

    key: str
    """As in `val_<key>`, `test_<key>`."""
    label: str
    """Column of a page."""
    of: Callable[[Counts, float | None], float | None]
    """(confusion matrix [true, predicted] with a pixel, mean loss or None) → the score; a function at the top of a module,
    whose code is followed where the score chooses something."""
    higher_is_better: bool = True
    short: str = ""
    """Column of a terminal, and in a sentence; empty: the label in lower case."""
    ratios: Callable[[Counts], Ratios] | None = None
    """Cube [zone, true, predicted] → the score as a mean of ratios, from which intervals are made; None: it has none."""
    is_headline: bool = False
    """It stands for all where there is room for a few: on cards, by zone, by region. These have counts alone: it needs no loss."""

    def __post_init__(self) -> None:
        if self.is_headline and self.of(np.eye(2, dtype=np.int64), None) is None:
            raise ValueError(
                f"the score '{self.key}' is None without a loss, which zones and regions have not: it is no headline"
            )

    @property
    def called(self) -> str:
        """`short`, or what stands for it."""
        return self.short or self.label.lower()


def metric_of(key: str) -> Metric:
    """The entry of a tracker key such as `val_macro_f1`.

    Raises:
        ValueError: no score of a validation is called so.
    """
    known = {f"val_{metric.key}": metric for metric in METRICS}
    if key not in known:
        raise ValueError(f"there is no score '{key}'; it can be {', '.join(known)}")
    return known[key]


def score_columns() -> tuple[Metric, ...]:
    """The scores in the order of tables: what may be compared by eye, then what has another scale."""
    return tuple(sorted(METRICS, key=lambda metric: not metric.higher_is_better))


def headlines() -> tuple[Metric, ...]:
    """The few that stand for all."""
    return tuple(metric for metric in METRICS if metric.is_headline)


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
    loss = None if loss_sum is None else loss_sum / n_of_loss
    return Scores(
        n_pixels=total,
        values={metric.key: metric.of(matrix, loss) for metric in METRICS},
        classes=_class_scores(matrix),
        n_untrained=n_untrained,
    )


def _class_scores(matrix: Counts) -> tuple[ClassScore, ...]:
    support, predicted, hits = matrix.sum(1), matrix.sum(0), np.diag(matrix)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    return tuple(
        ClassScore(int(i), int(support[i]), int(predicted[i]), float(precision[i]), float(recall[i]), float(f1[i]))
        for i in np.flatnonzero((support > 0) | (predicted > 0))
    )


def score_study_protocol(matrix: Counts) -> Scores:
    """Scores with the original study's macro average: over all classes of the matrix, present or not.

    Source: original study's notebooks (51 labels averaged, one of which never occurs).
    """
    honest = score(matrix)
    n_classes = len(matrix)
    averages = {
        "macro_precision": sum(row.precision for row in honest.classes) / n_classes,
        "macro_recall": sum(row.recall for row in honest.classes) / n_classes,
        "macro_f1": sum(row.f1 for row in honest.classes) / n_classes,
    }
    return dataclasses.replace(honest, values={**honest.values, **averages})


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


def region_scores(cube: Counts, regions: Sequence[str]) -> dict[str, Scores]:
    """Scores of the zones of each region together, in the order of the regions' first zones.

    Args:
        cube: [zone, true, predicted]; zones without a labelled pixel add nothing.
        regions: region of each cube row.
    """
    matrices: dict[str, Counts] = {}
    for region, matrix in zip(regions, cube, strict=True):
        matrices[region] = matrices.get(region, np.zeros_like(matrix)) + matrix
    return {region: score(matrix) for region, matrix in matrices.items() if matrix.any()}


def _present(cube: Counts) -> tuple[Counts, Counts, Counts]:
    """([zone, class] true, predicted and rightly predicted pixels), of the classes that are in the labels of any zone."""
    support, predicted, hits = cube.sum(2), cube.sum(1), np.diagonal(cube, axis1=1, axis2=2)
    present = support.any(0)
    return support[:, present], predicted[:, present], hits[:, present]


def _right(cube: Counts) -> Ratios:
    support, _, hits = _present(cube)
    return Ratios(hits.sum(1, keepdims=True), support.sum(1, keepdims=True))


def _precisions(cube: Counts) -> Ratios:
    _, predicted, hits = _present(cube)
    return Ratios(hits, predicted)


def _recalls(cube: Counts) -> Ratios:
    support, _, hits = _present(cube)
    return Ratios(hits, support)


def _f1s(cube: Counts) -> Ratios:
    support, predicted, hits = _present(cube)
    return Ratios(2 * hits, support + predicted)


def _loss(_matrix: Counts, loss: float | None) -> float | None:
    return loss


def _accuracy(matrix: Counts, _loss: float | None) -> float:
    return _right(matrix[None]).mean()


def _macro_precision(matrix: Counts, _loss: float | None) -> float:
    return _precisions(matrix[None]).mean()


def _macro_recall(matrix: Counts, _loss: float | None) -> float:
    return _recalls(matrix[None]).mean()


def _macro_f1(matrix: Counts, _loss: float | None) -> float:
    return _f1s(matrix[None]).mean()


STUDY: Final = (
    Metric("loss", "Loss", _loss, higher_is_better=False),
    Metric("accuracy", "Accuracy", _accuracy, ratios=_right, is_headline=True),
    Metric("macro_precision", "Macro precision", _macro_precision, short="macro P", ratios=_precisions),
    Metric("macro_recall", "Macro recall", _macro_recall, short="macro R", ratios=_recalls),
    Metric("macro_f1", "Macro F1", _macro_f1, short="macro F1", ratios=_f1s, is_headline=True),
)
"""The scores of the original study. Every fit records them at each of its steps, so their code counts for every fit."""
METRICS: Final = Catalogue("metric", STUDY, lambda metric: metric.key)
"""All scores, in the order of the tracker; `METRICS.add` takes another. What is added to them makes no fit again (`closure.REGISTRIES`)."""
