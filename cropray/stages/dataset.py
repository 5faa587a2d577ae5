"""`dataset`: composites and labels to pixel tables and tile shards, one zone a partition."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, TypeVar

import ray
import ray.data

from cropray.cluster import zone_jobs
from cropray.cluster.session import ray_session, require_cpus
from cropray.config import JobConfig
from cropray.core.closure import Root, closure
from cropray.core.errors import ConfigError, InputError, StageFailedError
from cropray.core.fingerprint import fingerprint
from cropray.core.keys import key_of
from cropray.core.legend import Legend
from cropray.core.progress import Progress
from cropray.core.settings import Settings
from cropray.datasets.build import ZoneJob, build_zone, count_zone
from cropray.datasets.division import Counted, Division, divide_points, divide_zones
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
from cropray.datasets.other_split import points_with_test
from cropray.datasets.point_separation import separation_doubts
from cropray.datasets.points import (
    PointsSettings,
    points_doubts,
    points_entries,
    points_legend,
    read_points,
    write_points,
)
from cropray.datasets.regions import number_regions, require_two
from cropray.datasets.schema import WEIGHT
from cropray.datasets.separation import Trim
from cropray.datasets.storage import PIXEL_FILE
from cropray.io.artefacts import Stamped
from cropray.io.raw_files import is_there, source_fingerprint
from cropray.io.storage import Location, remove, whole_file
from cropray.io.zones import Zone
from cropray.stages.inputs import (
    content_of_zone,
    divided_zones,
    legend_of,
    require_legend_of_labels,
    require_season_of_composites,
    require_year_of_labels,
)
from cropray.stages.preflight import COMPOSITES, LABELS, Ahead, Check

ResultT = TypeVar("ResultT")
_OF_ZONES: Final = (build_zone, count_zone, divide_zones, number_regions)
_OF_POINTS: Final = (read_points, divide_points, points_legend, write_points, points_entries, number_regions)
_CHECKS: Final = frozenset({"dataset.max_unknown_share"})  # settings that change nothing
_DIVIDING: Final = frozenset({"dataset.n_folds", "dataset.buffer_m", "dataset.on_overlap"})  # what comes of them counts
ZONES: Final = "dataset-zones"  # stamps of zones, apart from the one of the whole dataset


@dataclass(frozen=True, slots=True)
class _Told:
    """What a reader of the scores must know beside what the entries say."""

    doubts: Sequence[str]
    region_conflict: str
    is_weighted: bool = False
    """Whether rows have weights; a doubt says which."""


def run(job: JobConfig, progress: Progress) -> None:
    """Write pixel tables, tile shards, fold table and manifest.

    Raises:
        InputError: composites or labels are of another season or place, or labels of another legend.
        LeakageError: zones or parcels cross a border of splits, or of regions where `search.leave_region_out` is set, and
            `dataset.on_overlap` is `refuse`.
        MissingArtefactError: composites or labels are missing.
        StageFailedError: some zones failed; no manifest is written.
    """
    if job.points is not None:
        _run_points(job, progress)
        return
    zones, workspace = divided_zones(job), job.artefacts
    progress.stage("dataset", f"{len(zones)} zones, tiles of {job.dataset.tile_size} px")
    _check_splits(zones)
    require_season_of_composites(zones, job)
    require_year_of_labels(zones, job)
    legend = legend_of(job.parcels)
    require_legend_of_labels(zones, workspace, legend)
    if job.search.leave_region_out:
        require_two(zone.region for zone in zones if zone.split == "train")
    made_from = _each(partial(content_of_zone, workspace), zones)
    whole = _whole(job, _of_all(legend, made_from), _OF_ZONES)
    if whole.is_current(progress, "dataset", overwrite=job.overwrite):
        return
    counted, division = _divide(job, zones, legend)
    _forget(whole)
    with ray_session(job.cluster):
        entries = _build(_tasks(job, _jobs(job, zones, division, legend), made_from, legend), job, progress)
    size = job.dataset.tile_size
    lost = {legend.names[class_id] for counts, _ in counted.values() for class_id in counts} - _present(entries)
    known = parcel_doubts(division.parcel_ids, {z.zone_id: division.folds.get(z.zone_id, "test") for z in zones})
    doubts = [*_lost_classes(lost), *known, *_given_by_id(division.trims), *_bare_tiles(zones, entries, size)]
    doubts += alike_doubts("regions", {zone.region for zone in zones})
    _finish(job, progress, "parcels", legend, entries, _Told(doubts, division.region_conflict))
    whole.mark()


def artefacts(job: JobConfig) -> Iterator[Stamped]:
    """What the stage makes; raises as `source_fingerprint` where there is no table of points."""
    if job.points is not None:
        yield _whole_points(job, job.points)
    else:
        made_from = _each(partial(content_of_zone, job.artefacts), divided_zones(job))
        yield _whole(job, _of_all(legend_of(job.parcels), made_from), _OF_ZONES)


def checks(job: JobConfig, ahead: Ahead) -> Iterator[Check]:
    """Looks at the legend, and at points, or composites and labels."""
    if "labels" not in ahead.stages:
        yield partial(legend_of, job.parcels)
    if job.points is not None:
        yield partial(_require_points, job.points.path)
    yield from ahead.of_zones(COMPOSITES, ahead.zones)
    yield from ahead.of_zones(LABELS, ahead.zones)


def _require_points(path: Location) -> None:
    if not is_there(path, "points.path"):
        raise InputError(f"points '{path}' does not exist; set points.path to a Parquet file")


def parts(job: JobConfig) -> Iterator[Stamped]:
    """The partitions of the dataset, of which the labels of all zones decide."""
    if job.points is None:
        zones, legend = divided_zones(job), legend_of(job.parcels)
        jobs = _jobs(job, zones, _divide(job, zones, legend)[1], legend)
        tasks = _tasks(job, jobs, _each(partial(content_of_zone, job.artefacts), zones), legend)
        yield from zone_jobs.stamped("dataset", ZONES, tasks, job.artefacts)


def _divide(job: JobConfig, zones: Sequence[Zone], legend: Legend) -> tuple[Counted, Division]:
    counted = _each(partial(count_zone, workspace=job.artefacts), zones)
    by_region = job.search.leave_region_out
    return counted, divide_zones(zones, counted, legend, job.dataset, by_region=by_region)


def _jobs(job: JobConfig, zones: Sequence[Zone], division: Division, legend: Legend) -> list[ZoneJob]:
    names, size, trims, cube = legend.names, job.dataset.tile_size, division.trims, job.cube_spec
    return [
        ZoneJob(z, division.folds.get(z.zone_id), size, names, trims.get(z.zone_id, Trim()), job.artefacts, cube)
        for z in zones
    ]


def _run_points(job: JobConfig, progress: Progress) -> None:
    assert job.points is not None
    settings, path, cube = job.dataset, job.points.path, job.cube_spec
    progress.stage("dataset", f"labelled points of {path}")
    workspace, artefact = job.artefacts, _whole_points(job, job.points)
    if artefact.is_current(progress, "dataset", overwrite=job.overwrite):
        return
    whole = points_with_test(read_points(path, cube, job.points.values), job.test_zones)
    division = divide_points(whole, settings, by_region=job.search.leave_region_out)
    table, folds, given = division.table, division.folds, division.given
    legend = points_legend(table)
    _forget(artefact)
    write_points(table, workspace, legend, cube)
    n_given: Counter[str] = Counter()
    for one in given:
        n_given[one.zone_id] += one.n_points
    entries = points_entries(table, workspace, folds, n_given, cube)
    doubts = [*points_doubts(whole, path, cube), *separation_doubts(table, folds, given, settings.buffer_m)]
    lost = set(points_legend(whole).names) - set(legend.names)
    told = _Told([*_lost_classes(lost), *doubts], division.region_conflict, WEIGHT in table.column_names)
    _finish(job, progress, "points", legend, entries, told)
    artefact.mark()


def _whole(job: JobConfig, content: Mapping[str, object], made_by: Sequence[Root]) -> Stamped:
    """The manifest, which stands for all that is in it."""
    workspace, sections = job.artefacts, dict[str, Settings](dataset=job.dataset)
    if job.points is not None:
        sections["points"] = job.points
    content = {**content, "search.leave_region_out": job.search.leave_region_out, **job.cube_spec.in_content()}
    apart = _CHECKS if job.points is None else _CHECKS | {"dataset.tile_size"}
    inputs = key_of(closure(*made_by), sections, content, apart)
    return Stamped("dataset", "", workspace, ("dataset", "all"), inputs, (workspace.manifest,))


def _whole_points(job: JobConfig, points: PointsSettings) -> Stamped:
    test = {} if job.test_zones is None else {"test zones": sorted(job.test_zones)}
    return _whole(job, {"points": source_fingerprint([points.path]), **test}, _OF_POINTS)


def _of_all(legend: Legend, made_from: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    every = {f"{name} of zone {zone_id}": v for zone_id, read in made_from.items() for name, v in read.items()}
    return {**every, "legend": legend.hash(), "zones' order": fingerprint([*made_from])}


def _forget(dataset: Stamped) -> None:
    """Drop the manifest before partitions change: it must never describe others than it was written with."""
    dataset.forget()
    remove(dataset.workspace.manifest)


def _tasks(
    job: JobConfig, jobs: Sequence[ZoneJob], made_from: Mapping[str, Mapping[str, object]], legend: Legend
) -> list[zone_jobs.ZoneTask[None]]:
    """One per zone; its entry is written last."""
    tasks, code, legend_hash = [], closure(_build_one), legend.hash()
    for one in jobs:
        zone_id, workspace = one.zone.zone_id, one.workspace
        trim = [sorted(one.trim.parcels), one.trim.keep_away]  # a set has another order in each process
        content = {**made_from[zone_id], "legend": legend_hash, "fold": one.fold, "what gives way": fingerprint(trim)}
        content |= job.cube_spec.in_content()
        inputs = key_of(code, {"dataset": job.dataset}, content, _CHECKS | _DIVIDING)
        outputs = (workspace.zone_entry(zone_id), workspace.pixels(zone_id) / PIXEL_FILE)
        tasks.append(zone_jobs.ZoneTask(zone_id, partial(_build_one, one), inputs, outputs))
    return tasks


def _build_one(job: ZoneJob) -> None:
    save_entry(build_zone(job), job.workspace.zone_entry(job.zone.zone_id))


def _build(tasks: Sequence[zone_jobs.ZoneTask[None]], job: JobConfig, progress: Progress) -> list[ZoneEntry]:
    """Ray Data maps one zone a block; each writes its own partition whole. What an interrupted run built stands."""
    workspace = job.artefacts
    todo = zone_jobs.current_aside(ZONES, tasks, workspace, progress, overwrite=job.overwrite)
    by_id = {task.zone_id: task for task in todo}

    def build(row: dict[str, Any]) -> dict[str, Any]:
        return {"outcome": zone_jobs.attempt_and_mark(by_id[row["zone_id"]], ZONES, workspace)}

    failures = {}
    if todo:
        require_cpus(min(len(todo), zone_jobs.LOOK_AHEAD), job.cluster.wait_s)
        ids = [{"zone_id": zone_id} for zone_id in by_id]
        rows = ray.data.from_items(ids, override_num_blocks=len(ids)).map(build).iter_rows()
        for done, row in enumerate(rows, start=1):
            outcome: zone_jobs.ZoneOutcome[None] = row["outcome"]
            if outcome.error is not None:
                failures[outcome.zone_id] = outcome.error
            progress.step(done, len(todo), outcome.zone_id, "zones")
    if failures:
        raise StageFailedError("dataset", failures, len(tasks) - len(failures))
    return zone_jobs.in_threads(load_entry, (workspace.zone_entry(task.zone_id) for task in tasks))


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
        is_weighted=told.is_weighted,
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


def _each(function: Callable[[Zone], ResultT], zones: Sequence[Zone]) -> dict[str, ResultT]:
    """Zone → result."""
    return dict(zip((zone.zone_id for zone in zones), zone_jobs.in_threads(function, zones), strict=True))
