"""Racing: a trial is fitted on the next fold only while it is not clearly worse than the best configuration so far.

Two configurations are compared on the zones that both were validated on. Each unit keeps what it counted zone by zone; with
these files the same trials are dropped again, so that a search that goes on ends as one that ran through.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray

from cropray.core.intervals import bootstrap_difference
from cropray.core.legend import IGNORE
from cropray.core.metrics import Counts, confusion, metric_of
from cropray.search.fit import SearchData, unit_zones
from cropray.search.results import ConfigurationResult, FoldResult, merit, winner
from cropray.search.run import UnitJob
from cropray.search.space import Trial, Unit, title
from cropray.training.crop_model import CropModel
from cropray.training.pixel_blocks import class_indices, in_batches, samples

ZONES_FILE: Final = "zones.npy"  # [configuration, zone, true, predicted] of a unit of a race
WIDTHS: Final = 2.0  # half widths of the 95 % interval of a difference that must lie below 0
LEAST: Final = 0.01  # of the objective: what one fold says of less, another training set may turn round
_TILES_AT_ONCE: Final = 8


def write_zone_counts(unit: Unit, folder: Path, data: SearchData, results: Sequence[FoldResult]) -> None:
    """Count zone by zone what each configuration of a unit predicts of its fold's zones, for `Race`.

    Args:
        unit: of a fold.
        folder: with its model; takes `ZONES_FILE`.
        data: what it was fitted with.
        results: one per configuration.

    Raises:
        SchemaError: the model is damaged, or a label is of no class of the dataset.
    """
    need, prefix, lookup = data.settings.need(), data.family.prefix, data.manifest.lookup()
    model = data.family.load(folder, "cuda" if need.gpus and not need.num_workers else "cpu")
    models = [model if prefix is None else prefix(model, result.best_step) for result in results]
    blocks = [data.blocks[zone_id] for zone_id in unit_zones(unit, data.manifest)[1]]
    if need.num_workers:  # this process has next to no CPU of its own
        task = ray.remote(_count_zone).options(num_cpus=need.task_cpus, scheduling_strategy="DEFAULT")
        shared = ray.put(models)
        counted = ray.get([task.remote(block, shared, lookup) for block in blocks])
    else:
        counted = [_count_zone(block, models, lookup) for block in blocks]
    np.save(folder / ZONES_FILE, np.stack(counted, axis=1))


def _count_zone(block: Any, models: Sequence[CropModel], lookup: npt.NDArray[np.uint8]) -> Counts:
    """[model, true, predicted] of a zone's labelled pixels."""
    block, n_classes = ray.get(block) if isinstance(block, ray.ObjectRef) else block, len(models[0].classes)
    counts = np.zeros((len(models), n_classes, n_classes), np.int64)
    for rows in in_batches([block]) if isinstance(block, pa.Table) else ():
        x, true = samples(rows, models[0].cube.columns), class_indices(rows, lookup)
        counts += [confusion(true, model.predict_samples(x).argmax(1), n_classes) for model in models]
    for start in () if isinstance(block, pa.Table) else range(0, len(block.x), _TILES_AT_ONCE):
        piece = slice(start, start + _TILES_AT_ONCE)
        x, true = block.x[piece], lookup[block.labels[piece]]
        is_labelled = true != IGNORE
        counts += [
            confusion(true[is_labelled], model.predict_tiles(x).argmax(1)[is_labelled], n_classes) for model in models
        ]
    return counts


def worth(configuration: ConfigurationResult, best: ConfigurationResult, objective: str) -> float:
    """Its objective over all folds, more is better; of one that was dropped the best one's, less what it is worse on its own."""
    shared = replace(best, folds=best.folds[: len(configuration.folds)])
    return merit(best, objective) + merit(configuration, objective) - merit(shared, objective)


@dataclass(frozen=True, slots=True)
class _Raced:
    """One configuration on the first folds."""

    trial: Trial
    result: ConfigurationResult
    zones: Counts | None
    """[zone, true, predicted] of these folds; None: a fold was fitted without racing."""


class Race:
    """The trials of a search, fold after fold; where nobody races, on all folds at once."""

    def __init__(
        self, objective: str, n_folds: int, unit: Callable[[Trial, int], UnitJob], seed: int, *, is_on: bool
    ) -> None:
        """Args: unit: of a trial on a fold; seed: of the intervals."""
        self.dropped: list[dict[str, Any]] = []
        """Trials that were dropped, after how many folds, and why."""
        self.ahead: list[UnitJob] = []
        """Of trials in the race, on folds after the one that is fitted now: some may be dropped before."""
        self.news: list[str] = []
        """What is to be said."""
        self._objective, self._n_folds, self._unit, self._seed, self._is_on = objective, n_folds, unit, seed, is_on
        self._in: list[Trial] = []
        self._out: list[Trial] = []

    def rounds(self, proposed: Sequence[Trial]) -> Iterator[list[UnitJob]]:
        """The units of a batch of trials on each fold; the next are asked for once those before are finished."""
        folds = range(self._n_folds)
        if not self._is_on:
            yield [self._unit(trial, fold) for trial in proposed for fold in folds]
            return
        running = [t for i, t in enumerate(proposed) if t not in (*self._in, *self._out, *proposed[:i])]
        self._in += running
        for fold in folds:
            self.ahead = [self._unit(trial, later) for trial in running for later in folds[fold + 1 :]]
            yield [self._unit(trial, fold) for trial in running]
            if self.ahead:
                running = self._still_in(running, fold + 1)

    def _still_in(self, running: Sequence[Trial], n_folds: int) -> list[Trial]:
        raced = [each for trial in self._in for each in self._raced(trial, n_folds)]
        best = winner([each.result for each in raced], self._objective)
        leader = next(each for each in raced if each.result is best)
        stay = []
        for trial in running:
            own = [each for each in raced if each.trial == trial]
            why = [self._clearly_worse(each, leader) for each in own]
            if all(why):
                self._drop(trial, max(why, key=lambda each: each["difference"]), n_folds)
            else:
                stay.append(trial)
        self.news.append(
            f"race after {n_folds} of {self._n_folds} folds: {len(stay)} of {len(running)} trials go on; the leader is "
            f"{title(best.params)}"
        )
        return stay

    def _clearly_worse(self, one: _Raced, leader: _Raced) -> dict[str, Any]:
        """Why a configuration is; empty: it is not, or nobody knows."""
        difference = merit(one.result, self._objective) - merit(leader.result, self._objective)
        if difference > -LEAST or one.zones is None or leader.zones is None:
            return {}
        found = bootstrap_difference(one.zones, leader.zones, self._seed)
        of_zones = found.get(f"test_{metric_of(self._objective).key}")  # none of too few zones
        if of_zones is None or of_zones.value + WIDTHS * (of_zones.high - of_zones.value) >= 0:
            return {}
        interval, n_zones = [of_zones.low, of_zones.high], int(one.zones.any((1, 2)).sum())
        return {"difference": difference, "interval": interval, "zones": n_zones, "leader": dict(leader.result.params)}

    def _drop(self, trial: Trial, why: dict[str, Any], n_folds: int) -> None:
        self._in.remove(trial)
        self._out.append(trial)
        called = self._unit(trial, 0).unit.title.removesuffix(" fold=0")
        self.dropped.append({"trial": called, "after_folds": n_folds, **why})
        low, high = why["interval"]
        self.news.append(
            f"dropped after {n_folds} of {self._n_folds} folds: {called}; its {self._objective} is {why['difference']:+.4f} "
            f"to the leader's, over {why['zones']} zones {low:+.4f} to {high:+.4f}"
        )

    def _raced(self, trial: Trial, n_folds: int) -> Iterator[_Raced]:
        """Each configuration of a trial; none where it is not on so many folds yet."""
        jobs = [self._unit(trial, fold) for fold in range(n_folds)]
        if not all(job.is_finished for job in jobs):
            return
        files = [job.folder / ZONES_FILE for job in jobs]
        is_known = all(file.exists() for file in files)
        zones = [np.load(io.BytesIO(file.read_bytes())) for file in files] if is_known else []
        for i, results in enumerate(zip(*(job.results() for job in jobs), strict=True)):
            cube = np.concatenate([of_fold[i] for of_fold in zones]) if is_known else None
            yield _Raced(trial, ConfigurationResult(results[0].params, results), cube)
