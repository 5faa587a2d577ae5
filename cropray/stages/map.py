"""`map`: the winners over whole zones: COG, mapped parcels and a preview per zone, one zone a task."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from cropray.config import JobConfig
from cropray.core.closure import code_digest
from cropray.datasets.manifest import load_manifest
from cropray.errors import ConfigError
from cropray.legend import bundled_legend
from cropray.maps.layout import window_note
from cropray.maps.models import Load, entries_of, kept_model, read_model
from cropray.maps.zone import MapJob, map_zone
from cropray.progress import Progress
from cropray.settings import fingerprint
from cropray.stages.cluster import ray_session
from cropray.stages.devices import Device, device_of, gpus_per_task, memory_of, require_devices
from cropray.stages.inputs import artefact_fingerprint, job_zones, require_season_of_composites, zone_fingerprint
from cropray.stages.results import evaluation_run, why_no_scores
from cropray.stages.zone_jobs import ZoneTask, run_zone_tasks, task_bytes
from cropray.storage import Location, copy_file, folder_hash
from cropray.tracking import outcome
from cropray.training.family import family
from cropray.workspace import Workspace, require
from cropray.zones import Zone


def run(job: JobConfig, progress: Progress) -> None:
    """Write maps of the test zones (or of all, `map.splits`) by every searched model.

    Raises:
        ConfigError: the job reads points, which have no images, or the cluster has no GPU and `map.device` asks for one.
        MissingArtefactError: a model or a composite is missing.
        InputError: a composite is of another season.
        StageFailedError: some zones failed.
    """
    if job.points is not None:
        raise ConfigError("this job reads 'points': there are no images to map; give a job with 'imagery'")
    workspace = job.artefacts
    zones = [zone for zone in job_zones(job) if job.map.splits == "all" or zone.split == "test"]
    if not zones:
        raise ConfigError("none of the chosen zones is in the test split; set map.splits to 'all'")
    require_season_of_composites(zones, job)
    for model in job.search.models:
        require(workspace.model(model), "search")
    with ray_session(job.cluster):
        require_devices(job, job.search.models)
        for model in job.search.models:
            _map_model(job, model, zones, progress)


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
    workspace = job.artefacts
    map_job = MapJob(model, bundled_legend(), job.map, workspace, share)
    load, content, device = family(model).load, folder_hash(workspace.model(model)), device_of(job, model)
    code = code_digest(map_zone, load, *entries_of(family(model), workspace.model(model)))
    common = [content, job.map.window_px, code]
    return [
        ZoneTask(
            zone.zone_id,
            partial(_map_zone, zone, map_job, (load, content, device)),
            fingerprint([*common, zone_fingerprint(zone), artefact_fingerprint(_inputs(job, zone))]),
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
    tracker, evaluation = evaluation_run(job, manifest, model)
    with tempfile.TemporaryDirectory() as folder:
        for zone in zones:
            picture = workspace.map_preview(model, zone.zone_id)
            copy_file(picture, Path(folder, picture.name))
        tracker.add_artifacts(evaluation, Path(folder), "maps")
        tracker.close()
    for line in outcome(tracker):
        progress.note(line)


def _map_zone(zone: Zone, job: MapJob, trained: tuple[Load, str, Device]) -> tuple[int, int]:
    """Map one zone with the model that a family's `load` reads, of a content (`folder_hash`), on a device."""
    load, content, device = trained
    model = kept_model(load, job.workspace.model(job.model_name), content, device)
    return map_zone(model, zone, replace(job, task_bytes=memory_of(job.task_bytes, device)))


def _inputs(job: JobConfig, zone: Zone) -> list[Location]:
    workspace, zone_id = job.artefacts, zone.zone_id
    return [
        require(workspace.composite(zone_id), "acquire"),
        require(workspace.n_obs(zone_id), "acquire"),
        workspace.labels(zone_id),
        workspace.parcels(zone_id),
        workspace.parcel_index(zone_id),
    ]


def _outputs(workspace: Workspace, model: str, zone_id: str) -> tuple[Location, ...]:
    outputs = (workspace.map(model, zone_id), workspace.map_preview(model, zone_id))
    return (*outputs, workspace.mapped_parcels(model, zone_id)) if workspace.parcels(zone_id).exists() else outputs
