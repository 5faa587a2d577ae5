"""One function per zone on Ray: bounded in flight, failures collected, progress shown, what is current skipped."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import ray

from cropray.cluster.placement import WORKERS_SHARE, live_nodes
from cropray.cluster.session import require_cpus
from cropray.cluster.tasks import run_tasks
from cropray.core.errors import CroprayError, StageFailedError
from cropray.core.keys import Key
from cropray.core.progress import Progress
from cropray.io.artefacts import Stamped, describe_again
from cropray.io.storage import Location
from cropray.io.workspace import Workspace

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
_N_THREADS: Final = 16

LOOK_AHEAD: Final = 128
"""Tasks that Ray knows of at least, however few CPUs it has: an autoscaler adds nodes for tasks that wait, and for no others."""


@dataclass(frozen=True, slots=True)
class ZoneTask(Generic[ResultT]):
    """One zone's work: a pure function without arguments, and what it writes."""

    zone_id: str
    run: Callable[[], ResultT]
    inputs: Key
    """Account of everything the result depends on."""
    outputs: tuple[Location, ...]
    gpus: int = 0
    """That `run` uses; the task asks Ray for them."""
    earlier: str | None = None
    """See `Workspace.why_stale`."""


@dataclass(frozen=True, slots=True)
class ZoneOutcome(Generic[ResultT]):
    """What happened to one zone."""

    zone_id: str
    result: ResultT | None
    """None for a zone that was up to date."""
    error: str | None = None


def task_bytes() -> float:
    """Memory that each zone's task may take where a task runs on every CPU: of the node with the smallest share."""
    nodes = [node for node in live_nodes() if node.cpus and node.memory_bytes]
    return min((WORKERS_SHARE * node.memory_bytes / node.cpus for node in nodes), default=math.inf)


def run_zone_tasks(
    stage: str,
    tasks: Sequence[ZoneTask[ResultT]],
    workspace: Workspace,
    progress: Progress,
    *,
    overwrite: bool = False,
    wait_s: float = 0.0,
) -> dict[str, ResultT]:
    """Run what is not up to date, or all to `overwrite`; every zone is tried even when others fail.

    A cluster without any CPU is waited for `wait_s` seconds (`cluster.wait_s`). Finished zones are marked in the workspace.

    Returns:
        zone → result, for the zones that were run.

    Raises:
        ConfigError: there is no CPU that could run a task.
        StageFailedError: some zones failed; it lists them.
    """
    todo = current_aside(stage, tasks, workspace, progress, overwrite=overwrite)
    if not todo:
        return {}  # a stage with nothing to do need not start Ray
    require_cpus(min(len(todo), LOOK_AHEAD), wait_s)
    results: dict[str, ResultT] = {}
    failures: dict[str, str] = {}
    for done, outcome in enumerate(on_ray(todo, stage, workspace), start=1):
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
    todo = tasks
    if not overwrite:
        reasons = in_threads(lambda t: workspace.why_stale(stage, t.zone_id, t.inputs, t.outputs, t.earlier), tasks)
        stale = {task.zone_id: why[0] for task, why in zip(tasks, reasons, strict=True) if why}
        todo = [task for task in tasks if task.zone_id in stale]
        if len(todo) < len(tasks):
            progress.note(f"{len(tasks) - len(todo)} of {len(tasks)} zones are up to date and skipped")
        if why_again := describe_again(stale, len(tasks)):
            progress.note(why_again)
    in_threads(lambda task: workspace.mark_stale(stage, task.zone_id), todo)
    return list(todo)


def stamped(group: str, stage: str, tasks: Iterable[ZoneTask[ResultT]], workspace: Workspace) -> Iterator[Stamped]:
    """The artefacts of zones' tasks, for `cropray why`; `stage` is the name of their stamps."""
    for task in tasks:
        yield Stamped(group, task.zone_id, workspace, (stage, task.zone_id), task.inputs, task.outputs, task.earlier)


def in_threads(function: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> list[ResultT]:
    """The results of many small things that wait for a disk or a store, in the order of the items."""
    with ThreadPoolExecutor(_N_THREADS) as pool:
        return list(pool.map(function, items))


def in_flight(n_cpus: float) -> int:
    """Tasks that Ray is given at a time: twice as many as CPUs, so that no worker waits for the driver, and some ahead."""
    return max(LOOK_AHEAD, 2 * int(n_cpus))


def on_ray(
    tasks: Iterable[ZoneTask[ResultT] | None], stage: str, workspace: Workspace
) -> Iterator[ZoneOutcome[ResultT]]:
    """Outcomes as they come, with as many tasks (see `run_tasks`) in flight as the cluster takes at that moment.

    Each worker marks its own as finished, as the stage's in the workspace.
    """

    def submit(task: ZoneTask[ResultT]) -> "ray.ObjectRef[ZoneOutcome[ResultT]]":
        answer: ray.ObjectRef[ZoneOutcome[ResultT]]
        answer = _remote_attempt.options(num_gpus=task.gpus).remote(task, stage, workspace)
        return answer

    for task, outcome, death in run_tasks(tasks, submit, lambda: in_flight(ray.cluster_resources().get("CPU", 0))):
        yield ZoneOutcome(task.zone_id, None, f"{type(death).__name__}: {death}") if death else outcome


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
