"""`acquire`: scenes to gap-filled composites of every step of time, or ready cubes taken over, one zone a task."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final, cast

from cropray.cluster.session import ray_session
from cropray.cluster.zone_jobs import ZoneTask, run_zone_tasks, stamped
from cropray.config import JobConfig
from cropray.core.closure import closure
from cropray.core.errors import ConfigError
from cropray.core.keys import key_of
from cropray.core.progress import Progress
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
from cropray.imagery.cubes import CompositeSource, acquire_cube
from cropray.imagery.registry import CompositeSettings, SceneSettings
from cropray.imagery.scenes import Found, SceneSource
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings
from cropray.io.artefacts import Stamped
from cropray.io.storage import Location, write_json
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.stages import earth_engine
from cropray.stages.inputs import job_zones, season_of, steps_of, zone_fingerprint

_CHOOSING: Final = frozenset(
    f"imagery.{name}"
    for name in ("source", "folder", "pattern", "counts", "url", "collection", "assets", "max_cloud_cover", "exclude")
)
"""Settings that say which scenes there are; an account lists the scenes themselves."""


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
    elif isinstance(job.imagery, CompositeSettings):
        _run_cubes(job, job.imagery, progress)
    else:
        _run_scenes(job, cast("SceneSettings", job.imagery), progress)


def _run_scenes(job: JobConfig, settings: SceneSettings, progress: Progress) -> None:
    zones = job_zones(job)
    progress.stage("acquire", f"medians per {job.cube_spec.noun} of {settings.describe()} for {len(zones)} zones")
    cube = job.cube_spec
    source = settings.scenes(cube.bands)
    found = survey_zones(source, zones, job.season_start, cube)
    _tell(job, settings, source, zones, found, progress)
    results = _run_tasks(job, _tasks(job, source, zones, found), progress)
    if results:
        for line in describe_warnings(results.values()):
            progress.note(line)
        progress.note(describe_clear(results.values()))


def _run_cubes(job: JobConfig, settings: CompositeSettings, progress: Progress) -> None:
    zones = job_zones(job)
    progress.stage("acquire", f"ready cubes of {settings.describe()} for {len(zones)} zones")
    source = settings.composites()
    found = source.survey([(zone, steps_of(zone, job)) for zone in zones])
    left_out = {remark: sorted(names) for remark, names in found.items()}
    write_json(job.artefacts.left_out, left_out)
    for line in describe_left_out(left_out):
        progress.note(line)
    results = _run_tasks(job, _cube_tasks(job, source, zones), progress)
    if results and source.fills:
        progress.note(describe_clear(results.values()))
    elif results:
        progress.note(f"values that are missing stay no data: the source '{settings.source}' does not fill them")


def _run_tasks(
    job: JobConfig, tasks: Sequence[ZoneTask[ZoneAcquisition]], progress: Progress
) -> dict[str, ZoneAcquisition]:
    if n_left := remove_unfinished(job.artefacts, {task.zone_id for task in tasks}):
        progress.note(f"{n_left} unfinished files of an interrupted run are removed")
    with ray_session(job.cluster):
        return run_zone_tasks(
            "acquire", tasks, job.artefacts, progress, overwrite=job.overwrite, wait_s=job.cluster.wait_s
        )


def artefacts(job: JobConfig) -> Iterator[Stamped]:
    """What the stage makes. A catalogue is asked which scenes it has."""
    if isinstance(job.imagery, EarthEngineSettings):
        yield from earth_engine.artefacts(job, job.imagery)
    elif isinstance(job.imagery, CompositeSettings):
        tasks = _cube_tasks(job, job.imagery.composites(), job_zones(job))
        yield from stamped("acquire", "acquire", tasks, job.artefacts)
    elif isinstance(job.imagery, SceneSettings):
        zones, cube = job_zones(job), job.cube_spec
        source = job.imagery.scenes(cube.bands)
        tasks = _tasks(job, source, zones, survey_zones(source, zones, job.season_start, cube))
        yield from stamped("acquire", "acquire", tasks, job.artefacts)


def _tasks(
    job: JobConfig, source: SceneSource, zones: Sequence[Zone], found: Mapping[str, Found]
) -> list[ZoneTask[ZoneAcquisition]]:
    assert job.imagery is not None
    workspace, code, tasks = job.artefacts, closure(acquire_zone, type(source)), []
    for zone in zones:
        scenes = found[zone.zone_id].scenes
        content = {
            "zone": zone_fingerprint(zone),
            "season": season_of(zone, job),
            **{f"scene {scene.scene_id}": str(scene.offsets) if scene.offsets else scene.offset for scene in scenes},
            "scenes": source.fingerprint(scenes),
            **job.cube_spec.in_content(),
        }
        make = partial(acquire_zone, source, zone, job.season_start, workspace, job.cube_spec)
        inputs = key_of(code, {"imagery": job.imagery}, content, apart=_CHOOSING)
        tasks.append(ZoneTask(zone.zone_id, make, inputs, _outputs(workspace, zone)))
    return tasks


def _cube_tasks(job: JobConfig, source: CompositeSource, zones: Sequence[Zone]) -> list[ZoneTask[ZoneAcquisition]]:
    assert job.imagery is not None
    workspace, code, tasks = job.artefacts, closure(acquire_cube, type(source)), []
    for zone in zones:
        season = steps_of(zone, job)
        content = {
            "zone": zone_fingerprint(zone),
            "season": season.first_month,
            "files": source.fingerprint(zone, season),
            **season.cube.in_content(),
        }
        make = partial(acquire_cube, source, zone, season, workspace)
        inputs = key_of(code, {"imagery": job.imagery}, content, apart=_CHOOSING)
        tasks.append(ZoneTask(zone.zone_id, make, inputs, _outputs(workspace, zone)))
    return tasks


def _outputs(workspace: Workspace, zone: Zone) -> tuple[Location, ...]:
    zone_id = zone.zone_id
    return workspace.composite(zone_id), workspace.n_obs(zone_id), workspace.acquisition_record(zone_id)


def _tell(
    job: JobConfig,
    settings: SceneSettings,
    source: SceneSource,
    zones: Sequence[Zone],
    found: Mapping[str, Found],
    progress: Progress,
) -> None:
    """Say what is not used of what lies there, and which steps have nothing."""
    scenes = [scene for each in found.values() for scene in each.scenes]
    left_out = gather_left_out(found.values(), source.never_used(scenes))
    left_out |= settings.unheard(left_out)
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
