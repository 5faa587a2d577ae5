"""The plan of a job: seconds, bytes, memory, from counted work and measured unit costs."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cropray.config import JobConfig
from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.errors import ConfigError
from cropray.planning.costs import (
    FILMS_SHOWN,
    FIT_FILES_BYTES,
    MOST_PREVIEWS,
    PREVIEW_BYTES,
    READ_BYTES_S,
    REPORT_BYTES,
    TRACKED_FOLD_BYTES,
    TRACKED_MODEL_BYTES,
    TRACKING_BYTES,
    UNIT_S,
    WORKER_GROUP_S,
    TreeCosts,
    UnitCosts,
)
from cropray.planning.traffic import Traffic
from cropray.planning.work import Cluster, Fit, SearchWork, ZoneWork, at_once, makespan
from cropray.search.placement import Placement
from cropray.search.sampling import trials
from cropray.search.store import LOADING_COPIES, data_bytes
from cropray.training.family import Sample, family


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job is expected to take."""

    seconds: Mapping[str, float]
    """Stage → seconds; `start` is Ray's, once."""
    disk_bytes: Mapping[str, float]
    """Part of the workspace → bytes."""
    worker_bytes: Mapping[str, float]
    """Kind of worker → most memory of one process."""
    object_store_bytes: float
    """On a node that trains."""
    traffic: Traffic | None
    """None: no remote source is asked."""


@dataclass(frozen=True, slots=True)
class JobWork:
    """A job's work and where it is done."""

    zones: ZoneWork
    search: SearchWork
    placements: Mapping[str, Placement]
    cluster: Cluster
    tile_size: int
    traffic: Traffic | None = None
    cube: CubeSpec = STUDY_CUBE


def search_work(job: JobConfig, placements: Mapping[str, Placement], n_folds: int, n_regions: int = 0) -> SearchWork:
    """All fits of a job. Models whose units take the same share of the cluster run side by side.

    Args:
        job: the job.
        placements: model → how its units are placed.
        n_folds: of the dataset.
        n_regions: regions with training zones; leave-region-out fits each model once for each of them.

    Raises:
        ConfigError: leave-region-out has one region only.
    """
    n_left_out = n_regions if job.search.leave_region_out else 0
    if n_left_out == 1:
        raise ConfigError(
            "leave-region-out needs training zones in at least two regions, there is one: add zones of another region, or "
            "set search.leave_region_out to false"
        )
    groups: list[tuple[Fit, ...]] = []
    for _, group in itertools.groupby(job.search.models, key=lambda m: (placements[m], job.settings_of(m).takes_share)):
        models = list(group)
        groups.append(tuple(fit for model in models for fit in _fits(job, model, n_folds)))
        refits = [_refit(job, model) for model in models]
        without = [replace(fit, is_refit=False, is_region_out=True) for fit in refits for _ in range(n_left_out)]
        groups.append((*refits, *without))
    return SearchWork(tuple(groups), n_folds, n_left_out)


def _fits(job: JobConfig, model: str, n_folds: int) -> list[Fit]:
    settings = job.settings_of(model)
    found = trials(family(model), settings, job.search, job.seed)
    return [_fit(model, settings.with_values(trial.values), trial.steps) for trial in found for _ in range(n_folds)]


def kernel_sizes(job: JobConfig) -> set[int]:
    """Of the CNN."""
    return {fit.kernel_size for fit in _fits(job, "cnn", 1)}


def _fit(model: str, settings: Any, steps: tuple[int, ...]) -> Fit:
    if model == "xgboost":
        return Fit(model, 0, steps[-1])
    return Fit(model, settings.kernel_size, settings.epochs)


def _refit(job: JobConfig, model: str) -> Fit:
    """The winner is not known; the largest is assumed."""
    fits = _fits(job, model, 1)
    return replace(max(fits, key=lambda fit: (fit.kernel_size, fit.steps)), is_refit=True)


def estimate(work: JobWork, costs: UnitCosts) -> Estimate:
    """Sum up a job."""
    return Estimate(
        seconds=_seconds(work, costs),
        disk_bytes=_disk(work, costs),
        worker_bytes=_memory(work, costs),
        object_store_bytes=object_store_bytes(work.zones, list(work.placements), work.tile_size, work.cube),
        traffic=work.traffic,
    )


def _seconds(work: JobWork, costs: UnitCosts) -> dict[str, float]:
    seconds = {"start": costs.ray_start_s}
    if costs.zone is not None:
        seconds |= _zone_seconds(work, costs)
    seconds["search"] = _search_seconds(work, costs)
    seconds["evaluate"] = costs.worker_start_s + sum(_evaluate_seconds(work, costs, m) for m in work.placements)
    if costs.zone is not None:
        seconds["map"] = sum(_map_seconds(work, costs, model) for model in work.placements)
        films_s = makespan([costs.zone.film_s] * work.zones.n_films, at_once(work.cluster))
        seconds["report"] = costs.fixed_s("report") + films_s
    else:
        seconds["report"] = costs.fixed_s("report")
    return seconds


def _zone_seconds(work: JobWork, costs: UnitCosts) -> dict[str, float]:
    assert costs.zone is not None
    n, slots = work.zones.n_zones, at_once(work.cluster)
    acquire_s = makespan([costs.zone.acquire_s] * n, slots)
    if work.traffic is not None:
        acquire_s = max(acquire_s, work.traffic.seconds)  # composites are written while others are on their way
    return {
        "zones": costs.fixed_s("zones"),
        "acquire": costs.fixed_s("acquire") + costs.find_s + acquire_s,
        "labels": costs.fixed_s("labels") + makespan([costs.zone.label_s] * n, slots),
        "dataset": costs.fixed_s("dataset") + n * costs.zone.count_s + makespan([costs.zone.build_s] * n, slots),
    }


def _search_seconds(work: JobWork, costs: UnitCosts) -> float:
    seconds = loading_seconds(work)
    for fits in work.search.groups:
        placement = work.placements[fits[0].model]
        start_s = costs.fixed_s("search" if fits[0].is_fold else "refit")
        durations = [fit_seconds(fit, work, costs) + UNIT_S for fit in fits]
        seconds += start_s + costs.worker_start_s + makespan(durations, placement.max_concurrent)
    return seconds


def loading_seconds(work: JobWork) -> float:
    """Reading the training data of all models into the object store, and bringing each node what the others read."""
    cluster, zones = work.cluster, work.zones
    models = list(work.placements)
    size = sum(
        data_bytes(each, zones.train_rows, zones.train_tiles, work.tile_size, work.cube) for each in samples_of(models)
    )
    others = (cluster.n_nodes - 1) / cluster.n_nodes
    return size / (READ_BYTES_S * at_once(cluster)) + size * others / cluster.network_bytes_s


def fit_seconds(fit: Fit, work: JobWork, costs: UnitCosts) -> float:
    """One fit, beside as many others as run at the same time; the CNN's epochs are at most so many."""
    scored = 0.0 if fit.is_refit else 1 / (work.search.n_regions if fit.is_region_out else work.search.n_folds)
    trained = 1 - scored
    if fit.model == "xgboost":
        assert costs.trees is not None
        rows = work.zones.train_rows * trained
        own_s = rows * costs.trees.setup_row_s + fit.steps * (costs.trees.round_s + rows * costs.trees.round_row_s)
    else:
        cnn = costs.cnn[fit.kernel_size]
        tiles = work.zones.train_tiles
        n_scored = 1 if fit.is_region_out else fit.steps
        own_s = cnn.start_s + tiles * (fit.steps * trained * cnn.train_tile_s + n_scored * scored * cnn.eval_tile_s)
    n_workers = work.placements[fit.model].num_workers
    return own_s / max(n_workers, 1) + (WORKER_GROUP_S if n_workers else 0.0)


def _evaluate_seconds(work: JobWork, costs: UnitCosts, model: str) -> float:
    """Test zones are predicted as they are mapped; points row by row."""
    n, slots = max(work.zones.n_test, 1), at_once(work.cluster)
    if model == "xgboost":
        assert costs.trees is not None
        is_points = costs.zone is None
        rows = work.zones.test_rows / n if is_points else work.zones.n_pixels / max(work.zones.n_zones, 1)
        zone_s = rows * costs.trees.predict_row_s * _rounds(work)
    else:
        zone_s = max(cnn.map_s for cnn in costs.cnn.values())
    return costs.fixed_s("evaluate") + makespan([zone_s] * n, slots)


def _map_seconds(work: JobWork, costs: UnitCosts, model: str) -> float:
    n, slots = work.zones.n_mapped, at_once(work.cluster)
    if model == "xgboost":
        assert costs.trees is not None
        pixels = work.zones.n_pixels / max(work.zones.n_zones, 1)
        zone_s = costs.trees.map_s + pixels * costs.trees.predict_row_s * _rounds(work)
    else:
        zone_s = max(cnn.map_s for cnn in costs.cnn.values())
    return costs.fixed_s("map") + makespan([zone_s] * n, slots)


def _rounds(work: JobWork) -> int:
    return max(fit.steps for group in work.search.groups for fit in group if fit.model == "xgboost")


def _disk(work: JobWork, costs: UnitCosts) -> dict[str, float]:
    n = work.zones.n_zones
    disk: dict[str, float] = {}
    if costs.zone is not None:
        disk = {
            "composites": n * costs.zone.composite_bytes,
            "labels": n * costs.zone.label_bytes,
            "dataset": n * costs.zone.dataset_bytes,
        }
    fits = [fit for group in work.search.groups for fit in group]
    models = {model: _model_bytes(work, costs, model) for model in work.placements}
    n_folds = sum(fit.is_fold for fit in fits)
    disk["search"] = sum(_fit_bytes(fit, costs) + FIT_FILES_BYTES for fit in fits) + sum(models.values())
    disk["tracking"] = TRACKING_BYTES + n_folds * TRACKED_FOLD_BYTES
    disk["tracking"] += sum(models.values()) + len(models) * TRACKED_MODEL_BYTES
    disk["report"] = REPORT_BYTES
    if costs.zone is not None:
        disk["maps"] = work.zones.n_mapped * sum(_map_bytes(costs, model) for model in work.placements)
        disk["report"] += len(models) * min(work.zones.n_mapped, MOST_PREVIEWS) * PREVIEW_BYTES
        disk["report"] += work.zones.n_films * costs.zone.film_bytes * (1 + FILMS_SHOWN)
    return disk


def _fit_bytes(fit: Fit, costs: UnitCosts) -> float:
    if fit.model == "xgboost":
        assert costs.trees is not None
        return fit.steps * costs.trees.round_bytes
    return costs.cnn[fit.kernel_size].model_bytes


def _model_bytes(work: JobWork, costs: UnitCosts, model: str) -> float:
    refits = [fit for group in work.search.groups for fit in group if fit.model == model and fit.is_refit]
    return sum(_fit_bytes(fit, costs) for fit in refits)


def _map_bytes(costs: UnitCosts, model: str) -> float:
    if model == "xgboost":
        assert costs.trees is not None
        return costs.trees.map_bytes
    return max(cnn.map_bytes for cnn in costs.cnn.values())


def _memory(work: JobWork, costs: UnitCosts) -> dict[str, float]:
    memory = {} if costs.zone is None else {"zones": costs.zone.peak_bytes}
    for model in work.placements:
        if model == "xgboost":
            memory["trees"] = tree_bytes(costs.trees, work.zones.train_rows, work.placements[model])
        else:
            memory["cnn"] = max(cnn.peak_bytes for cnn in costs.cnn.values())
    return memory


def tree_bytes(trees: TreeCosts | None, rows: float, placement: Placement) -> float:
    """Most memory of a worker: a refit holds all training rows, a fold the same number with its validation rows."""
    assert trees is not None
    share = rows / max(placement.num_workers, 1)
    size = trees.worker_bytes + share * trees.row_bytes
    return size if size <= placement.memory_bytes else trees.worker_bytes + share * trees.resident_row_bytes


def object_store_bytes(zones: ZoneWork, models: Sequence[str], tile_size: int, cube: CubeSpec = STUDY_CUBE) -> float:
    """Training data of all models, with the copies while it is read."""
    rows, tiles = zones.train_rows, zones.train_tiles
    return LOADING_COPIES * sum(data_bytes(sample, rows, tiles, tile_size, cube) for sample in samples_of(models))


def samples_of(models: Iterable[str]) -> set[Sample]:
    """Kinds of samples that some families train on."""
    return {family(model).sample for model in models}


def n_tiles(shape: tuple[int, int], tile_size: int) -> int:
    """Tiles of a zone, those without labels too."""
    return math.ceil(shape[0] / tile_size) * math.ceil(shape[1] / tile_size)
