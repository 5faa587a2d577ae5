"""`labels`: declared parcels to class rasters, one zone a task."""

import contextlib
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from cropray.cluster.session import ray_session
from cropray.cluster.zone_jobs import ZoneTask, run_zone_tasks, stamped
from cropray.config import JobConfig
from cropray.core.closure import closure
from cropray.core.errors import ConfigError, InputError
from cropray.core.keys import key_of
from cropray.core.legend import Legend
from cropray.core.progress import Progress
from cropray.datasets.doubts import some
from cropray.io.artefacts import Stamped
from cropray.io.raw_files import parts_of, source_fingerprint
from cropray.io.storage import Location, files_below, local_file, relative, remove, whole_file, write_json
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone, zone_fingerprint
from cropray.parcels import rpg
from cropray.parcels.coverage import Coverage, CoverageRow, describe, summarize
from cropray.parcels.labels import label_zone, read_label_report
from cropray.parcels.report import LabelReport
from cropray.stages.inputs import check_legend, job_zones, legend_of, register_year
from cropray.stages.preflight import Ahead, Check

_OF_ALL_ZONES: Final = (
    "parcels.year",
    "parcels.max_unmapped_share",
    "parcels.legend",
)  # none changes a zone's labels; of a legend the content counts
_FEW_CODES: Final = 12  # in a message
_FEW_ZONES: Final = 8  # in a message
_UPLOADS: Final = 8  # at a time; each is small, and waits for the store


def run(job: JobConfig, progress: Progress) -> None:
    """Write label rasters, parcel tables and code reports of every zone, and the coverage of all.

    Raises:
        ConfigError: the job has no parcels.
        InputError: the parcel file cannot be used, or too much area has no class.
        StageFailedError: some zones failed.
    """
    if job.parcels is None:
        raise ConfigError("this job reads 'points': there are no parcels to label")
    zones, workspace, legend = job_zones(job), job.artefacts, legend_of(job.parcels)
    progress.stage("labels", f"{job.parcels.path} for {len(zones)} zones, {len(legend.classes)} classes")
    rpg.check_parcels(job.parcels)
    check_legend(job.parcels)
    extract = _own_extract(workspace)
    tasks = _tasks(job, job.parcels, zones, legend, extract)
    todo = [t for t in tasks if job.overwrite or not workspace.is_current("labels", t.zone_id, t.inputs, t.outputs)]
    wanted = {task.zone_id for task in todo}
    nearby = [zone for zone in zones if zone.zone_id in wanted]
    session = ray_session(job.cluster) if todo else contextlib.nullcontext()  # it takes longer to start than a look
    with indexed(job.parcels, nearby, extract, progress), session:
        run_zone_tasks("labels", tasks, workspace, progress, overwrite=job.overwrite, wait_s=job.cluster.wait_s)
    reports = [read_label_report(workspace.label_report(zone.zone_id)) for zone in zones]
    coverage = summarize(reports, {zone.zone_id: zone.region for zone in zones}, legend)
    write_json(workspace.coverage, coverage.to_record())
    for line in describe(coverage):
        progress.note(line)
    _check_unknown(reports, job.dataset.max_unknown_share)
    _check_unmapped(coverage, job.parcels.max_unmapped_share)


def artefacts(job: JobConfig) -> Iterator[Stamped]:
    """What the stage makes."""
    if job.parcels is not None:
        rpg.check_parcels(job.parcels)
        tasks = _tasks(job, job.parcels, job_zones(job), legend_of(job.parcels), job.artefacts.parcel_extract)
        yield from stamped("labels", "labels", tasks, job.artefacts)


def checks(job: JobConfig, ahead: Ahead) -> Iterator[Check]:
    """Looks at parcels and their legend."""
    if (parcels := job.parcels) is None:
        return
    yield partial(rpg.check_parcels, parcels)
    yield partial(check_legend, parcels)
    yield lambda: [register_year(zone, job) for zone in ahead.zones]
    if len(ahead.stages) > 1:  # alone, the stage labels the other zones and names those
        yield partial(_check_place, parcels, ahead.zones)


def _check_place(parcels: rpg.ParcelSettings, zones: Sequence[Zone]) -> None:
    outside = rpg.grids_outside(parcels, [zone.grid for zone in zones])
    if any(outside):
        names = some([zone.zone_id for zone, is_out in zip(zones, outside, strict=True) if is_out], _FEW_ZONES)
        raise InputError(
            f"{sum(outside)} of {len(zones)} zones lie outside of all parcels of '{parcels.path}': {names}; use the "
            f"parcels of these zones, mend 'crs' or the zones, or leave them out (--set zones=[…])"
        )


def _own_extract(workspace: Workspace) -> Location:
    """A name for the extract that no other run has; what runs that were killed left behind goes."""
    name, folder = workspace.parcel_extract.stem, workspace.parcel_extract.parent
    with contextlib.suppress(FileNotFoundError):
        for left in [file for file in files_below(folder) if name in relative(file, folder)]:
            remove(left)
    return workspace.parcel_extract.with_name(f"{name}-{uuid.uuid4().hex}.gpkg")


def _tasks(
    job: JobConfig, settings: rpg.ParcelSettings, zones: Sequence[Zone], legend: Legend, extract: Location
) -> list[ZoneTask[LabelReport]]:
    workspace = job.artefacts
    read_from = None if rpg.has_spatial_index(settings) else extract
    common = {"legend": legend.hash(), "parcels": source_fingerprint(parts_of(settings.path), "parcels.path")}
    code = closure(label_from, rpg.extract_parcels, rpg.cut_extract)
    files = (workspace.labels, workspace.parcel_index, workspace.parcels, workspace.label_report)
    tasks = []
    for zone in zones:
        year = register_year(zone, job)
        content = {**common, "year of the register": year, "zone": zone_fingerprint(zone)}
        label = partial(label_from, settings, zone, year, legend, workspace, read_from)
        inputs = key_of(code, {"parcels": settings}, content, apart=_OF_ALL_ZONES)
        tasks.append(ZoneTask(zone.zone_id, label, inputs, tuple(file(zone.zone_id) for file in files)))
    return tasks


@contextlib.contextmanager
def indexed(
    settings: rpg.ParcelSettings, zones: Sequence[Zone], extract: Location, progress: Progress
) -> Iterator[None]:
    """Where the register has no spatial index: one pass over it for all zones, instead of one for each.

    A register that must be fetched is fetched here, once for all nodes.
    """
    if not zones or rpg.has_spatial_index(settings):
        yield
        return
    why = "is fetched or unpacked, and" if rpg.is_fetched(settings) else "has no spatial index: it is"
    progress.note(f"{settings.path.name} {why} read once from end to end, for all zones")
    try:
        with rpg.fetched(settings) as register:
            n_nowhere = _extract(register, zones, extract)
        if n_nowhere:
            progress.note(f"{n_nowhere:,} features of {settings.path.name} have no geometry and are left out")
        yield
    finally:
        remove(extract)


def _extract(register: rpg.ParcelSettings, zones: Sequence[Zone], extract: Location) -> int:
    """How many features have no geometry; the others are extracted, on a disk into one file for all zones.

    In object storage it is a folder of one file for each, so that none is fetched for another.
    """
    grids = [zone.grid for zone in zones]
    if isinstance(extract, Path):
        with whole_file(extract) as path:
            return rpg.extract_parcels(register, grids, path)

    def put(zone: Zone) -> None:
        with whole_file(_part(extract, zone)) as path:
            rpg.cut_extract(whole, zone.grid, path)

    with tempfile.TemporaryDirectory(prefix="cropray-") as scratch, ThreadPoolExecutor(_UPLOADS) as threads:
        whole = Path(scratch, "extract.gpkg")
        n_nowhere = rpg.extract_parcels(register, grids, whole)
        list(threads.map(put, zones))
    return n_nowhere


def _part(extract: Location, zone: Zone) -> Location:
    return extract if isinstance(extract, Path) else extract / f"{zone.zone_id}.gpkg"


def label_from(
    settings: rpg.ParcelSettings, zone: Zone, year: int, legend: Legend, workspace: Workspace, extract: Location | None
) -> LabelReport:
    """`label_zone` with an extract that may lie in object storage."""
    with contextlib.nullcontext() if extract is None else local_file(_part(extract, zone)) as path:
        return label_zone(settings, zone, year, legend, workspace, path)


def _check_unknown(reports: Sequence[LabelReport], limit: float) -> None:
    over = {}
    for report in reports:
        unknown_ha, total = report.area_ha("unknown"), sum(tally.area_ha for tally in report.codes)
        if unknown_ha > limit * total:
            over[report.zone_id] = f"{unknown_ha / total:.1%} ({_largest(report)})"
    if over:
        years = sorted({report.year for report in reports})
        raise InputError(
            f"more than {limit:.0%} of the parcel area has codes that the legend does not know in "
            f"{', '.join(map(str, years))}: {_listing(over)}; "
            f"check parcels.code_column and parcels.year, add the codes to parcels.legend, or raise "
            f"dataset.max_unknown_share"
        )


def _largest(report: LabelReport) -> str:
    """Unknown codes that take the most area."""
    codes, n_more = report.unknown_codes[:_FEW_CODES], len(report.unknown_codes) - _FEW_CODES
    return ", ".join(codes) + (f" and {n_more} more" if n_more > 0 else "")


def _check_unmapped(coverage: Coverage, limit: float) -> None:
    over = {row.name: _shares(row) for row in coverage.regions if row.unmapped_share > limit}
    if over:
        raise InputError(
            f"more than {limit:.0%} of a region's parcel area gets no class: {_listing(over)}; "
            f"check parcels.code_column and parcels.year, add codes to parcels.legend, or raise parcels.max_unmapped_share"
        )


def _shares(row: CoverageRow) -> str:
    unknown, excluded = row.unknown_ha / row.declared_ha, row.excluded_ha / row.declared_ha
    return f"{row.unmapped_share:.1%} ({unknown:.1%} unknown, {excluded:.1%} excluded)"


def _listing(over: dict[str, str]) -> str:
    return ", ".join(f"{name}: {what}" for name, what in over.items())
