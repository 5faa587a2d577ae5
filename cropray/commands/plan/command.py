"""`plan`: what a job will take, from unit costs that are measured here and now; after a run, beside what it took."""

import datetime as dt
import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import ray

from cropray.cluster.node_memory import silence
from cropray.cluster.session import address_of, ray_session
from cropray.commands.plan.elsewhere import measurable, need_of, print_elsewhere, require_placed
from cropray.commands.plan.measure_fits import FitSample, measure_fits
from cropray.commands.plan.measure_zones import MOST_ZONES, ZoneSample, measure_zones, sample_order, weigh, zone_costs
from cropray.commands.plan.work import (
    built_dataset,
    classes_of,
    count_points,
    count_zones,
    earth_engine,
    local_cluster,
    n_pixels,
    over_budget,
    place,
    room,
    running_cluster,
)
from cropray.config import JobConfig
from cropray.core.fingerprint import fingerprint
from cropray.core.progress import Progress
from cropray.datasets.points import points_entries, points_legend, read_points, write_points
from cropray.datasets.regions import require_two
from cropray.datasets.storage import read_pixels
from cropray.imagery.sources.earth_engine.ledger import read_runs
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings
from cropray.imagery.sources.stac.settings import StacSettings
from cropray.io.job_file import load_settings
from cropray.io.storage import Location, free_bytes, scratch_folder, write_json
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.parcels.rpg import is_fetched
from cropray.planning.costs import FitCosts, Kind, UnitCosts, ZoneCosts
from cropray.planning.estimate import JobWork, estimate, search_work
from cropray.planning.limits import least_need, require_room
from cropray.planning.table import Line, compare, lines_of, quota_note, table
from cropray.planning.traffic import Traffic, stac_traffic
from cropray.planning.work import Cluster, ZoneWork, at_once
from cropray.stages.inputs import Scenes, find_scenes, job_legend, job_zones, zone_fingerprint
from cropray.stages.labels import indexed
from cropray.stages.pipeline import log_to_file
from cropray.stages.timings import RAY_START, read_timings, seconds_of
from cropray.training.family import Sample, family

_RUN: Final = (RAY_START, "zones", "acquire", "labels", "dataset", "search", "evaluate", "map", "report")
_MADE_BY: Final = {  # part of the disk → the stage that fills it
    "composites": "acquire", "labels": "labels", "dataset": "dataset", "search": "search", "tracking": "evaluate",
    "maps": "map", "report": "report",
}  # fmt: skip
_MOST_WARM: Final = 8  # workers that are started to be measured
_HOLD_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, as it is kept."""

    made: str
    """Time, UTC."""
    job: str
    """Fingerprint of what was planned."""
    lines: tuple[Line, ...]
    units: Mapping[str, tuple[str, int]]
    """Stage → what it makes, and how many."""
    notes: tuple[str, ...]


def run_plan(config: str | Location, overrides: Sequence[str]) -> None:
    """Print what a job will take, and keep it; after a run, print what was promised beside what it took.

    Raises:
        ConfigError: the job cannot run on this machine or cluster, or has no region to leave out.
        InputError: scenes, parcels or points cannot be used.
    """
    job = load_settings(JobConfig, config, overrides)
    workspace, progress = job.artefacts, Progress()
    workspace.prepare()
    zones = () if job.points is not None else job_zones(job)
    if job.search.leave_region_out and job.points is None:
        require_two(zone.region for zone in zones if zone.split == "train")
    key = fingerprint(
        [job.model_dump(mode="json", exclude={"overwrite", "plan"}), [zone_fingerprint(zone) for zone in zones]]
    )
    fitted, built = job.search.in_turn()
    if built:
        job = job.model_copy(update={"search": job.search.model_copy(update={"models": tuple(fitted)})})
        progress.note(
            f"not counted: {', '.join(built)}, whose scores and maps take as long as those of all its members"
        )
    if job.plan is not None:
        with log_to_file(workspace.log("plan")):
            _tell_elsewhere(job, zones, progress)
        return
    planned = _read(workspace, key)
    if planned is None:
        with log_to_file(workspace.log("plan")):
            planned = _make(job, zones, key, progress)
        write_json(workspace.plan, asdict(planned))
    else:
        progress.stage("plan", f"of {planned.made}, beside what has run since")
    print(f"\n{table(compare(planned.lines, actual(job, planned)))}\n", flush=True)
    for note in planned.notes:
        progress.note(note)


def _read(workspace: Workspace, key: str) -> Planned | None:
    """The plan of this job that something has run since; None where it must be made (again)."""
    try:
        raw = json.loads(workspace.plan.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    ended = [timing["ended"] for stage in _RUN for timing in read_timings(workspace, stage)]
    if raw["job"] != key or not any(when >= raw["made"] for when in ended):
        return None
    units = {stage: (noun, int(n)) for stage, (noun, n) in raw["units"].items()}
    return Planned(raw["made"], key, tuple(Line(**line) for line in raw["lines"]), units, tuple(raw["notes"]))


def _make(job: JobConfig, zones: Sequence[Zone], key: str, progress: Progress) -> Planned:
    """Refuse what cannot work, then measure and sum up."""
    if address_of(job.cluster) is None and not ray.is_initialized():
        _check(job, zones, local_cluster(job))
    work, costs, notes = measure(job, zones, progress, lambda cluster: _check(job, zones, cluster))
    cluster, result = work.cluster, estimate(work, costs)
    disk_bytes = max(sum(result.disk_bytes.values()) - weigh([job.workspace]), 0.0)
    need = replace(need_of(result, work), disk_bytes=disk_bytes)
    over = over_budget(job, work, result.worker_bytes)
    require_room(need, room(job, cluster, free_bytes(job.workspace)), over)
    made = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return Planned(made, key, lines_of(result), _units(job, work), tuple(notes))


def _tell_elsewhere(job: JobConfig, zones: Sequence[Zone], progress: Progress) -> None:
    """Measure here, and print what the job takes on the clusters that it states; nothing is kept."""
    require_placed(job)
    here = measurable(job)
    work, costs, notes = measure(here, zones, progress, lambda _: None)
    print_elsewhere(job, work, costs, progress)
    for note in notes:
        progress.note(note)


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
        cluster = running_cluster()
        check(cluster)
        seen = f"Ray started in {ray_s:.1f} s: {cluster.n_cpus:g} CPUs, {cluster.n_gpus:g} GPUs"
        progress.note("; ".join(filter(None, [seen, silence()])))
        measuring = _Measuring(job, zones, scenes, cluster, Workspace(folder), progress)
        work, costs, notes = measuring.points() if job.points is not None else measuring.zones()
    return work, replace(costs, ray_start_s=ray_s, find_s=find_s), notes


def _check(job: JobConfig, zones: Sequence[Zone], cluster: Cluster) -> None:
    """Refuse a job that cannot run, by the least that it needs.

    Raises:
        ConfigError: and what to change.
    """
    place(job, cluster)
    train = [zone for zone in zones if zone.split == "train"]
    least = least_need(n_pixels(zones), n_pixels(train), job.cube_spec, has_images=job.points is None)
    least = replace(least, disk_bytes=max(least.disk_bytes - weigh([job.workspace]), 0.0))
    require_room(least, room(job, cluster, free_bytes(job.workspace)))


@dataclass
class _Measuring:
    """Measuring a job's unit costs on the connected Ray."""

    job: JobConfig
    all_zones: Sequence[Zone]
    scenes: Scenes | None
    cluster: Cluster
    scratch: Workspace
    progress: Progress

    def __post_init__(self) -> None:
        self.placements = place(self.job, self.cluster)
        self.worker_start_s = self._start_workers()

    def zones(self) -> tuple[JobWork, UnitCosts, list[str]]:
        """(work, costs, notes) of a job with images."""
        samples = self._sample()
        manifest = built_dataset(self.job, self.all_zones)
        zones = count_zones(self.job, self.all_zones, samples, manifest)
        costs = zone_costs(samples, zones.n_pixels / zones.n_zones)
        traffic = earth_engine(self.job, self.all_zones)
        if isinstance(self.job.imagery, StacSettings):
            costs, traffic = self._stac(self.job.imagery, costs)
        classes = classes_of(self.job, samples, manifest)
        sampled = tuple(sample.zone for sample in samples)
        sample = FitSample(self.job, self.scratch, sampled, classes, job_legend(self.job), self._of_fold(zones))
        unit_costs = UnitCosts(0.0, self.worker_start_s, 0.0, costs, self._fit(sample))
        return self._work(zones, traffic), unit_costs, _notes(self.job, zones, samples, traffic)

    def points(self) -> tuple[JobWork, UnitCosts, list[str]]:
        """(work, costs, notes) of a job that reads points."""
        assert self.job.points is not None
        cube = self.job.cube_spec
        table = read_points(self.job.points.path, cube, self.job.points.values)
        legend = points_legend(table)
        write_points(table, self.scratch, legend, cube)
        trained = dict.fromkeys(table.filter(pc.equal(table["split"], "train"))["zone_id"].to_pylist(), 0)
        pixels = pa.concat_tables([read_pixels(self.scratch, zone_id, cube) for zone_id in trained])
        entries = points_entries(table, self.scratch, trained, {}, cube)
        work = count_points(entries, len(legend.classes))
        sums = entries[0].sums
        sample = FitSample(self.job, self.scratch, (), legend.classes, legend, self._of_fold(work), pixels, sums)
        return self._work(work, None), UnitCosts(0.0, self.worker_start_s, 0.0, None, self._fit(sample)), []

    def _start_workers(self) -> float:
        used = {symbol.partition(":")[0] for model in self.placements for symbol in family(model).code().symbols}
        started = time.monotonic()
        ray.get([_import_all.remote(sorted(used)) for _ in range(min(at_once(self.cluster), _MOST_WARM))])
        seconds = time.monotonic() - started - _HOLD_S
        self.progress.note(f"a worker is ready in {seconds:.1f} s")
        return seconds

    def _sample(self) -> list[ZoneSample]:
        order = sample_order(self.all_zones)
        n_at_once = min(at_once(self.cluster), _MOST_WARM)

        def tell(done: int, zone_id: str) -> None:
            self.progress.step(done, done, zone_id, "sampled zones")

        self.progress.restart()
        assert self.job.parcels is not None
        near = order[:MOST_ZONES] if is_fetched(self.job.parcels) else ()
        with indexed(self.job.parcels, near, self.scratch.parcel_extract, self.progress):
            return measure_zones(self.job, order, self.scratch, n_at_once, tell)

    def _fit(self, sample: FitSample) -> dict[Kind, FitCosts]:
        fits = measure_fits(sample, self.placements, self.cluster.n_cpus / self.cluster.n_nodes)
        self.progress.note(f"{' and '.join(self.placements)}: measured, {len(sample.classes)} classes")
        return fits

    def _of_fold(self, zones: ZoneWork) -> dict[Sample, float]:
        """Training samples of a fold."""
        samples: tuple[Sample, ...] = ("pixel", "tile")
        share = (self.job.dataset.n_folds - 1) / self.job.dataset.n_folds
        return {sample: zones.training(sample) * share for sample in samples}

    def _work(self, zones: ZoneWork, traffic: Traffic | None) -> JobWork:
        search = search_work(self.job, self.placements, self.job.dataset.n_folds, zones.n_regions)
        return JobWork(self.job, zones, search, self.placements, self.cluster, traffic)

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
        return replace(costs, acquire_s=costs.acquire_s + item_s * sum(n_items) / len(n_items)), traffic


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]  # ray is untyped
def _import_all(modules: Sequence[str]) -> None:
    importlib.import_module("cropray.commands.plan.measure_fits")  # which uses every library that no family brings
    for module in modules:
        importlib.import_module(module)
    time.sleep(_HOLD_S)  # so that one worker does not answer for another


def _notes(job: JobConfig, zones: ZoneWork, samples: Sequence[ZoneSample], traffic: Traffic | None) -> list[str]:
    names = ", ".join(sample.zone.zone_id for sample in samples[:4]) + (" …" if len(samples) > 4 else "")
    notes = [f"zones: scaled up from {len(samples)} made for real ({names})"]
    if zones.is_sampled:
        notes.append(f"{zones.rows:,.0f} labelled pixels of {zones.n_classes} classes are expected from these")
    for found in map(family, job.search.models):
        if found.most_steps:
            notes.append(f"{found.label}: at most; validation may stop a fit before its last {found.step_name}")
        if found.predicts_on_gpu and job.map.device == "cuda":
            notes.append(f"scores and maps of the {found.label}: as on CPUs, at most; a GPU (map.device) is faster")
    if job.imagery is not None and not job.imagery.is_at_hand:
        notes.append("composites of zones that are not here yet: size and time from drawn ones")
    if traffic is not None and traffic.eecu_hours is not None:
        notes.append(quota_note(traffic.eecu_hours))
    return notes


def _units(job: JobConfig, work: JobWork) -> dict[str, tuple[str, int]]:
    """Stage → what its progress counts, and how many."""
    zones, n_models = work.zones, len(work.placements)
    units = {RAY_START: ("ray", 1), "search": ("units", sum(map(len, work.search.groups)))}
    units |= {"evaluate": ("zones", zones.n_test * n_models), "report": ("zones", zones.n_zones)}
    if job.points is not None:
        return units
    steps = (f"{job.cube_spec.noun}s", zones.n_zones * job.cube_spec.n_steps)
    acquire = steps if isinstance(job.imagery, EarthEngineSettings) else ("zones", zones.n_zones)
    made = {"labels": zones.n_zones, "dataset": zones.n_zones, "map": zones.n_mapped * n_models}
    return units | {"acquire": acquire} | {stage: ("zones", n) for stage, n in made.items()}


def actual(job: JobConfig, planned: Planned) -> dict[tuple[str, str], float]:
    """(group, name) → what was really taken, for stages that made all of their units."""
    workspace = job.artefacts
    seconds = {stage: seconds_of(workspace, stage, *planned.units[stage]) for stage in planned.units}
    taken = {("time", stage): value for stage, value in seconds.items() if value is not None}
    sizes = {part: weigh(paths) for part, paths in disk_parts(workspace).items()}
    taken |= {("disk", part): size for part, size in sizes.items() if seconds.get(_MADE_BY[part]) is not None}
    runs = [run for run in read_runs(workspace) if run.get("source") == "earth_engine"]
    if seconds.get("acquire") is not None and runs:
        taken["source", "requests"] = sum(run["requests"] for run in runs)
        taken["source", "download"] = sum(run["bytes"] for run in runs)
    return taken


def disk_parts(workspace: Workspace) -> dict[str, list[Location]]:
    """Part of the disk → files and folders."""
    is_on_disk = isinstance(workspace.root, Path)
    composites, labels = workspace.composite("-").parent, workspace.labels("-").parent
    return {
        "composites": [composites],
        "labels": [labels, workspace.parcels("-").parent],
        "dataset": [workspace.pixels("-").parent, workspace.tiles("-").parent, workspace.manifest, workspace.folds],
        "search": [workspace.unit("-", "-").parent.parent, workspace.model("-").parent],
        "tracking": [workspace.mlflow_database, workspace.mlflow_artifacts] if is_on_disk else [],
        "maps": [workspace.map("-", "-").parent.parent],
        "report": [workspace.report, workspace.pictures],
    }
