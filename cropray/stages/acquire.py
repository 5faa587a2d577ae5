"""`acquire`: scenes to gap-filled monthly composites, one zone a task."""

from functools import partial

from cropray.config import JobConfig
from cropray.errors import ConfigError
from cropray.imagery.acquire import acquire_zone, check_inputs, describe_clear
from cropray.imagery.earth_engine_settings import EarthEngineSettings
from cropray.imagery.sources import SceneSettings, describe, scene_source
from cropray.progress import Progress
from cropray.settings import fingerprint
from cropray.stages import earth_engine
from cropray.stages.cluster import ray_session
from cropray.stages.inputs import job_zones, zone_fingerprint
from cropray.stages.zone_jobs import ZoneTask, run_zone_tasks
from cropray.workspace import code_hash


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
    else:
        _run_scenes(job, job.imagery, progress)


def _run_scenes(job: JobConfig, settings: SceneSettings, progress: Progress) -> None:
    zones, workspace = job_zones(job), job.artefacts
    progress.stage("acquire", f"monthly medians of {describe(settings)} for {len(zones)} zones")
    source = scene_source(settings)
    found = check_inputs(source, zones, job.season_start)
    code = code_hash("imagery", "bands", "grid")
    tasks = [
        ZoneTask(
            zone.zone_id,
            partial(acquire_zone, source, zone, job.season_start, workspace),
            fingerprint([zone_fingerprint(zone), job.season_start, code, source.fingerprint(found[zone.zone_id])]),
            (workspace.composite(zone.zone_id), workspace.n_obs(zone.zone_id)),
        )
        for zone in zones
    ]
    with ray_session(job.cluster):
        results = run_zone_tasks(
            "acquire", tasks, workspace, progress, overwrite=job.overwrite, wait_s=job.cluster.wait_s
        )
    if results:
        progress.note(describe_clear(results.values()))
