"""Unit costs of a job, measured on the cluster at hand: a few zones or the points, then small fits."""

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import pyarrow.compute as pc
import ray

from cropray.cluster.node_memory import silence
from cropray.cluster.placement import live_nodes
from cropray.cluster.session import ray_session
from cropray.commands.plan.measure_fits import FitSample, measure_fits
from cropray.commands.plan.measure_zones import MOST_ZONES, measure_zones, sample_order, zone_costs
from cropray.commands.plan.record import sizes
from cropray.commands.plan.work import built_dataset, count_work
from cropray.config import JobConfig
from cropray.core.progress import Progress
from cropray.datasets.other_split import points_with_test
from cropray.datasets.points import points_entries, points_legend, read_points, write_points
from cropray.datasets.regions import require_two
from cropray.imagery.acquisition import Traffic
from cropray.io.storage import scratch_folder
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.parcels.rpg import is_fetched
from cropray.planning.costs import UnitCosts, ZoneCosts
from cropray.planning.estimate import with_built
from cropray.planning.work import Cluster, JobWork
from cropray.stages.inputs import acquisition_of, legend_of
from cropray.stages.labels import indexed
from cropray.training.family import family

_MOST_WARM: Final = 8  # workers that are started to be measured
_HOLD_S: Final = 0.5


def measure(
    job: JobConfig, zones: Sequence[Zone], progress: Progress, check: Callable[[Cluster], object]
) -> tuple[JobWork, UnitCosts, list[str]]:
    """Measure a job's unit costs on the cluster at hand, which `check` may refuse before.

    Returns:
        (work, costs, notes).
    """
    what = "points" if job.points is not None else f"{len(zones)} zones"
    progress.stage("plan", f"{what}: unit costs are measured here: half a minute, minutes for full-size zones")
    started = time.monotonic()
    acquisition = None if job.imagery is None else acquisition_of(job, zones)
    if acquisition is not None:
        acquisition.check()
    find_s = time.monotonic() - started
    started = time.monotonic()
    with (
        scratch_folder(job.workspace, "plan") as folder,
        ray_session(job.cluster, needs_dashboard=job.uses_worker_groups),
    ):
        ray_s = time.monotonic() - started
        cluster = Cluster(live_nodes())
        check(cluster)
        n_gpus = sum(node.gpus for node in cluster.nodes)
        seen = f"Ray started in {ray_s:.1f} s: {cluster.n_cpus:g} CPUs, {n_gpus:g} GPUs"
        progress.note("; ".join(filter(None, [seen, silence()])))
        worker_s = _start_workers(job, cluster, progress)
        scratch, zone, traffic, notes = Workspace(folder), None, None, list[str]()
        if job.imagery is None or acquisition is None:
            sample = sample_points(job, scratch)
        else:
            n_at_once = min(cluster.at_once, _MOST_WARM)
            sample, zone, notes = sample_zones(job, zones, n_at_once, scratch, progress)
            if (traffic := job.imagery.traffic(acquisition, progress.note)) is not None:
                zone = replace(zone, seconds={**zone.seconds, "acquire": zone.seconds["acquire"] + traffic.zone_s})
            notes += _limits(job, traffic)
        work = JobWork(job, sample.work, cluster, traffic)
        fitted, built = job.search.in_turn()
        fits = measure_fits(sample, {model: work.placements[model] for model in fitted}, cluster.node_cpus)
        progress.note(f"{' and '.join(fitted)}: measured, {len(sample.classes)} classes")
    notes += [f"{model}: not measured, as it predicts with {' and '.join(work.members(model))}" for model in built]
    return work, with_built(work, UnitCosts(ray_s, worker_s, find_s, zone, fits)), notes


def _start_workers(job: JobConfig, cluster: Cluster, progress: Progress) -> float:
    used = {symbol.partition(":")[0] for model in job.search.models for symbol in family(model).code().symbols}
    started = time.monotonic()
    ray.get([_import_all.remote(sorted(used)) for _ in range(min(cluster.at_once, _MOST_WARM))])
    seconds = time.monotonic() - started - _HOLD_S
    progress.note(f"a worker is ready in {seconds:.1f} s")
    return seconds


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]  # ray is untyped
def _import_all(modules: Sequence[str]) -> None:
    importlib.import_module("cropray.commands.plan.measure_fits")  # which uses every library that no family brings
    for module in modules:
        importlib.import_module(module)
    time.sleep(_HOLD_S)  # so that one worker does not answer for another


def sample_points(job: JobConfig, scratch: Workspace) -> FitSample:
    """The labelled points, written as their dataset will be.

    Raises:
        InputError: they cannot be used.
        ConfigError: they have no region to leave out.
    """
    assert job.points is not None
    cube = job.cube_spec
    table = points_with_test(read_points(job.points.path, cube, job.points.values), job.test_zones)
    legend = points_legend(table)
    write_points(table, scratch, legend, cube)
    trained = dict.fromkeys(table.filter(pc.equal(table["split"], "train"))["zone_id"].to_pylist(), 0)
    entries = points_entries(table, scratch, trained, {}, cube)
    of_train = [entry for entry in entries if entry.zone_id in trained]
    if job.search.leave_region_out:
        require_two(entry.region for entry in of_train)
    work = count_work(job, (), entries, len(legend.classes))
    return FitSample(job, scratch, (), of_train, legend.classes, legend, work)


def sample_zones(
    job: JobConfig, all_zones: Sequence[Zone], n_at_once: int, scratch: Workspace, progress: Progress
) -> tuple[FitSample, ZoneCosts, list[str]]:
    """(some zones, what one of them costs, notes)."""
    assert job.parcels is not None
    order = sample_order(all_zones)[:MOST_ZONES]
    progress.restart()
    with indexed(job.parcels, order if is_fetched(job.parcels) else (), scratch.parcel_extract, progress):
        samples = measure_zones(job, order, scratch, n_at_once, progress)
    zones, entries, legend = [each.zone for each in samples], [each.entry for each in samples], legend_of(job.parcels)
    names = ", ".join(zone.zone_id for zone in zones[:4]) + (" …" if zones[4:] else "")
    notes = [f"zones: scaled up from {len(zones)} made for real ({names})"]
    if manifest := built_dataset(job, all_zones):
        classes = manifest.classes
        work = count_work(job, all_zones, manifest.zones, len(classes))
    else:
        seen = {name for entry in entries for name in entry.counts}
        classes = tuple(crop for crop in legend.classes if crop.name in seen)
        work = count_work(job, all_zones, entries, len(classes), zones)
        rows = f"{work.train_rows + work.test_rows:,.0f} labelled pixels of {len(classes)} classes"
        notes.append(f"{rows} are expected from these")
    costs = zone_costs(samples, sizes(scratch), work.zone_pixels)
    return FitSample(job, scratch, zones, entries, classes, legend, work), costs, notes


def _limits(job: JobConfig, traffic: Traffic | None) -> Iterator[str]:
    """What is only bounded or assumed, in words."""
    if job.search.racing:
        yield "search: at most; search.racing may drop trials before their last fold, here none is"
    for found in map(family, job.search.models):
        if found.most_steps:
            yield f"{found.label}: at most; validation may stop a fit before its last {found.step_name}"
        if found.predicts_on_gpu and job.map.device == "cuda":
            yield f"scores and maps of the {found.label}: as on CPUs, at most; a GPU (map.device) is faster"
    if job.imagery is not None and not job.imagery.is_at_hand:
        yield "composites of zones that are not here yet: size and time from drawn ones"
    if traffic is not None and traffic.note:
        yield traffic.note
