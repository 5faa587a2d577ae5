"""`acquire`: scenes to gap-filled monthly composites, one zone a task."""

from functools import partial
from pathlib import Path

from cropray.config import JobConfig
from cropray.errors import ConfigError
from cropray.imagery.acquire import acquire_zone, check_inputs
from cropray.imagery.files import FileScenes
from cropray.imagery.scenes import Season
from cropray.progress import Progress
from cropray.settings import fingerprint
from cropray.stages.cluster import ray_session
from cropray.stages.inputs import job_zones, season_of, source_fingerprint, zone_fingerprint
from cropray.stages.zone_jobs import ZoneTask, run_zone_tasks
from cropray.workspace import code_hash
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
    zones, workspace = job_zones(job), job.artefacts
    progress.stage("acquire", f"monthly medians of {job.imagery.folder} for {len(zones)} zones")
    source = FileScenes(job.imagery)
    check_inputs(source, zones, job.season_start)
    code = code_hash("imagery", "bands", "grid")
    tasks = [
        ZoneTask(
            zone.zone_id,
            partial(acquire_zone, source, zone, job.season_start, workspace),
            fingerprint([zone_fingerprint(zone), job.season_start, code, _scenes_fingerprint(source, zone, job)]),
            (workspace.composite(zone.zone_id), workspace.n_obs(zone.zone_id)),
        )
        for zone in zones
    ]
    with ray_session(job.cluster):
        results = run_zone_tasks("acquire", tasks, workspace, progress, overwrite=job.overwrite)
    if results:
        clear = sum(result.share_clear for result in results.values()) / len(results)
        progress.note(f"{clear:.0%} of the pixel-months were observed; the rest was filled in time")


def _scenes_fingerprint(source: FileScenes, zone: Zone, job: JobConfig) -> str:
    season = Season(season_of(zone, job))
    return source_fingerprint([Path(scene.href) for scene in source.find(zone.grid, season.start, season.end)])
