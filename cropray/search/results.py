"""Results of units, on disk and summed up: mean over folds, the winner, what its refit needs."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from cropray.core.errors import SchemaError
from cropray.core.metrics import Counts, Scores, metric_of, score
from cropray.io.storage import Location, write_json

RESULT_FILE: Final = "result.json"  # in the folder of each finished unit

Params = Mapping[str, Any]
"""Searched field → value, as JSON has it."""


@dataclass(frozen=True, slots=True)
class FoldResult:
    """One configuration on one fold."""

    params: Params
    fold: int
    loss_sum: float
    """Negative log-likelihood summed over the validation pixels of trained classes, nats; see `cropray.core.metrics`."""
    confusion: tuple[tuple[int, ...], ...]
    """[true, predicted] over class indices; all validation pixels."""
    history: tuple[Mapping[str, float], ...]
    """One record per epoch or evaluated round, with `step`."""
    best_step: int
    """Epoch or number of trees that the scores belong to."""
    seconds: float
    """What this configuration took; of trees, what a fit of so many rounds takes."""
    untrained: tuple[int, ...] = ()
    """Indices of the classes that the fit's training zones lack."""
    untrained_loss_sum: float = 0.0
    """Negative log-likelihood summed over the validation pixels of these classes, nats."""

    @property
    def matrix(self) -> Counts:
        """[true, predicted] int64."""
        return np.array(self.confusion, np.int64)

    @property
    def scores(self) -> Scores:
        """Validation scores; the loss is that of trained classes."""
        return score(self.matrix, self.loss_sum, self.untrained)

    @property
    def n_untrained(self) -> int:
        """Validation pixels of classes that the fit's training zones lack."""
        return int(self.matrix[list(self.untrained)].sum())


@dataclass(frozen=True, slots=True)
class ConfigurationResult:
    """One configuration over all folds."""

    params: Params
    folds: tuple[FoldResult, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """`val_…_mean` and `val_…_std` over the folds (population deviation)."""
        per_fold = [fold.scores.as_metrics("val") for fold in self.folds]
        values = {key: [metrics[key] for metrics in per_fold] for key in per_fold[0]}
        means = {f"{key}_mean": statistics.fmean(series) for key, series in values.items()}
        return means | {f"{key}_std": statistics.pstdev(series) for key, series in values.items()}

    @property
    def refit_steps(self) -> int:
        """Epochs or trees for the refit: the folds' mean best, rounded up.

        Epochs are passes over the training tiles, of which a refit has more than a fold, and so more steps in each.
        """
        return max(1, math.ceil(statistics.fmean(fold.best_step for fold in self.folds)))


@dataclass(frozen=True, slots=True)
class RegionOut:
    """The winner's recipe on new regions: each was scored by a fit that saw none of its zones."""

    by_region: Mapping[str, FoldResult]
    """Region → result of the fit that left it out."""

    @property
    def cube(self) -> Counts:
        """[region, true, predicted] int64."""
        return np.stack([result.matrix for result in self.by_region.values()])

    @property
    def scores(self) -> Scores:
        """Of all regions' pixels together, as a test is scored: classes that only one region grows count as well."""
        return _tested(self.by_region.values())

    @property
    def scores_by_region(self) -> dict[str, Scores]:
        """The same of each region."""
        return {region: _tested([result]) for region, result in self.by_region.items()}

    @property
    def metrics(self) -> dict[str, float]:
        """`region_out_…`."""
        scores = self.scores
        return {**scores.as_metrics("region_out"), "region_out_pixels": scores.n_pixels}


def _tested(results: Iterable[FoldResult]) -> Scores:
    results = list(results)
    losses = math.fsum(loss for result in results for loss in (result.loss_sum, result.untrained_loss_sum))
    matrix: Counts = np.sum([result.matrix for result in results], axis=0)
    return replace(score(matrix, losses), n_untrained=sum(result.n_untrained for result in results))


def group_by_configuration(results: Iterable[FoldResult]) -> tuple[ConfigurationResult, ...]:
    """Collect fold results by their parameters, in order of first appearance."""
    groups: dict[str, list[FoldResult]] = {}
    for result in results:
        groups.setdefault(json.dumps(result.params, sort_keys=True), []).append(result)
    return tuple(
        ConfigurationResult(folds[0].params, tuple(sorted(folds, key=lambda result: result.fold)))
        for folds in groups.values()
    )


def winner(configurations: Sequence[ConfigurationResult], objective: str) -> ConfigurationResult:
    """The configuration with the best mean of the objective; the first one on a tie."""
    return max(configurations, key=lambda configuration: merit(configuration, objective))


def merit(configuration: ConfigurationResult, objective: str) -> float:
    """The mean of the objective over the folds; more is better."""
    sign = 1 if metric_of(objective).higher_is_better else -1
    return sign * configuration.metrics[f"{objective}_mean"]


def save_results(path: Location, results: Sequence[FoldResult]) -> None:
    """Write the results of one unit."""
    write_json(path, [asdict(result) for result in results])


def load_results(path: Location) -> tuple[FoldResult, ...]:
    """Read what `save_results` wrote.

    Raises:
        SchemaError: it is damaged, or of a version that counted losses otherwise.
    """
    try:
        return tuple(_result(record) for record in json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise SchemaError(
            f"'{path}' is missing, damaged or of another version of cropray ({type(error).__name__}: {error}); remove "
            f"'{path.parent}' and run `cropray search CONFIG.yaml` again"
        ) from None


def _result(record: dict[str, Any]) -> FoldResult:
    sequences = {
        "confusion": tuple(map(tuple, record["confusion"])),
        "history": tuple(record["history"]),
        "untrained": tuple(record["untrained"]),
    }
    return FoldResult(**{**record, **sequences})
