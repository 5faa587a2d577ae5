"""`map`: the winners over whole zones: COG, mapped parcels and a preview per zone, one zone a task."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from cropray.cluster.session import ray_session
from cropray.cluster.zone_jobs import ZoneTask, run_zone_tasks, stamped, task_bytes
from cropray.config import JobConfig
from cropray.core.closure import closure
from cropray.core.errors import ConfigError
from cropray.core.keys import key_of
from cropray.core.progress import Progress
from cropray.datasets.manifest import load_manifest
from cropray.evaluation.models import Load, as_its_card_says, entries_of, kept_model, read_model
from cropray.io.artefacts import Stamped
from cropray.io.storage import Location, content_id, folder_hash
from cropray.io.workspace import Workspace, require
from cropray.io.zones import Zone
from cropray.maps.layout import window_note
from cropray.maps.zone import MapJob, map_zone
from cropray.stages import inputs
from cropray.stages.decision import require_decision
from cropray.stages.devices import Device, device_of, gpus_per_task, memory_of, require_devices
from cropray.stages.preflight import COMPOSITES, Ahead, Check, checks_of_models
from cropray.stages.results import evaluation_note, why_no_scores
from cropray.tracking import Tracker
from cropray.training.card import CARD_FILE
from cropray.training.family import family


def run(job: JobConfig, progress: Progress) -> None:
    """Write maps of the test zones (or of all, `map.splits`) by every searched model.

    Raises:
        ConfigError: the job reads points, which have no images, or the cluster has no GPU and `map.device` asks for one.
        MissingArtefactError: a model or a composite is missing.
        InputError: a composite is of another season, or a model or labels are of another legend.
        StageFailedError: some zones failed.
    """
    if job.points is not None:
        raise ConfigError("this job reads 'points': there are no images to map; give a job with 'imagery'")
    workspace = job.artefacts
    zones = _mapped(job, inputs.divided_zones(job))
    if not zones:
        raise ConfigError("none of the chosen zones is in the test split; set map.splits to 'all'")
    inputs.require_season_of_composites(zones, job)
    for model in job.search.models:
        require(workspace.model(model), "search")
        require_decision(job, model)
    legend = inputs.legend_of(job.parcels)
    inputs.require_legend_of_labels(zones, workspace, legend)
    cards = {f"model '{model}'": workspace.model(model) / CARD_FILE for model in job.search.models}
    inputs.require_legend(cards, legend, "search")
    with ray_session(job.cluster):
        require_devices(job, job.search.models)
        for model in job.search.models:
            _map_model(job, model, zones, progress)


def artefacts(job: JobConfig) -> Iterator[Stamped]:
    """What the stage makes.

    Raises:
        MissingArtefactError: a model or a composite is missing.
    """
    for model in job.search.models if job.points is None else ():
        require(job.artefacts.model(model), "search")
        yield from stamped(
            f"map/{model}", f"map-{model}", _tasks(job, model, _mapped(job, inputs.divided_zones(job))), job.artefacts
        )


def checks(job: JobConfig, ahead: Ahead) -> Iterator[Check]:
    """Looks at libraries, the legend, composites and models."""
    yield from checks_of_models(job)
    if "labels" not in ahead.stages:
        yield partial(inputs.legend_of, job.parcels)
    yield from ahead.of_zones(COMPOSITES, _mapped(job, ahead.zones))
    yield from ahead.made("search", *map(job.artefacts.model, job.search.models))


def _mapped(job: JobConfig, zones: Sequence[Zone]) -> list[Zone]:
    return [zone for zone in zones if job.map.splits == "all" or zone.split == "test"]


def _map_model(job: JobConfig, model: str, zones: list[Zone], progress: Progress) -> None:
    workspace = job.artefacts
    progress.stage("map", f"{model} on {len(zones)} zones")
    share, wait_s = task_bytes(), job.cluster.wait_s
    tasks = _tasks(job, model, zones, share)
    windows = run_zone_tasks(f"map-{model}", tasks, workspace, progress, overwrite=job.overwrite, wait_s=wait_s)
    if windows:
        progress.note(window_note(windows.values(), read_model(family(model).load, workspace.model(model)), share))
    _record(job, model, zones, progress)


def current_previews(job: JobConfig, model: str, zones: Sequence[Zone]) -> list[tuple[str, Location]]:
    """(zone, preview) of the zones whose maps are those of today's model and composites."""
    workspace = job.artefacts
    drawn = [zone for zone in zones if workspace.map_preview(model, zone.zone_id).exists()]
    return [
        (task.zone_id, workspace.map_preview(model, task.zone_id))
        for task in _tasks(job, model, drawn)
        if workspace.is_current(f"map-{model}", task.zone_id, task.inputs, task.outputs)
    ]


def _tasks(
    job: JobConfig, model: str, zones: Sequence[Zone], share: float = math.inf
) -> list[ZoneTask[tuple[int, int]]]:
    """One per zone; what a task may take of the memory is no part of what a map depends on."""
    workspace, legend = job.artefacts, inputs.legend_of(job.parcels)
    map_job = MapJob(model, legend, job.map, workspace, share)
    found, content, device = family(model), folder_hash(workspace.model(model)), device_of(job, model)
    code = closure(map_zone, found.load, as_its_card_says, *entries_of(found, workspace.model(model)))
    common = {"model": content, "legend": legend.hash()}
    return [
        ZoneTask(
            zone.zone_id,
            partial(_map_zone, zone, map_job, (found.load, content, device)),
            key_of(code, {"map": job.map}, {**common, **_content(job, zone)}, apart=("map.splits",)),
            _outputs(workspace, model, zone.zone_id),
            gpus_per_task(job, model),
        )
        for zone in zones
    ]


def _record(job: JobConfig, model: str, zones: list[Zone], progress: Progress) -> None:
    """Add the pictures to the run of the model's evaluation, where it has one."""
    workspace = job.artefacts
    if not workspace.manifest.exists():
        progress.note("maps are not added to a run of MLflow: this workspace has no dataset")
        return
    manifest = load_manifest(workspace.manifest)
    if why := why_no_scores(workspace, manifest, model):
        progress.note(f"maps are not added to a run of MLflow: {model} was {why}")
        return
    with Tracker(workspace, job.name, job.tracking_uri) as tracker:
        note = evaluation_note(job, manifest, model, tracker)
        drawn = {zone.zone_id: content_id(workspace.map_preview(model, zone.zone_id)) for zone in zones}
        tracker.note(note.model_copy(update={"maps": {**note.maps, **drawn}}))
    for line in tracker.outcome():
        progress.note(line)


def _map_zone(zone: Zone, job: MapJob, trained: tuple[Load, str, Device]) -> tuple[int, int]:
    """Map one zone with the model that a family's `load` reads, of a content (`folder_hash`), on a device."""
    load, content, device = trained
    model = kept_model(load, job.workspace.model(job.model_name), content, device)
    return map_zone(model, zone, replace(job, task_bytes=memory_of(job.task_bytes, device)))


def _content(job: JobConfig, zone: Zone) -> dict[str, object]:
    for file in (job.artefacts.composite(zone.zone_id), job.artefacts.n_obs(zone.zone_id)):
        require(file, "acquire")
    return inputs.content_of_zone(job.artefacts, zone)


def _outputs(workspace: Workspace, model: str, zone_id: str) -> tuple[Location, ...]:
    outputs = (workspace.map(model, zone_id), workspace.map_preview(model, zone_id))
    return (*outputs, workspace.mapped_parcels(model, zone_id)) if workspace.parcels(zone_id).exists() else outputs
