"""`labels`: declared parcels to class rasters, one zone a task."""

from functools import partial
from pathlib import Path
from typing import Final, get_args

from cropray.config import JobConfig
from cropray.errors import ConfigError, InputError
from cropray.legend import bundled_legend
from cropray.parcels.labels import LabelReport, Status, label_zone
from cropray.parcels.rpg import check_parcels
from cropray.parcels.tables import read_label_report
from cropray.progress import Progress
from cropray.settings import fingerprint
from cropray.stages.cluster import ray_session
from cropray.stages.inputs import job_zones, source_fingerprint, zone_fingerprint
from cropray.stages.zone_jobs import ZoneTask, run_zone_tasks
from cropray.workspace import code_hash

STATUSES: Final[tuple[Status, ...]] = get_args(Status)


def run(job: JobConfig, progress: Progress) -> None:
    """Write label rasters, parcel tables and code reports of every zone.

    Raises:
        ConfigError: the job has no parcels.
        InputError: the parcel file cannot be used, or too much area has unknown codes.
        StageFailedError: some zones failed.
    """
    if job.parcels is None:
        raise ConfigError("this job reads 'points': there are no parcels to label")
    zones, workspace, legend = job_zones(job), job.artefacts, bundled_legend()
    progress.stage("labels", f"{job.parcels.path} for {len(zones)} zones, {len(legend.classes)} classes")
    check_parcels(job.parcels)
    common = [
        job.parcels.fingerprint(),
        legend.hash(),
        source_fingerprint(_parcel_files(job.parcels.path)),
        code_hash("parcels", "legend", "grid"),
    ]
    tasks = [
        ZoneTask(
            zone.zone_id,
            partial(label_zone, job.parcels, zone, legend, workspace),
            fingerprint([*common, zone_fingerprint(zone)]),
            (
                workspace.labels(zone.zone_id),
                workspace.parcel_index(zone.zone_id),
                workspace.parcels(zone.zone_id),
                workspace.label_report(zone.zone_id),
            ),
        )
        for zone in zones
    ]
    with ray_session(job.cluster):
        run_zone_tasks("labels", tasks, workspace, progress, overwrite=job.overwrite)
    reports = [read_label_report(workspace.label_report(zone.zone_id)) for zone in zones]
    for line in describe_codes(reports):
        progress.note(line)
    _check_unknown(reports, job.dataset.max_unknown_share)


def _parcel_files(path: Path) -> list[Path]:
    """All files of the parcel table: a shapefile keeps its attributes and its index beside it."""
    return list(path.parent.glob(f"{path.stem}.*")) if path.suffix.lower() == ".shp" else [path]


def describe_codes(reports: list[LabelReport]) -> list[str]:
    """Lines that say how many hectares were mapped, excluded and unknown."""
    totals = {status: sum(report.area_ha(status) for report in reports) for status in STATUSES}
    lines = [", ".join(f"{status} {area:.1f} ha" for status, area in totals.items())]
    unknown = sorted({code for report in reports for code in report.unknown_codes})
    if unknown:
        lines.append(f"codes that the legend does not know: {', '.join(unknown)} (their pixels stay unlabelled)")
    return lines


def _check_unknown(reports: list[LabelReport], limit: float) -> None:
    over = {}
    for report in reports:
        total = sum(report.area_ha(status) for status in STATUSES)
        share = report.area_ha("unknown") / max(total, 1e-9)
        if share > limit:
            over[report.zone_id] = f"{share:.1%} ({', '.join(report.unknown_codes)})"
    if over:
        listing = ", ".join(f"{zone_id}: {what}" for zone_id, what in over.items())
        raise InputError(
            f"more than {limit:.0%} of the parcel area has codes that the legend does not know: {listing}; "
            f"check parcels.code_column, or raise dataset.max_unknown_share"
        )
