"""`acquire`: scenes to gap-filled composites of every step of time, or ready cubes taken over, one zone a task."""

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import partial

from cropray.config import JobConfig
from cropray.core.closure import code_digest
from cropray.errors import ConfigError
from cropray.imagery.acquire import (
    ZoneAcquisition,
    acquire_zone,
    acquisitions_by_month,
    describe_clear,
    describe_empty_months,
    describe_left_out,
    describe_warnings,
    gather_left_out,
    months_without,
    remove_unfinished,
    survey_zones,
)
from cropray.imagery.cubes import acquire_cube
from cropray.imagery.earth_engine_settings import EarthEngineSettings
from cropray.imagery.scenes import Found, SceneSource
from cropray.imagery.sources import SceneSettings, composite_source, describe, scene_source
from cropray.imagery.sources.cubes import CubesSettings
from cropray.imagery.stac_settings import StacSettings
from cropray.progress import Progress
from cropray.settings import fingerprint
from cropray.stages import earth_engine
from cropray.stages.cluster import ray_session
from cropray.stages.inputs import job_zones, steps_of, zone_fingerprint
from cropray.stages.zone_jobs import ZoneTask, run_zone_tasks
from cropray.storage import Location, write_json
from cropray.workspace import Workspace
from cropray.zones import Zone


def run(job: JobConfig, progress: Progress) -> None:
    """Write the composite and the observation counts of every zone.

    Raises:
        ConfigError: the job has no imagery.
        InputError: no scene folder, or scenes that cannot be used.
        StageFailedError: some zones failed.
    """
    if job.imagery is None:
        raise ConfigError("this job reads 'points': there is nothing to acquire")
    if isinstance(job.imagery, EarthEngineSettings):
        earth_engine.run(job, job.imagery, progress)
    elif isinstance(job.imagery, CubesSettings):
        _run_cubes(job, job.imagery, progress)
    else:
        _run_scenes(job, job.imagery, progress)


def _run_scenes(job: JobConfig, settings: SceneSettings, progress: Progress) -> None:
    zones, workspace = job_zones(job), job.artefacts
    progress.stage("acquire", f"medians per {job.cube_spec.noun} of {describe(settings)} for {len(zones)} zones")
    cube = job.cube_spec
    source = scene_source(settings, cube)
    found = survey_zones(source, zones, job.season_start, cube)
    _tell(job, source, zones, found, progress)
    code = code_digest(acquire_zone, type(source))
    tasks = [
        ZoneTask(
            zone.zone_id,
            partial(acquire_zone, source, zone, job.season_start, workspace, cube),
            fingerprint(
                [
                    *(zone_fingerprint(zone), job.season_start, code),
                    *(source.fingerprint(found[zone.zone_id].scenes), *cube.in_keys()),
                ]
            ),
            _outputs(workspace, zone),
        )
        for zone in zones
    ]
    results = _run_tasks(job, tasks, progress)
    if results:
        for line in describe_warnings(results.values()):
            progress.note(line)
        progress.note(describe_clear(results.values()))


def _run_cubes(job: JobConfig, settings: CubesSettings, progress: Progress) -> None:
    workspace, seasons = job.artefacts, [(zone, steps_of(zone, job)) for zone in job_zones(job)]
    progress.stage("acquire", f"ready cubes of {describe(settings)} for {len(seasons)} zones")
    source = composite_source(settings)
    left_out = {remark: sorted(names) for remark, names in source.survey(seasons).items()}
    write_json(job.artefacts.left_out, left_out)
    for line in describe_left_out(left_out):
        progress.note(line)
    code = code_digest(acquire_cube, type(source))
    tasks = [
        ZoneTask(
            zone.zone_id,
            partial(acquire_cube, source, zone, season, workspace),
            fingerprint([zone_fingerprint(zone), season.first_month, code, source.fingerprint(zone, season)]),
            _outputs(workspace, zone),
        )
        for zone, season in seasons
    ]
    results = _run_tasks(job, tasks, progress)
    if results and settings.fill:
        progress.note(describe_clear(results.values()))
    elif results:
        progress.note("values that are missing stay no data: 'imagery.fill' is false")


def _outputs(workspace: Workspace, zone: Zone) -> tuple[Location, ...]:
    zone_id = zone.zone_id
    return workspace.composite(zone_id), workspace.n_obs(zone_id), workspace.acquisition_record(zone_id)


def _run_tasks(
    job: JobConfig, tasks: Sequence[ZoneTask[ZoneAcquisition]], progress: Progress
) -> dict[str, ZoneAcquisition]:
    if n_left := remove_unfinished(job.artefacts, {task.zone_id for task in tasks}):
        progress.note(f"{n_left} unfinished files of an interrupted run are removed")
    with ray_session(job.cluster):
        return run_zone_tasks(
            "acquire", tasks, job.artefacts, progress, overwrite=job.overwrite, wait_s=job.cluster.wait_s
        )


def _tell(
    job: JobConfig, source: SceneSource, zones: Sequence[Zone], found: Mapping[str, Found], progress: Progress
) -> None:
    """Say what is not used of what lies there, and which steps have nothing."""
    scenes = [scene for each in found.values() for scene in each.scenes]
    left_out = gather_left_out(found.values(), source.never_used(scenes))
    if isinstance(job.imagery, StacSettings):
        left_out |= job.imagery.unheard(left_out)
    write_json(job.artefacts.left_out, left_out)
    for line in describe_left_out(left_out):
        progress.note(line)
    empty, today = {}, dt.datetime.now(dt.UTC).date()
    for zone in zones:
        season = steps_of(zone, job)
        steps = acquisitions_by_month(found[zone.zone_id].scenes, season)
        empty[zone.zone_id] = months_without([len(step) for step in steps], season)
    for line in describe_empty_months(empty, job.cube_spec):
        progress.note(line)
    ends = {steps_of(zone, job).end for zone in zones}
    for end in sorted(end for end in ends if end > today):
        progress.note(
            f"a season ends on {end}, after today: run `cropray acquire` again then, what is missing is filled"
        )
