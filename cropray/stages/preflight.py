"""What chosen stages will read, looked at before the first of them starts: hours later is too late to hear of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from ray._private.accelerators import get_accelerator_manager_for_resource

from cropray.cluster.ray_address import check_form
from cropray.cluster.session import address_of, name_of_address
from cropray.config import JobConfig
from cropray.core.errors import ConfigError, CroprayError, InputError, MissingArtefactError
from cropray.datasets.doubts import some
from cropray.io.raw_files import is_there
from cropray.io.storage import Location
from cropray.io.workspace import Workspace, require
from cropray.io.zones import Zone
from cropray.parcels.rpg import check_parcels, grids_outside
from cropray.search.sampling import require_optuna
from cropray.stages.inputs import check_legend, divided_zones, find_scenes, job_legend, register_year
from cropray.training.family import family
from cropray.zone_selection.land_cover import input_files
from cropray.zone_selection.regions import read_regions

_STORES: Final = {"http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks", ""}
_FEW: Final = 8  # names in a message


@dataclass(frozen=True, slots=True)
class _Artefact:
    """What a stage reads of each zone, and which stage makes it."""

    what: str
    made_by: str
    files: Callable[[Workspace, str], Iterable[Location]]


_COMPOSITE: Final = _Artefact("composite", "acquire", lambda w, zone: (w.composite(zone), w.n_obs(zone)))
_LABELS: Final = _Artefact("labels", "labels", lambda w, zone: (w.labels(zone), w.parcel_index(zone), w.parcels(zone)))
_OF_ZONES: Final = {"dataset": (_COMPOSITE, _LABELS), "map": (_COMPOSITE,)}


def check_job(job: JobConfig, stages: Sequence[str]) -> None:
    """Look at every input of some stages, and at the artefacts that none of them makes.

    Args:
        job: the job.
        stages: those that will run, in order.

    Raises:
        CroprayError: the one thing that is wrong, or all of them in one list.
    """
    problems: list[CroprayError] = []

    def note(check: Callable[[], object]) -> None:
        try:
            check()
        except CroprayError as error:
            problems.append(error)

    zones: list[Zone] = []
    if job.points is None and not _chooses_zones(job, stages):
        note(lambda: zones.extend(divided_zones(job)))
    for check in (*_inputs(job, stages, zones), *_settings(job, stages), *_artefacts(job, stages, zones)):
        note(check)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise InputError(f"{len(problems)} things are to be mended before anything starts:\n{listing}")


def _chooses_zones(job: JobConfig, stages: Sequence[str]) -> bool:
    return job.zone_selection is not None and "zones" in stages


def _inputs(job: JobConfig, stages: Sequence[str], zones: Sequence[Zone]) -> list[Callable[[], object]]:
    """Raw files."""
    checks: list[Callable[[], object]] = []
    if (choice := job.zone_selection) is not None and "zones" in stages:
        table = choice.region_table
        checks += [] if table is None else [lambda: read_regions(table)]
        checks += [partial(_check_outline, choice.outline), partial(input_files, choice.worldcover)]
    if job.imagery is not None and job.imagery.is_at_hand and "acquire" in stages:
        checks.append(lambda: find_scenes(job, zones))
    if (parcels := job.parcels) is not None and "labels" in stages:
        checks.append(lambda: check_parcels(parcels))
        checks.append(lambda: _check_legend(job))
        checks.append(lambda: [register_year(zone, job) for zone in zones])
        if len(stages) > 1:  # alone, the stage labels the other zones and names those
            checks.append(lambda: _check_place(job, zones))
    if {"dataset", "map"} & set(stages) and "labels" not in stages:
        checks.append(lambda: job_legend(job))
    if (points := job.points) is not None and "dataset" in stages:
        checks.append(lambda: _require_points(points.path))
    return checks


def _check_legend(job: JobConfig) -> None:
    assert job.parcels is not None
    job_legend(job)
    try:
        check_parcels(job.parcels)
    except InputError:
        return  # it is in the list for its own sake
    check_legend(job)


def _check_place(job: JobConfig, zones: Sequence[Zone]) -> None:
    assert job.parcels is not None
    try:
        outside = grids_outside(job.parcels, [zone.grid for zone in zones])
    except InputError:
        return  # it is in the list for its own sake
    if any(outside):
        names = some([zone.zone_id for zone, is_out in zip(zones, outside, strict=True) if is_out], _FEW)
        raise InputError(
            f"{sum(outside)} of {len(zones)} zones lie outside of all parcels of '{job.parcels.path}': {names}; use the "
            f"parcels of these zones, mend 'crs' or the zones, or leave them out (--set zones=[…])"
        )


def _check_outline(path: Location | None) -> None:
    from cropray.report.zones_picture import read_outline  # noqa: PLC0415  it draws, and loads what that takes

    if path is not None:
        read_outline(path)


def _require_points(path: Location) -> None:
    if not is_there(path, "points.path"):
        raise InputError(f"points '{path}' does not exist; set points.path to a Parquet file")


def _settings(job: JobConfig, stages: Sequence[str]) -> list[Callable[[], object]]:
    """What the job says of services and machines, as far as it can be judged from here."""
    checks: list[Callable[[], object]] = []
    if {"search", "evaluate", "map"} & set(stages):
        checks += [family(model).require_packages for model in job.search.models]
    if job.search.sampler == "tpe" and "search" in stages:
        checks.append(require_optuna)
    address = address_of(job.cluster)
    if address is not None:
        checks.append(lambda: check_form(address, name_of_address(job.cluster)))
    if job.tracking_uri is not None and {"search", "evaluate"} & set(stages):
        checks.append(lambda: _check_tracking_uri(str(job.tracking_uri)))
    if address is None and "search" in stages:
        checks.append(lambda: _check_gpus(job))
    return checks


def _check_tracking_uri(uri: str) -> None:
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme not in _STORES:
        raise ConfigError(
            f"tracking_uri = '{uri}' is no address of an MLflow store; write http://host:5000, "
            f"postgresql://host/database or sqlite:///file"
        )


def _check_gpus(job: JobConfig) -> None:
    needs = {model: job.settings_of(model).need() for model in job.search.models}
    wanted = [f"{model}.{need.gpu_setting}" for model, need in needs.items() if need.gpus]
    if wanted and not get_accelerator_manager_for_resource("GPU").get_current_node_num_accelerators():
        raise ConfigError(
            f"{' and '.join(wanted)} ask for a GPU, and this machine has none; change that, or name a cluster that has "
            f"some in cluster.address"
        )


def _artefacts(job: JobConfig, stages: Sequence[str], zones: Sequence[Zone]) -> list[Callable[[], object]]:
    """What earlier stages must have written, where none of those runs now."""
    workspace, checks = job.artefacts, list[Callable[[], object]]()
    done: set[str] = set()
    for stage in stages:
        of_zones = _OF_ZONES.get(stage, ()) if job.points is None else ()
        read = [zone for zone in zones if stage != "map" or job.map.splits == "all" or zone.split == "test"]
        for artefact in of_zones:
            if artefact.made_by not in done:
                checks.append(partial(_require_of_zones, artefact, workspace, read))
        for file, made_by in _single(job, stage):
            if made_by not in done:
                checks.append(partial(require, file, made_by))
        done.add(stage)
    return checks


def _single(job: JobConfig, stage: str) -> list[tuple[Location, str]]:
    """(file, the stage that makes it) of what is no zone's."""
    workspace = job.artefacts
    manifest = [(workspace.manifest, "dataset")] if stage in {"search", "evaluate", "report"} else []
    models = [(workspace.model(model), "search") for model in job.search.models if stage in {"evaluate", "map"}]
    return [*manifest, *models]


def _require_of_zones(artefact: _Artefact, workspace: Workspace, zones: Sequence[Zone]) -> None:
    missing = [
        zone.zone_id for zone in zones if not all(file.exists() for file in artefact.files(workspace, zone.zone_id))
    ]
    if missing:
        raise MissingArtefactError(
            f"{len(missing)} of {len(zones)} zones have no {artefact.what}: {some(missing, _FEW)}; "
            f"run `cropray {artefact.made_by} CONFIG.yaml` first"
        )
