"""The plan of a job: seconds, bytes, memory, from counted work and measured unit costs."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Final

from cropray.cluster.resources import FitSize
from cropray.imagery.acquisition import Traffic
from cropray.planning.costs import FitCosts, FitTerms, Straight, UnitCosts
from cropray.planning.table import OBJECT_STORE, WORKER, Amounts
from cropray.planning.work import Fit, JobWork, kinds, makespan
from cropray.report.settings import MOST_PREVIEWS
from cropray.search.store import LOADING_COPIES, data_bytes
from cropray.training.family import Sample, family

UNIT_S: Final = 0.3  # Tune between two units, and their MLflow runs
WORKER_GROUP_S: Final = 25.0  # a worker group of Ray Train: 14–40 s on 2 cores
READ_BYTES_S: Final = 60e6  # by one CPU, of the dataset's shards as in memory; of 0.25 MB each, larger are faster

# Files that do not grow with the images, as `cropray run` left them on the drawn landscape of 40 zones.
TRACKING_BYTES: Final = 0.9e6  # MLflow's empty store
TRACKED_MODEL_BYTES: Final = 1.0e6  # pictures and tables of a model's scores
TRACKED_FOLD_BYTES: Final = 20e3
FIT_FILES_BYTES: Final = 17e3  # beside its model: card, results, Tune's state
REPORT_BYTES: Final = 2.4e6  # overviews of the data, pictures of the scores, the page
PREVIEW_BYTES: Final = 63e3
FILMS_SHOWN: Final = 0.3  # share of a zone's films, by size, that the report takes a copy of


def estimate(work: JobWork, costs: UnitCosts) -> Amounts:
    """Sum up a job: its `source`, the `time` of each stage (`start` is Ray's, once), the `disk` of each part, and `memory`."""
    groups = {
        "source": {} if work.traffic is None else _source(work.traffic),
        "time": _seconds(work, costs),
        "disk": _disk(work, costs),
        "memory": _memory(work, costs),
    }
    return {(group, name): amount for group, amounts in groups.items() for name, amount in amounts.items()}


def with_built(work: JobWork, costs: UnitCosts) -> UnitCosts:
    """With costs of the families that are built from others' winners, of which none is measured: they predict with each of these."""
    fits = dict(costs.fits)
    for model in work.job.search.in_turn()[1]:
        refits = [work.refit(member) for member in work.members(model)]
        pixel_s = sum(predict_seconds(work, costs, refit.model, 1) for refit in refits)
        model_bytes = sum(_model_bytes(refit, costs) for refit in refits)
        sample_px = work.job.dataset.tile_size**2 if work.sample(model) == "tile" else 1
        found = FitCosts(
            seconds=FitTerms(0, 0, 0, 0, pixel_s * sample_px),
            model_bytes=Straight(model_bytes, 0),
            worker_bytes=Straight(_most(refits, costs, lambda c: c.worker_bytes.base) + model_bytes, 0),
            batch=math.inf,
            pixel_s=Straight(pixel_s, 0),
            map_s=_most(refits, costs, lambda c: c.map_s),
            map_bytes=_most(refits, costs, lambda c: c.map_bytes),
            operations=0.0,
        )
        fits |= dict.fromkeys(kinds(work.job, model), found)
    return replace(costs, fits=fits)


def _most(fits: Iterable[Fit], costs: UnitCosts, cost: Callable[[FitCosts], float]) -> float:
    return max(costs.dearest(fit.kind, cost) for fit in fits)


def _source(traffic: Traffic) -> dict[str, float]:
    computing = {} if traffic.eecu_hours is None else {"computing": traffic.eecu_hours}
    return {"requests": traffic.requests, "download": traffic.bytes} | computing


def _seconds(work: JobWork, costs: UnitCosts) -> dict[str, float]:
    """Test zones are predicted as they are mapped; points row by row."""
    zones, models = work.zones, list(work.placements)
    search = {"search": _search_seconds(work, costs)}
    n_test = max(zones.n_test, 1)
    pixels = zones.test_rows / n_test if costs.zone is None else zones.zone_pixels
    scored = [costs.fixed_s("evaluate") + _each(work, n_test, predict_seconds(work, costs, m, pixels)) for m in models]
    evaluate = {"evaluate": costs.worker_start_s + sum(scored)}
    start, report_s = {"start": costs.ray_start_s}, costs.fixed_s("report")
    if costs.zone is None:
        return start | search | evaluate | {"report": report_s}
    of, n = costs.zone.seconds, zones.n_zones
    # Composites are written while others are on their way.
    acquire_s = max(_each(work, n, of["acquire"]), work.traffic.seconds if work.traffic else 0.0)
    made = {
        "zones": costs.fixed_s("zones"),
        "acquire": costs.fixed_s("acquire") + costs.find_s + acquire_s,
        "labels": costs.fixed_s("labels") + _each(work, n, of["label"]),
        "dataset": costs.fixed_s("dataset") + n * of["count"] + _each(work, n, of["build"]),
    }
    mapped = [
        costs.dearest((m, ""), lambda c: c.map_s) + predict_seconds(work, costs, m, zones.zone_pixels) for m in models
    ]
    map_s = sum(costs.fixed_s("map") + _each(work, zones.n_mapped, zone_s) for zone_s in mapped)
    report_s += _each(work, zones.n_films, of["film"])
    return start | made | search | evaluate | {"map": map_s, "report": report_s}


def _each(work: JobWork, n: int, seconds: float) -> float:
    """So many tasks of one CPU that take the same."""
    return makespan([seconds] * n, work.cluster.at_once)


def _search_seconds(work: JobWork, costs: UnitCosts) -> float:
    seconds = loading_seconds(work) + sum(_out_of_fold_seconds(work, costs, model) for model in work.placements)
    bounded_s, was_fold = 0.0, False
    for fits in work.groups:
        is_fold, placement = fits[0].role == "fold", work.placements[fits[0].model]
        is_built = family(fits[0].model).combine is not None
        # A batch that follows another one is one more run of Tune, as the refits are, and what is built afterwards.
        start_s = costs.fixed_s("search" if is_fold and not was_fold and not is_built else "refit")
        start_s += costs.worker_start_s
        durations = [fit_seconds(fit, work, costs) + UNIT_S for fit in fits]
        group_s = start_s + makespan(durations, placement.max_concurrent)
        is_bounded = is_fold and not is_built
        bounded_s, seconds = (bounded_s + group_s, seconds) if is_bounded else (bounded_s, seconds + group_s)
        was_fold = is_fold
    return seconds + min(bounded_s, work.job.search.time_budget_s or math.inf)


def _out_of_fold_seconds(work: JobWork, costs: UnitCosts, model: str) -> float:
    """Training zones are predicted as they are mapped; of points those that are drawn. What members said is combined at once."""
    zones, most = work.zones, work.job.search.oof_rows * work.zones.n_classes
    n = zones.n_zones - zones.n_test
    if not most or not n or family(model).combine is not None:
        return 0.0
    pixels = min(zones.train_rows / n, most) if costs.zone is None else zones.zone_pixels
    return _each(work, n, predict_seconds(work, costs, model, pixels))


def predict_seconds(work: JobWork, costs: UnitCosts, model: str, pixels: float) -> float:
    """Predicting so many pixels with a family's refitted model."""
    refit = work.refit(model)
    return pixels * costs.dearest(refit.kind, lambda c: c.pixel_s.at(refit.steps))


def loading_seconds(work: JobWork) -> float:
    """Reading the training data of all models into the object store, and bringing each node what the others read."""
    cluster, size = work.cluster, training_bytes(work)
    others = 1 - 1 / len(cluster.nodes)
    return size / (READ_BYTES_S * cluster.at_once) + size * others / cluster.network_bytes_s


def fit_seconds(fit: Fit, work: JobWork, costs: UnitCosts) -> float:
    """One fit, beside as many others as run at the same time; steps that validation may stop are at most so many."""
    found, n_workers = family(fit.model), work.placements[fit.model].num_workers
    shares = {"fold": work.job.dataset.n_folds, "region_out": work.n_left_out, "refit": math.inf}
    scored, n = 1 / shares[fit.role], work.zones.training(work.sample(fit.model))
    n_times = 1 if fit.role == "region_out" and found.most_steps else fit.steps
    terms = FitTerms.of(fit.steps, n * (1 - scored), n * scored, n_times)
    own_s = costs.dearest(fit.kind, lambda c: c.seconds.total(terms))
    return own_s / max(n_workers, 1) + (WORKER_GROUP_S if n_workers else 0.0)


def _disk(work: JobWork, costs: UnitCosts) -> dict[str, float]:
    zones, fits = work.zones, work.fits
    models = {model: _model_bytes(work.refit(model), costs) for model in work.placements}
    own, n_models = sum(models.values()), len(models)
    n_folds = sum(fit.role == "fold" for fit in fits)
    disk = {
        "search": sum(_model_bytes(fit, costs) + FIT_FILES_BYTES for fit in fits) + own,
        "tracking": TRACKING_BYTES + n_folds * TRACKED_FOLD_BYTES + own + n_models * TRACKED_MODEL_BYTES,
        "report": REPORT_BYTES,
    }
    if costs.zone is None:
        return disk
    of = costs.zone.bytes
    disk["report"] += n_models * min(zones.n_mapped, MOST_PREVIEWS) * PREVIEW_BYTES
    disk["report"] += zones.n_films * of["report"] * (1 + FILMS_SHOWN)
    disk["maps"] = zones.n_mapped * sum(costs.dearest((model, ""), lambda c: c.map_bytes) for model in models)
    return {part: zones.n_zones * of[part] for part in ("composites", "labels", "dataset")} | disk


def _model_bytes(fit: Fit, costs: UnitCosts) -> float:
    if family(fit.model).combine is not None and fit.role != "refit":
        return 0.0  # the members' folders have their models
    return costs.dearest(fit.kind, lambda c: c.model_bytes.at(fit.steps))


def _memory(work: JobWork, costs: UnitCosts) -> dict[str, float]:
    """Of the object store of a node that trains, and the most of one process of each kind."""
    amounts = {OBJECT_STORE: LOADING_COPIES * training_bytes(work)}
    if costs.zone is not None:
        amounts[f"{WORKER}zones"] = costs.zone.peak_bytes
    return amounts | {WORKER + family(model).label: worker_bytes(work, costs, model) for model in work.placements}


def worker_bytes(work: JobWork, costs: UnitCosts, model: str) -> float:
    """Most memory of a worker: a refit holds all training samples, a fold the same number with its validation samples."""
    placement, n = work.placements[model], work.zones.training(work.sample(model))
    n_workers = max(placement.num_workers, 1)

    def taken(costs: FitCosts, known: float | None) -> float:
        """By libraries and the fit, of which the family knows more than was measured, or does not."""
        base = costs.worker_bytes.base
        return costs.worker_bytes.at(min(n, costs.batch) / n_workers) if known is None else base + known

    sizes = []
    for kind, settings in kinds(work.job, model).items():
        size = FitSize(n, work.zones.n_classes, settings.n_features(work.job.cube_spec), placement.memory_bytes)
        sizes.append(costs.dearest(kind, partial(taken, known=settings.fit_bytes(size))))
    return max(sizes)


def training_bytes(work: JobWork) -> float:
    """Training data of all models, which those that read the same samples share."""
    samples: set[Sample] = {work.sample(model) for model in work.placements}
    zones, tile_size = work.zones, work.job.dataset.tile_size
    return sum(data_bytes(each, zones.train_rows, zones.train_tiles, tile_size, work.job.cube_spec) for each in samples)
