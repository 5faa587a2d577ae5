"""`acquire`: scenes to gap-filled composites of every step of time, or ready cubes taken over, one zone a task."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cropray.cluster.clients import ClientPool
from cropray.cluster.session import ray_session, require_cpus
from cropray.cluster.settings import ClusterSettings
from cropray.cluster.zone_jobs import LOOK_AHEAD, ZoneTask, current_aside, on_ray, stamped
from cropray.config import JobConfig
from cropray.core.errors import ConfigError, StageFailedError
from cropray.core.progress import Progress
from cropray.imagery.acquire import ZoneAcquisition
from cropray.imagery.acquisition import Acquisition
from cropray.io.artefacts import Stamped
from cropray.stages.inputs import acquisition_of
from cropray.stages.preflight import Ahead, Check

_STAGE = "acquire"


def run(job: JobConfig, progress: Progress) -> None:
    """Write the composite and the observation counts of every zone.

    Raises:
        ConfigError: the job has no imagery, or there is no CPU that could run a task.
        InputError: no scene folder, scenes that cannot be used, or a season that has not ended.
        CroprayError: a service cannot be used at all.
        StageFailedError: some zones failed.
    """
    if job.imagery is None:
        raise ConfigError("this job reads 'points': there is nothing to acquire")
    work = acquisition_of(job)
    progress.stage(_STAGE, f"{work.title} for {len(work.order.zones)} zones")
    for line in work.announce():
        progress.note(line)
    tasks = _tasks(work)
    workspace, overwrite = work.order.workspace, job.overwrite
    todo = {t.zone_id: t for t in current_aside(_STAGE, tasks, workspace, progress, overwrite=overwrite)}
    for line in work.tidy(todo, overwrite=overwrite):
        progress.note(line)
    if todo:
        records, failures = _made(work, todo, job.cluster, progress)
        for line in work.conclude(records) if records else ():
            progress.note(line)
        if failures:
            raise StageFailedError(_STAGE, failures, len(tasks) - len(failures))


def _made(
    work: Acquisition[Any], todo: dict[str, ZoneTask[ZoneAcquisition]], cluster: ClusterSettings, progress: Progress
) -> tuple[list[ZoneAcquisition], dict[str, str]]:
    """(records of the zones that were made, zone → why it was not)."""
    quota, records, failures = work.settings.quota, [], {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(ray_session(cluster))
        require_cpus(1 if quota else min(len(todo), LOOK_AHEAD), cluster.wait_s)
        ask = stack.enter_context(ClientPool(work.client, *quota)).answers if quota else None
        zones = [zone for zone in work.order.zones if zone.zone_id in todo]
        ready = stack.enter_context(contextlib.closing(work.ready(zones, ask, progress)))
        # What a zone is made from may be known only now.
        tasks = (replace(todo[zone.zone_id], run=work.make(zone)) if zone else None for zone in ready)
        for done, outcome in enumerate(on_ray(tasks, _STAGE, work.order.workspace), start=1):
            if outcome.result is None:
                failures[outcome.zone_id] = str(outcome.error)
            else:
                records.append(outcome.result)
            work.ended(outcome.zone_id, (done, len(todo)), progress, is_made=outcome.error is None)
    return records, {**work.failures, **failures}


def artefacts(job: JobConfig) -> Iterator[Stamped]:
    """What the stage makes. A catalogue is asked which scenes it has."""
    if job.imagery is not None:
        work = acquisition_of(job)
        work.check()
        yield from stamped(_STAGE, _STAGE, _tasks(work), work.order.workspace)


def checks(job: JobConfig, ahead: Ahead) -> Iterator[Check]:
    """Looks at scenes or cubes; a service is asked once the work is its turn."""
    if job.imagery is not None and job.imagery.is_at_hand:
        yield lambda: acquisition_of(job, ahead.zones).check()


def _tasks(work: Acquisition[Any]) -> list[ZoneTask[ZoneAcquisition]]:
    return [
        ZoneTask(zone.zone_id, work.make(zone), work.inputs(zone), work.outputs(zone), earlier=work.earlier(zone))
        for zone in work.order.zones
    ]
