"""Fitting one unit: which zones it may see, which statistics, and what comes out of it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from cropray.datasets.manifest import Manifest, statistics
from cropray.search.results import FoldResult
from cropray.search.space import Unit
from cropray.storage import Location
from cropray.training.cnn import CnnData, train_cnn
from cropray.training.pixel_blocks import PixelBlock, TreeData
from cropray.training.settings import CnnPoint, CnnSettings, XgboostPoint, XgboostSettings
from cropray.training.tiles import ChannelStats
from cropray.training.xgboost import train_xgboost


@dataclass(frozen=True, slots=True)
class SearchData:
    """Everything a unit needs; small, the pixels stay in the object store."""

    manifest: Manifest
    settings: CnnSettings | XgboostSettings
    blocks: Mapping[str, "ray.ObjectRef"]
    """Training zone → its tiles (CNN) or its pixel table (trees)."""
    seed: int
    memory_bytes: float | None = None
    """What each worker may take; None: not known."""


def unit_zones(unit: Unit, manifest: Manifest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(training zones, scored zones) of a unit; a refit trains on all, or leaves a region out and is scored on it."""
    if unit.region is not None:
        return manifest.region_zones(unit.region)
    if unit.fold is not None:
        return manifest.fold_zones(unit.fold)
    return tuple(zone.zone_id for zone in manifest.of_split("train")), ()


def fit_unit(unit: Unit, folder: Path, data: SearchData, progress: Location | None = None) -> Sequence[FoldResult]:
    """Fit a unit and write its model into `folder`.

    Args:
        unit: what to fit.
        folder: takes the model.
        data: the dataset's pixels and the settings.
        progress: file from which the fit goes on if its process was lost before; the caller removes it when the
            unit's folder stands. None: an interrupted fit starts again.

    Returns:
        One result per configuration that the unit stands for; none for a refit on all zones, which is not scored.
    """
    if isinstance(unit.point, CnnPoint):
        return fit_cnn(unit, unit.point, folder, data, progress)
    return fit_trees(unit, unit.point, folder, data, progress)


def fit_cnn(
    unit: Unit, point: CnnPoint, folder: Path, data: SearchData, progress: Location | None
) -> Sequence[FoldResult]:
    """Fit a unit of the CNN; see `fit_unit`."""
    started = time.monotonic()
    assert isinstance(data.settings, CnnSettings)
    train, val = unit_zones(unit, data.manifest)
    mean, deviation = statistics(data.manifest.band_sums(train))
    result = train_cnn(
        data.settings,
        point,
        CnnData(
            train=_blocks(train, data),
            val=_blocks(val, data) if val else None,
            stats=ChannelStats(tuple(mean.tolist()), tuple(deviation.tolist())),
            lookup=data.manifest.lookup(),
            classes=data.manifest.classes,
            legend_hash=data.manifest.legend_hash,
            cube=data.manifest.cube,
        ),
        data.seed,
        folder,
        n_epochs=unit.n_epochs,
        progress=progress,
    )
    if result.validation is None:
        return ()
    history = tuple({**{k: v for k, v in r.items() if k != "epoch"}, "step": r["epoch"]} for r in result.history)
    return (
        FoldResult(
            params={"learning_rate": point.learning_rate, "kernel_size": point.kernel_size},
            fold=_fold(unit, data.manifest),
            loss_sum=result.validation.loss_sum,
            confusion=_rows(result.validation.confusion.tolist()),
            history=history,
            best_step=result.best_epoch,
            seconds=time.monotonic() - started,
            untrained=result.validation.untrained,
            untrained_loss_sum=result.validation.untrained_loss_sum,
        ),
    )


def fit_trees(
    unit: Unit, point: XgboostPoint, folder: Path, data: SearchData, progress: Location | None
) -> Sequence[FoldResult]:
    """Fit a unit of the trees; see `fit_unit`."""
    assert isinstance(data.settings, XgboostSettings)
    train, val = unit_zones(unit, data.manifest)
    result = train_xgboost(
        data.settings,
        point,
        _trees(train, data),
        _trees(val, data) if val else None,
        data.seed,
        folder,
        progress=progress,
        memory_bytes=data.memory_bytes,
    )
    return tuple(
        FoldResult(
            params={"n_estimators": tree.n_estimators, "learning_rate": point.learning_rate},
            fold=_fold(unit, data.manifest),
            loss_sum=tree.loss_sum,
            confusion=_rows(tree.confusion.tolist()),
            history=tuple(record for record in result.history if record["step"] <= tree.n_estimators),
            best_step=tree.n_estimators,
            seconds=tree.seconds,
            untrained=result.untrained,
            untrained_loss_sum=tree.untrained_loss_sum,
        )
        for tree in result.scores
    )


def _fold(unit: Unit, manifest: Manifest) -> int:
    """Number of the fold that a unit is scored on."""
    if unit.region is not None:
        return manifest.train_regions.index(unit.region)
    assert unit.fold is not None
    return unit.fold


def _trees(zone_ids: Iterable[str], data: SearchData) -> TreeData:
    n_rows = data.manifest.labelled(zone_ids)
    return TreeData(
        {zone_id: PixelBlock(block, n_rows[zone_id]) for zone_id, block in _blocks(n_rows, data).items()},
        data.manifest.classes,
        data.manifest.legend_hash,
        data.manifest.cube,
    )


def _blocks(zone_ids: Iterable[str], data: SearchData) -> dict[str, "ray.ObjectRef"]:
    return {zone_id: data.blocks[zone_id] for zone_id in zone_ids}


def _rows(matrix: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in matrix)
