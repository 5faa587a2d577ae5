"""The plan of a job: seconds, bytes, memory, from counted work and measured unit costs."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cropray.cluster.placement import Placement
from cropray.cluster.resources import FitSize
from cropray.config import JobConfig
from cropray.core.errors import ConfigError
from cropray.imagery.acquisition import Traffic
from cropray.planning.costs import (
    FILMS_SHOWN,
    FIT_FILES_BYTES,
    PREVIEW_BYTES,
    READ_BYTES_S,
    REPORT_BYTES,
    TRACKED_FOLD_BYTES,
    TRACKED_MODEL_BYTES,
    TRACKING_BYTES,
    UNIT_S,
    WORKER_GROUP_S,
    Kind,
    UnitCosts,
)
from cropray.planning.work import Cluster, Fit, SearchWork, ZoneWork, at_once, makespan
from cropray.report.settings import MOST_PREVIEWS
from cropray.search.sampling import trials
from cropray.search.space import title
from cropray.search.store import LOADING_COPIES, data_bytes
from cropray.training.family import FamilySettings, Sample, family


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

    job: JobConfig
    zones: ZoneWork
    search: SearchWork
    placements: Mapping[str, Placement]
    """Family → how its units are placed."""
    cluster: Cluster
    traffic: Traffic | None = None

    def refit(self, model: str) -> Fit:
        """A family's."""
        return next(fit for group in self.search.groups for fit in group if fit.model == model and fit.is_refit)


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
        fits = {model: [fit for fit, _ in _trials(job, model)] for model in group}
        most_trials = max(map(len, fits.values()))
        size = job.search.batch if job.search.sampler == "tpe" else most_trials
        for first in range(0, most_trials, size):
            batch = [fit for of_model in fits.values() for fit in of_model[first : first + size]]
            groups.append(tuple(fit for fit in batch for _ in range(n_folds)))
        # The winner is not known: the dearest is assumed, with most steps.
        most = {model: max(fit.steps for fit in of_model) for model, of_model in fits.items()}
        refits = [Fit((model, ""), steps, is_refit=True) for model, steps in most.items()]
        without = [replace(fit, is_refit=False, is_region_out=True) for fit in refits for _ in range(n_left_out)]
        groups.append((*refits, *without))
    return SearchWork(tuple(groups), n_folds, n_left_out)


def kinds(job: JobConfig, model: str) -> dict[Kind, FamilySettings]:
    """Kinds of a family's trials, which differ in what a fit costs → settings of the first trial of each."""
    found: dict[Kind, FamilySettings] = {}
    for fit, settings in _trials(job, model):
        found.setdefault(fit.kind, settings)
    return found


def _trials(job: JobConfig, model: str) -> list[tuple[Fit, FamilySettings]]:
    """One fit of each trial, with its settings."""
    found, settings = family(model), job.settings_of(model)
    result = []
    for trial in trials(found, settings, job.search, job.seed):
        own = settings.with_values(trial.values)
        most = getattr(own, found.most_steps) if found.most_steps else 1
        costly = {k: v for k, v in trial.values.items() if k not in found.free and k != found.most_steps}
        result.append((Fit((model, title(costly)), trial.steps[-1] if trial.steps else most), own))
    return result


def estimate(work: JobWork, costs: UnitCosts) -> Estimate:
    """Sum up a job."""
    memory = {} if costs.zone is None else {"zones": costs.zone.peak_bytes}
    return Estimate(
        seconds=_seconds(work, costs),
        disk_bytes=_disk(work, costs),
        worker_bytes=memory | {family(model).label: worker_bytes(work, costs, model) for model in work.placements},
        object_store_bytes=LOADING_COPIES * training_bytes(work),
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
    seconds = loading_seconds(work) + sum(_out_of_fold_seconds(work, costs, model) for model in work.placements)
    bounded_s, was_fold = 0.0, False
    for fits in work.search.groups:
        is_fold, placement = fits[0].is_fold, work.placements[fits[0].model]
        # A batch that follows another one is one more run of Tune, as the refits are.
        start_s = costs.fixed_s("search" if is_fold and not was_fold else "refit") + costs.worker_start_s
        durations = [fit_seconds(fit, work, costs) + UNIT_S for fit in fits]
        group_s = start_s + makespan(durations, placement.max_concurrent)
        bounded_s, seconds = (bounded_s + group_s, seconds) if is_fold else (bounded_s, seconds + group_s)
        was_fold = is_fold
    return seconds + min(bounded_s, work.job.search.time_budget_s or math.inf)


def _out_of_fold_seconds(work: JobWork, costs: UnitCosts, model: str) -> float:
    """Training zones are predicted as they are mapped; of points those that are drawn."""
    zones, most = work.zones, work.job.search.oof_rows * work.zones.n_classes
    n = zones.n_zones - zones.n_test
    if not most or not n:
        return 0.0
    pixels = min(zones.train_rows / n, most) if costs.zone is None else zones.n_pixels / zones.n_zones
    return makespan([_predict_seconds(work, costs, model, pixels)] * n, at_once(work.cluster))


def loading_seconds(work: JobWork) -> float:
    """Reading the training data of all models into the object store, and bringing each node what the others read."""
    cluster, size = work.cluster, training_bytes(work)
    others = (cluster.n_nodes - 1) / cluster.n_nodes
    return size / (READ_BYTES_S * at_once(cluster)) + size * others / cluster.network_bytes_s


def fit_seconds(fit: Fit, work: JobWork, costs: UnitCosts) -> float:
    """One fit, beside as many others as run at the same time; steps that validation may stop are at most so many."""
    found, n_workers = family(fit.model), work.placements[fit.model].num_workers
    scored = 0.0 if fit.is_refit else 1 / (work.search.n_regions if fit.is_region_out else work.search.n_folds)
    n = work.zones.training(found.sample)
    n_times = 1 if fit.is_region_out and found.most_steps else fit.steps
    own_s = max(each.fit_s(fit.steps, n * (1 - scored), n * scored, n_times) for each in costs.of(fit.kind))
    return own_s / max(n_workers, 1) + (WORKER_GROUP_S if n_workers else 0.0)


def _evaluate_seconds(work: JobWork, costs: UnitCosts, model: str) -> float:
    """Test zones are predicted as they are mapped; points row by row."""
    zones, slots = work.zones, at_once(work.cluster)
    n = max(zones.n_test, 1)
    pixels = zones.test_rows / n if costs.zone is None else zones.n_pixels / max(zones.n_zones, 1)
    return costs.fixed_s("evaluate") + makespan([_predict_seconds(work, costs, model, pixels)] * n, slots)


def _map_seconds(work: JobWork, costs: UnitCosts, model: str) -> float:
    zones = work.zones
    rest_s = max(each.map_s for each in costs.of((model, "")))
    zone_s = rest_s + _predict_seconds(work, costs, model, zones.n_pixels / max(zones.n_zones, 1))
    return costs.fixed_s("map") + makespan([zone_s] * zones.n_mapped, at_once(work.cluster))


def _predict_seconds(work: JobWork, costs: UnitCosts, model: str, pixels: float) -> float:
    refit = work.refit(model)
    return max(each.predict_s(pixels, refit.steps) for each in costs.of(refit.kind))


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
    models = {model: _model_bytes(work.refit(model), costs) for model in work.placements}
    n_folds = sum(fit.is_fold for fit in fits)
    disk["search"] = sum(_model_bytes(fit, costs) + FIT_FILES_BYTES for fit in fits) + sum(models.values())
    disk["tracking"] = TRACKING_BYTES + n_folds * TRACKED_FOLD_BYTES
    disk["tracking"] += sum(models.values()) + len(models) * TRACKED_MODEL_BYTES
    disk["report"] = REPORT_BYTES
    if costs.zone is not None:
        of_zone = sum(max(each.map_bytes for each in costs.of((model, ""))) for model in models)
        disk["maps"] = work.zones.n_mapped * of_zone
        disk["report"] += len(models) * min(work.zones.n_mapped, MOST_PREVIEWS) * PREVIEW_BYTES
        disk["report"] += work.zones.n_films * costs.zone.film_bytes * (1 + FILMS_SHOWN)
    return disk


def _model_bytes(fit: Fit, costs: UnitCosts) -> float:
    return max(each.model_size(fit.steps) for each in costs.of(fit.kind))


def worker_bytes(work: JobWork, costs: UnitCosts, model: str) -> float:
    """Most memory of a worker: a refit holds all training samples, a fold the same number with its validation samples."""
    placement, n = work.placements[model], work.zones.training(family(model).sample)
    sizes = []
    for kind, settings in kinds(work.job, model).items():
        n_features = settings.n_features(work.job.cube_spec)
        size = FitSize(n, work.zones.n_classes, n_features, placement.memory_bytes)
        known = settings.fit_bytes(size)
        for each in costs.of(kind):
            fit = each.held_bytes(n) / max(placement.num_workers, 1) if known is None else known
            sizes.append(each.process_bytes + fit)
    return max(sizes)


def training_bytes(work: JobWork) -> float:
    """Training data of all models, which those that read the same samples share."""
    samples: set[Sample] = {family(model).sample for model in work.placements}
    zones, tile_size = work.zones, work.job.dataset.tile_size
    return sum(data_bytes(each, zones.train_rows, zones.train_tiles, tile_size, work.job.cube_spec) for each in samples)
