"""Unit costs of a job, measured on the cluster at hand: a few zones or the points, then small fits."""

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pyarrow.compute as pc
import ray

from cropray.cluster.node_memory import silence
from cropray.cluster.placement import live_nodes
from cropray.cluster.session import ray_session
from cropray.commands.plan.measure_fits import FitSample, measure_fits
from cropray.commands.plan.measure_zones import MOST_ZONES, ZoneSample, measure_zones, sample_order, zone_costs
from cropray.commands.plan.record import sizes
from cropray.commands.plan.work import built_dataset, count_work, earth_engine
from cropray.config import JobConfig
from cropray.core.progress import Progress
from cropray.datasets.points import points_entries, points_legend, read_points, write_points
from cropray.imagery.sources.stac.settings import StacSettings
from cropray.io.storage import scratch_folder
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.parcels.rpg import is_fetched
from cropray.planning.costs import UnitCosts, ZoneCosts
from cropray.planning.traffic import Traffic, quota_note, stac_traffic
from cropray.planning.work import Cluster, JobWork, ZoneWork
from cropray.stages.inputs import Scenes, find_scenes, job_legend
from cropray.stages.labels import indexed
from cropray.training.family import family

_MOST_WARM: Final = 8  # workers that are started to be measured
_HOLD_S: Final = 0.5


def measure(
    job: JobConfig, zones: Sequence[Zone], progress: Progress, check: Callable[[Cluster], None]
) -> tuple[JobWork, UnitCosts, list[str]]:
    """Measure a job's unit costs on the cluster at hand.

    Args:
        job: the job.
        zones: its zones; none where it reads points.
        progress: told of each step.
        check: called with the cluster before anything is measured; refuses it by raising.

    Returns:
        (work, costs, notes).
    """
    what = "points" if job.points is not None else f"{len(zones)} zones"
    progress.stage("plan", f"{what}: unit costs are measured here: half a minute, minutes for full-size zones")
    started = time.monotonic()
    scenes = find_scenes(job, zones)
    find_s = time.monotonic() - started
    started = time.monotonic()
    with (
        scratch_folder(job.workspace, "plan") as folder,
        ray_session(job.cluster, needs_dashboard=job.uses_worker_groups),
    ):
        ray_s = time.monotonic() - started
        cluster = Cluster(live_nodes())
        check(cluster)
        seen = f"Ray started in {ray_s:.1f} s: {cluster.n_cpus:g} CPUs, {cluster.n_gpus:g} GPUs"
        progress.note("; ".join(filter(None, [seen, silence()])))
        worker_s = _start_workers(job, cluster, progress)
        measuring = _Measuring(job, zones, scenes, cluster, Workspace(folder), progress)
        sample, zone, traffic = measuring.points() if job.points is not None else measuring.images()
        work = JobWork(job, sample.work, cluster, traffic)
        fits = measure_fits(sample, work.placements, cluster.node_cpus)
        progress.note(f"{' and '.join(work.placements)}: measured, {len(sample.classes)} classes")
    return work, UnitCosts(ray_s, worker_s, find_s, zone, fits), measuring.notes


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


@dataclass
class _Measuring:
    """What fits are measured on: a few zones, which are made for real, or the points."""

    job: JobConfig
    all_zones: Sequence[Zone]
    scenes: Scenes | None
    cluster: Cluster
    scratch: Workspace
    progress: Progress
    notes: list[str] = field(default_factory=list)

    def points(self) -> tuple[FitSample, None, None]:
        """The labelled points."""
        assert self.job.points is not None
        cube = self.job.cube_spec
        table = read_points(self.job.points.path, cube, self.job.points.values)
        legend = points_legend(table)
        write_points(table, self.scratch, legend, cube)
        trained = dict.fromkeys(table.filter(pc.equal(table["split"], "train"))["zone_id"].to_pylist(), 0)
        entries = points_entries(table, self.scratch, trained, {}, cube)
        work = count_work(self.job, (), entries, len(legend.classes))
        of_train = tuple(entry for entry in entries if entry.split == "train")
        return FitSample(self.job, self.scratch, (), of_train, legend.classes, legend, work), None, None

    def images(self) -> tuple[FitSample, ZoneCosts, Traffic | None]:
        """The zones, what one of them costs, and what their source is asked for."""
        job, samples = self.job, self._make_zones()
        zones, entries = tuple(each.zone for each in samples), tuple(each.entry for each in samples)
        manifest, legend = built_dataset(job, self.all_zones), job_legend(job)
        if manifest is None:
            seen = {name for entry in entries for name in entry.counts}
            classes = tuple(crop for crop in legend.classes if crop.name in seen)
            work = count_work(job, self.all_zones, entries, len(classes), zones)
        else:
            classes = manifest.classes
            work = count_work(job, self.all_zones, manifest.zones, len(classes))
        costs = zone_costs(samples, sizes(self.scratch), work.zone_pixels)
        traffic = earth_engine(job, self.all_zones)
        if isinstance(job.imagery, StacSettings):
            costs, traffic = self._stac(job.imagery, costs)
        self._note(samples, work, traffic, is_sampled=manifest is None)
        return FitSample(job, self.scratch, zones, entries, classes, legend, work), costs, traffic

    def _make_zones(self) -> list[ZoneSample]:
        order = sample_order(self.all_zones)
        n_at_once = min(self.cluster.at_once, _MOST_WARM)

        def tell(done: int, zone_id: str) -> None:
            self.progress.step(done, done, zone_id, "sampled zones")

        self.progress.restart()
        assert self.job.parcels is not None
        near = order[:MOST_ZONES] if is_fetched(self.job.parcels) else ()
        with indexed(self.job.parcels, near, self.scratch.parcel_extract, self.progress):
            return measure_zones(self.job, order, self.scratch, n_at_once, tell)

    def _stac(self, settings: StacSettings, costs: ZoneCosts) -> tuple[ZoneCosts, Traffic]:
        """One item is read for real; a zone takes as long for each of its items."""
        assert self.scenes is not None
        zone = self.all_zones[0]
        started = time.monotonic()
        settings.scenes(self.job.cube_spec.bands).read(self.scenes[zone.zone_id][0], zone.grid)
        item_s = time.monotonic() - started
        self.progress.note(f"one item read in {item_s:.1f} s")
        n_items = [len(self.scenes[zone.zone_id]) for zone in self.all_zones]
        traffic = stac_traffic([zone.grid for zone in self.all_zones], n_items, self.job.cube_spec)
        acquire_s = costs.seconds["acquire"] + item_s * sum(n_items) / len(n_items)
        return replace(costs, seconds={**costs.seconds, "acquire": acquire_s}), traffic

    def _note(
        self, samples: Sequence[ZoneSample], work: ZoneWork, traffic: Traffic | None, *, is_sampled: bool
    ) -> None:
        job, names = self.job, ", ".join(sample.zone.zone_id for sample in samples[:4])
        self.notes.append(f"zones: scaled up from {len(samples)} made for real ({names}{' …' if samples[4:] else ''})")
        if is_sampled:
            rows = work.train_rows + work.test_rows
            self.notes.append(f"{rows:,.0f} labelled pixels of {work.n_classes} classes are expected from these")
        for found in map(family, job.search.models):
            if found.most_steps:
                self.notes.append(
                    f"{found.label}: at most; validation may stop a fit before its last {found.step_name}"
                )
            if found.predicts_on_gpu and job.map.device == "cuda":
                self.notes.append(
                    f"scores and maps of the {found.label}: as on CPUs, at most; a GPU (map.device) is faster"
                )
        if job.imagery is not None and not job.imagery.is_at_hand:
            self.notes.append("composites of zones that are not here yet: size and time from drawn ones")
        if traffic is not None and traffic.eecu_hours is not None:
            self.notes.append(quota_note(traffic.eecu_hours))
