"""Fitting one unit: which zones it may see, which statistics, and what comes out of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cropray.datasets.manifest import Manifest, statistics
from cropray.io.storage import Location
from cropray.search.results import FoldResult, Params
from cropray.search.space import Trial, Unit
from cropray.training.family import Family, FamilySettings, Fit, FitData, FitScore
from cropray.training.members import Member

Place = tuple[int | None, str | None]
"""Fold and region of a unit."""
OnStep = Callable[[Mapping[str, float]], None]


@dataclass(frozen=True, slots=True)
class SearchData:
    """Everything a unit needs; small, the pixels stay in the object store."""

    family: Family
    manifest: Manifest
    settings: FamilySettings
    """The job's, which the unit's values go before."""
    blocks: Mapping[str, Any]
    """Training zone → its tiles or its pixel table in the object store."""
    seed: int
    memory_bytes: float | None = None
    """What each worker may take; None: not known."""
    members: Mapping[Place, tuple[Member, ...]] = field(default_factory=dict)
    """Where a unit is fitted → the fits that it is built from, of a family that is."""


def unit_zones(unit: Unit, manifest: Manifest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(training zones, scored zones) of a unit; a refit trains on all, or leaves a region out and is scored on it."""
    if unit.region is not None:
        return manifest.region_zones(unit.region)
    if unit.fold is not None:
        return manifest.fold_zones(unit.fold)
    return tuple(zone.zone_id for zone in manifest.of_split("train")), ()


def fit_unit(
    unit: Unit, folder: Path, data: SearchData, progress: Location | None = None, on_step: OnStep | None = None
) -> Sequence[FoldResult]:
    """Fit a unit and write its model into `folder`.

    Args:
        unit: what to fit.
        folder: takes the model.
        data: the dataset's pixels and the settings.
        progress: file from which the fit goes on if its process was lost before; the caller removes it when the
            unit's folder stands. None: an interrupted fit starts again.
        on_step: called with the record of each step, where the family can.

    Returns:
        One result per configuration that the unit stands for; none for a refit on all zones, which is not scored.
    """
    scores = data.family.fit(replace(fit_job(unit, folder, data, progress), on_step=on_step))
    return tuple(_result(unit, score, data) for score in scores)


def fit_job(unit: Unit, folder: Path, data: SearchData, progress: Location | None) -> Fit:
    """The fit of a unit: its zones, their statistics, its settings."""
    manifest = data.manifest
    train, val = unit_zones(unit, manifest)
    mean, deviation = statistics(manifest.band_sums(train))
    return Fit(
        settings=data.settings.with_values(unit.trial.values),
        train=_side(train, data),
        val=_side(val, data) if val else None,
        classes=manifest.classes,
        legend_hash=manifest.legend_hash,
        mean=tuple(mean.tolist()),
        std=tuple(deviation.tolist()),
        seed=data.seed,
        folder=folder,
        steps=unit.trial.steps,
        n_steps=unit.n_steps,
        progress=progress,
        memory_bytes=data.memory_bytes,
        cube=manifest.cube,
        is_weighted=manifest.is_weighted,
        members=data.members.get((unit.fold, unit.region), ()),
    )


def _side(zone_ids: Iterable[str], data: SearchData) -> FitData:
    n_rows = data.manifest.labelled(zone_ids)
    return FitData({zone_id: data.blocks[zone_id] for zone_id in n_rows}, n_rows)


def configuration_of(found: Family, trial: Trial, step: int) -> Params:
    """The searched values of a trial, or of the prefix of so many steps; what the family searches by itself comes first."""
    values = {**trial.values, **({} if found.steps is None else {found.steps: step})}
    ordered = [name for name in found.grid if name in values]
    return {name: values[name] for name in [*ordered, *(name for name in values if name not in ordered)]}


def _result(unit: Unit, score: FitScore, data: SearchData) -> FoldResult:
    return FoldResult(
        params=configuration_of(data.family, unit.trial, score.step),
        fold=_fold(unit, data.manifest),
        loss_sum=score.loss_sum,
        confusion=tuple(tuple(row) for row in score.confusion.tolist()),
        history=score.history,
        best_step=score.step,
        seconds=score.seconds,
        untrained=score.untrained,
        untrained_loss_sum=score.untrained_loss_sum,
    )


def _fold(unit: Unit, manifest: Manifest) -> int:
    """Number of the fold that a unit is scored on."""
    if unit.region is not None:
        return manifest.train_regions.index(unit.region)
    assert unit.fold is not None
    return unit.fold
