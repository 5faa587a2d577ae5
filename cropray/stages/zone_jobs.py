"""One function per zone on Ray: bounded in flight, failures collected, progress shown, what is current skipped."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import ray

from cropray.errors import CroprayError, StageFailedError
from cropray.progress import Progress
from cropray.storage import Location
from cropray.workspace import Workspace

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class ZoneTask(Generic[ResultT]):
    """One zone's work: a pure function without arguments, and what it writes."""

    zone_id: str
    run: Callable[[], ResultT]
    inputs: str
    """Fingerprint of everything the result depends on."""
    outputs: tuple[Location, ...]
    gpus: int = 0
    """That `run` uses; the task asks Ray for them."""


@dataclass(frozen=True, slots=True)
class ZoneOutcome(Generic[ResultT]):
    """What happened to one zone."""

    zone_id: str
    result: ResultT | None
    """None for a zone that was up to date."""
    error: str | None = None


def run_zone_tasks(
    stage: str,
    tasks: Sequence[ZoneTask[ResultT]],
    workspace: Workspace,
    progress: Progress,
    *,
    overwrite: bool = False,
) -> dict[str, ResultT]:
    """Run what is not up to date; every zone is tried even when others fail.

    Returns:
        zone → result, for the zones that were run.

    Raises:
        StageFailedError: some zones failed; it lists them.
    """
    todo = current_aside(stage, tasks, workspace, progress, overwrite=overwrite)
    results: dict[str, ResultT] = {}
    failures: dict[str, str] = {}
    for done, outcome in enumerate(_on_ray(todo, stage, workspace), start=1):
        if outcome.error is not None:
            failures[outcome.zone_id] = outcome.error
        else:
            results[outcome.zone_id] = outcome.result  # type: ignore[assignment]  # set whenever error is None
        progress.step(done, len(todo), outcome.zone_id, "zones")
    if failures:
        raise StageFailedError(stage, failures, len(tasks) - len(failures))
    return results


def current_aside(
    stage: str, tasks: Sequence[ZoneTask[ResultT]], workspace: Workspace, progress: Progress, *, overwrite: bool
) -> list[ZoneTask[ResultT]]:
    """The tasks that are not up to date, or all; their stamps are removed before anything changes."""
    todo = [t for t in tasks if overwrite or not workspace.is_current(stage, t.zone_id, t.inputs, t.outputs)]
    if len(todo) < len(tasks):
        progress.note(f"{len(tasks) - len(todo)} of {len(tasks)} zones are up to date and skipped")
    for task in todo:
        workspace.mark_stale(stage, task.zone_id)
    return todo


def _on_ray(tasks: Sequence[ZoneTask[ResultT]], stage: str, workspace: Workspace) -> Iterable[ZoneOutcome[ResultT]]:
    """Outcomes as they come; twice as many tasks in flight as CPUs, so that no worker waits for the driver."""
    if not tasks:
        return  # a stage with nothing to do need not start Ray
    limit = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
    waiting = list(reversed(tasks))
    running: dict[ray.ObjectRef, str] = {}
    while waiting or running:
        while waiting and len(running) < limit:
            task = waiting.pop()
            running[_remote_attempt.options(num_gpus=task.gpus).remote(task, stage, workspace)] = task.zone_id
        (ready,), _ = ray.wait(list(running), num_returns=1)
        zone_id = running.pop(ready)
        try:
            yield ray.get(ready)
        except ray.exceptions.RayError as error:  # the worker itself died
            yield ZoneOutcome(zone_id, None, f"{type(error).__name__}: {error}")


@ray.remote(num_cpus=1, max_retries=2)  # type: ignore[untyped-decorator]  # ray is untyped
def _remote_attempt(task: ZoneTask[ResultT], stage: str, workspace: Workspace) -> ZoneOutcome[ResultT]:
    return attempt_and_mark(task, stage, workspace)


def attempt_and_mark(task: ZoneTask[ResultT], stage: str, workspace: Workspace) -> ZoneOutcome[ResultT]:
    """Run one zone's work and mark it as finished where its files were written: a lost driver costs no such zone."""
    outcome = attempt(task)
    if outcome.error is None:
        workspace.mark_current(stage, task.zone_id, task.inputs)
    return outcome


def attempt(task: ZoneTask[ResultT]) -> ZoneOutcome[ResultT]:
    """Run one zone's work and turn its error into an outcome: the others must go on."""
    try:
        return ZoneOutcome(task.zone_id, task.run())
    except CroprayError as error:
        return ZoneOutcome(task.zone_id, None, str(error))
    except Exception as error:  # noqa: BLE001  the edge of a zone's job: recorded here, raised at the stage's end
        return ZoneOutcome(task.zone_id, None, f"{type(error).__name__}: {error}")
