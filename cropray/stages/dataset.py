"""`dataset`: composites and labels to pixel tables and tile shards, one zone a partition."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, TypeVar

import ray
import ray.data

from cropray.config import JobConfig
from cropray.core.closure import code_digest
from cropray.datasets.build import ZoneJob, build_zone, count_zone
from cropray.datasets.doubts import alike_doubts, parcel_doubts, some
from cropray.datasets.manifest import (
    Manifest,
    ZoneEntry,
    classes_only_in_test,
    load_entry,
    load_manifest,
    save_entry,
    save_manifest,
)
from cropray.datasets.point_separation import require_folds, separate_points, separation_doubts
from cropray.datasets.points import (
    points_doubts,
    points_entries,
    points_folds,
    points_legend,
    read_points,
    write_points,
)
from cropray.datasets.regions import (
    across_regions,
    join,
    number_regions,
    require_two,
    separate_point_regions,
    separate_regions,
)
from cropray.datasets.separation import Trim, separate
from cropray.datasets.storage import PIXEL_FILE
from cropray.errors import ConfigError, StageFailedError
from cropray.folds import make_folds
from cropray.legend import Legend, bundled_legend
from cropray.progress import Progress
from cropray.raw_files import source_fingerprint
from cropray.settings import fingerprint
from cropray.stages.cluster import ray_session, require_cpus
from cropray.stages.inputs import (
    artefact_fingerprint,
    job_zones,
    require_season_of_composites,
    require_year_of_labels,
    zone_fingerprint,
)
from cropray.stages.zone_jobs import LOOK_AHEAD, ZoneOutcome, ZoneTask, attempt_and_mark, current_aside, in_threads
from cropray.storage import remove, whole_file
from cropray.workspace import Workspace
from cropray.zones import Zone

ResultT = TypeVar("ResultT")
_OF_POINTS: Final = (read_points, points_folds, separate_points, separate_point_regions, write_points, points_entries)
ZONES: Final = "dataset-zones"  # stamps of zones, apart from the one of the whole dataset


@dataclass(frozen=True, slots=True)
class _Told:
    """What a reader of the scores must know beside what the entries say."""

    doubts: Sequence[str]
    region_conflict: str


def run(job: JobConfig, progress: Progress) -> None:
    """Write pixel tables, tile shards, fold table and manifest.

    Raises:
        InputError: composites or labels are of another season or place.
        LeakageError: zones or parcels cross a border of splits, or of regions where `search.leave_region_out` is set, and
            `dataset.on_overlap` is `refuse`.
        MissingArtefactError: composites or labels are missing.
        StageFailedError: some zones failed; no manifest is written.
    """
    if job.points is not None:
        _run_points(job, progress)
        return
    zones, workspace = job_zones(job), job.artefacts
    progress.stage("dataset", f"{len(zones)} zones, tiles of {job.dataset.tile_size} px")
    _check_splits(zones)
    require_season_of_composites(zones, job)
    require_year_of_labels(zones, job)
    if job.search.leave_region_out:
        require_two(zone.region for zone in zones if zone.split == "train")
    common = [
        job.dataset.tile_size,
        bundled_legend().hash(),
        code_digest(build_zone, make_folds, separate, separate_regions),
        *job.cube_spec.in_keys(),
    ]
    made_from = _each(partial(_fingerprint, common, workspace), zones)
    inputs = fingerprint([made_from, *_rules(job)])
    if not job.overwrite and workspace.is_current("dataset", "all", inputs, [workspace.manifest]):
        progress.note("dataset is up to date")
        return
    legend = bundled_legend()
    counted = _each(partial(count_zone, workspace=workspace), zones)
    folds = make_folds(
        {z.zone_id: _by_name(counted[z.zone_id][0], legend) for z in zones if z.split == "train"},
        {z.zone_id: z.region for z in zones},
        job.dataset.n_folds,
    )
    parcel_ids = {zone_id: ids for zone_id, (_, ids) in counted.items()}
    rule = job.dataset.on_overlap
    trims = separate(zones, folds, parcel_ids, job.dataset.buffer_m, rule)
    find = partial(separate_regions, zones, folds, parcel_ids, job.dataset.buffer_m)
    of_regions, conflict = across_regions(find, rule, is_wanted=job.search.leave_region_out)
    trims = join(trims, of_regions or {})
    names, size = legend.names, job.dataset.tile_size
    cube = job.cube_spec
    jobs = [ZoneJob(z, folds.get(z.zone_id), size, names, trims.get(z.zone_id, Trim()), workspace, cube) for z in zones]
    _forget(workspace)
    with ray_session(job.cluster):
        entries = _build(_tasks(jobs, made_from), job, progress)
    lost = {names[class_id] for counts, _ in counted.values() for class_id in counts} - _present(entries)
    known = parcel_doubts(parcel_ids, {zone.zone_id: folds.get(zone.zone_id, "test") for zone in zones})
    doubts = [*_lost_classes(lost), *known, *_given_by_id(trims), *_bare_tiles(zones, entries, size)]
    doubts += alike_doubts("regions", {zone.region for zone in zones})
    _finish(job, progress, "parcels", legend, entries, _Told(doubts, conflict))
    workspace.mark_current("dataset", "all", inputs)


def _run_points(job: JobConfig, progress: Progress) -> None:
    assert job.points is not None
    settings, path, cube = job.dataset, job.points.path, job.cube_spec
    progress.stage("dataset", f"labelled points of {path}")
    source = [job.points.fingerprint(), source_fingerprint([path]), code_digest(*_OF_POINTS), *cube.in_keys()]
    rule, by_region = settings.on_overlap, job.search.leave_region_out
    inputs = fingerprint([source, *_rules(job)])
    workspace = job.artefacts
    if not job.overwrite and workspace.is_current("dataset", "all", inputs, [workspace.manifest]):
        progress.note("dataset is up to date")
        return
    whole = read_points(path, cube, job.points.values)
    folds = points_folds(whole, settings.n_folds)
    if by_region:
        pairs = zip(whole["zone_id"].to_pylist(), whole["region"].to_pylist(), strict=True)
        require_two(region for zone_id, region in pairs if zone_id in folds)
    table, given = separate_points(whole, folds, settings.buffer_m, rule)
    find = partial(separate_point_regions, table, folds, settings.buffer_m)
    of_regions, conflict = across_regions(find, rule, is_wanted=by_region)
    if of_regions is not None:
        table, given = of_regions[0], [*given, *of_regions[1]]
    require_folds(table, folds, settings.buffer_m)
    legend = points_legend(table)
    _forget(workspace)
    write_points(table, workspace, legend, cube)
    n_given: Counter[str] = Counter()
    for one in given:
        n_given[one.zone_id] += one.n_points
    entries = points_entries(table, workspace, folds, n_given, cube)
    doubts = [*points_doubts(whole, path, cube), *separation_doubts(table, folds, given, settings.buffer_m)]
    lost = set(points_legend(whole).names) - set(legend.names)
    _finish(job, progress, "points", legend, entries, _Told([*_lost_classes(lost), *doubts], conflict))
    workspace.mark_current("dataset", "all", inputs)


def _rules(job: JobConfig) -> tuple[int, float, str, bool]:
    """What decides how zones are divided, and what gives way."""
    settings = job.dataset
    return settings.n_folds, settings.buffer_m, settings.on_overlap, job.search.leave_region_out


def _forget(workspace: Workspace) -> None:
    """Drop the manifest before partitions change: it must never describe others than it was written with."""
    workspace.mark_stale("dataset", "all")
    remove(workspace.manifest)


def _tasks(jobs: Sequence[ZoneJob], made_from: Mapping[str, str]) -> list[ZoneTask[None]]:
    """One per zone; its entry is written last."""
    tasks = []
    for job in jobs:
        zone_id, workspace = job.zone.zone_id, job.workspace
        trim = [sorted(job.trim.parcels), job.trim.keep_away]  # a set has another order in each process
        inputs = fingerprint([made_from[zone_id], job.fold, trim])
        outputs = (workspace.zone_entry(zone_id), workspace.pixels(zone_id) / PIXEL_FILE)
        tasks.append(ZoneTask(zone_id, partial(_build_one, job), inputs, outputs))
    return tasks


def _build_one(job: ZoneJob) -> None:
    save_entry(build_zone(job), job.workspace.zone_entry(job.zone.zone_id))


def _build(tasks: Sequence[ZoneTask[None]], job: JobConfig, progress: Progress) -> list[ZoneEntry]:
    """Ray Data maps one zone a block; each writes its own partition whole. What an interrupted run built stands."""
    workspace = job.artefacts
    todo = current_aside(ZONES, tasks, workspace, progress, overwrite=job.overwrite)
    by_id = {task.zone_id: task for task in todo}

    def build(row: dict[str, Any]) -> dict[str, Any]:
        return {"outcome": attempt_and_mark(by_id[row["zone_id"]], ZONES, workspace)}

    failures = {}
    if todo:
        require_cpus(min(len(todo), LOOK_AHEAD), job.cluster.wait_s)
        ids = [{"zone_id": zone_id} for zone_id in by_id]
        rows = ray.data.from_items(ids, override_num_blocks=len(ids)).map(build).iter_rows()
        for done, row in enumerate(rows, start=1):
            outcome: ZoneOutcome[None] = row["outcome"]
            if outcome.error is not None:
                failures[outcome.zone_id] = outcome.error
            progress.step(done, len(todo), outcome.zone_id, "zones")
    if failures:
        raise StageFailedError("dataset", failures, len(tasks) - len(failures))
    return in_threads(load_entry, (workspace.zone_entry(task.zone_id) for task in tasks))


def _finish(
    job: JobConfig,
    progress: Progress,
    source: Literal["parcels", "points"],
    legend: Legend,
    entries: Sequence[ZoneEntry],
    told: _Told,
) -> None:
    present, unit = _present(entries), "points" if source == "points" else "pixels"
    manifest = Manifest(
        name=job.name,
        source=source,
        classes=tuple(crop for crop in legend.classes if crop.name in present),
        legend_hash=legend.hash(),
        tile_size=job.dataset.tile_size if source == "parcels" else None,
        n_folds=job.dataset.n_folds,
        zones=tuple(entries),
        notes=(*_notes(entries, unit, job.cube_spec.noun), *told.doubts),
        region_conflict=told.region_conflict,
        cube=job.cube_spec,
    )
    workspace = job.artefacts
    with whole_file(workspace.folds) as path:
        regions = number_regions({e.zone_id: e.region for e in entries if e.split == "train"})
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["zone_id", "region", "split", "fold", "region_fold"])
            writer.writerows([e.zone_id, e.region, e.split, e.fold, regions.get(e.zone_id)] for e in entries)
    save_manifest(manifest, workspace.manifest)
    assert load_manifest(workspace.manifest).fingerprint() == manifest.fingerprint()
    n_pixels = sum(entry.n_labelled for entry in entries)
    n_tiles = sum(entry.n_tiles for entry in entries)
    progress.note(f"{n_pixels:,} labelled {unit}, {n_tiles:,} tiles, {manifest.n_classes} classes")
    for note in manifest.notes:
        progress.note(f"note: {note}")
    if manifest.region_conflict:
        progress.note(f"note: the regions are not apart for leave-region-out: {manifest.region_conflict}")


def _notes(entries: Sequence[ZoneEntry], unit: str = "pixels", noun: str = "month") -> tuple[str, ...]:
    notes = []
    only = classes_only_in_test(entries)
    if only:
        listing = ", ".join(f"{name} ({n:,} px)" for name, n in sorted(only.items()))
        notes.append(
            f"classes seen only in test zones: {listing}. No model can learn them, and each counts as F1 = 0 in "
            f"the macro scores; add training zones that hold them"
        )
    trimmed = {entry.zone_id: entry.n_trimmed for entry in entries if entry.n_trimmed}
    if trimmed:
        listing = some([f"{zone_id} {n:,}" for zone_id, n in trimmed.items()])
        notes.append(f"labels dropped at borders of splits ({unit}): {listing}")
    empty = [f"{entry.zone_id} {entry.n_empty:,}" for entry in entries if entry.n_empty]
    if empty:
        notes.append(
            f"labelled {unit} without a value in any {noun}, trained on and scored like the others: {some(empty)}"
        )
    return tuple(notes)


def _lost_classes(names: Iterable[str]) -> list[str]:
    lost = sorted(names)
    return [f"classes that lost all labels at borders of splits: {', '.join(lost)}"] if lost else []


def _given_by_id(trims: Mapping[str, Trim]) -> list[str]:
    by_id = [
        f"{zone_id} {len(trim.parcels):,}" for zone_id, trim in trims.items() if not trim.keep_away and trim.parcels
    ]
    what = (
        "parcels given up to zones farther away than dataset.buffer_m; if many, parcels.id_column names no unique ids"
    )
    return [f"{what}: {some(by_id)}"] if by_id else []


def _bare_tiles(zones: Sequence[Zone], entries: Sequence[ZoneEntry], size: int) -> list[str]:
    n_whole = sum(-(-zone.grid.height // size) * -(-zone.grid.width // size) for zone in zones)
    n_bare = n_whole - sum(entry.n_tiles for entry in entries)
    return [f"{n_bare:,} of {n_whole:,} tiles hold no label and are left out"] if n_bare else []


def _present(entries: Iterable[ZoneEntry]) -> set[str]:
    return {name for entry in entries for name, n in entry.counts.items() if n}


def _check_splits(zones: Sequence[Zone]) -> None:
    for split in ("train", "test"):
        if not any(zone.split == split for zone in zones):
            raise ConfigError(
                f"none of the {len(zones)} zones is in the {split} split; a dataset needs both: "
                f"change the zone table or --set zones"
            )


def _by_name(counts: dict[int, int], legend: Legend) -> dict[str, int]:
    return {legend.names[class_id]: n for class_id, n in counts.items()}


def _each(function: Callable[[Zone], ResultT], zones: Sequence[Zone]) -> dict[str, ResultT]:
    """Zone → result."""
    return dict(zip((zone.zone_id for zone in zones), in_threads(function, zones), strict=True))


def _fingerprint(common: Sequence[object], workspace: Workspace, zone: Zone) -> str:
    """Of what one zone's part of the dataset depends on, fold and trimmed borders aside: all zones decide on those."""
    artefacts = [
        workspace.composite(zone.zone_id),
        workspace.n_obs(zone.zone_id),
        workspace.labels(zone.zone_id),
        workspace.parcel_index(zone.zone_id),
        workspace.parcels(zone.zone_id),
    ]
    return fingerprint([*common, zone_fingerprint(zone), artefact_fingerprint(artefacts)])
