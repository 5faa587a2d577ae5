"""Tasks on Ray: bounded in flight, with answers as they come, and the death of a worker as an answer like any other."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import ray

TaskT = TypeVar("TaskT")
_LOOK_S: Final = 10.0  # longest time after which nodes that came, or went, are noticed


def run_tasks(
    tasks: Iterable[TaskT | None],
    submit: Callable[[TaskT], "ray.ObjectRef[Any]"],
    limit: Callable[[], int],
    most_deaths: int = 1,
) -> Iterator[tuple[TaskT, Any, ray.exceptions.RayError | None]]:
    """Submit tasks while there is room for them, and give (task, its answer, what Ray says where it has none).

    Tasks are taken one by one, when there is room; None: there is none yet, and time passed to find that out. `limit` says
    how many may be in flight now, `most_deaths` how many actors may die over one task before it is given up.
    """
    feed, is_open = iter(tasks), True
    running: dict[ray.ObjectRef[Any], tuple[TaskT, int]] = {}
    while is_open or running:
        most, patience_s = limit(), _LOOK_S
        while is_open and patience_s and len(running) < most:
            try:
                task = next(feed)
            except StopIteration:
                is_open = False
            else:
                patience_s = _LOOK_S if task is not None else 0.0
                running |= {} if task is None else {submit(task): (task, 1)}
        for ref in ray.wait(list(running), num_returns=1, timeout=patience_s)[0] if running else ():
            task, deaths = running.pop(ref)
            try:
                answer, error = ray.get(ref), None
            except ray.exceptions.RayError as raised:
                answer, error = None, raised
            if isinstance(error, ray.exceptions.RayActorError) and deaths < most_deaths:
                running[submit(task)] = task, deaths + 1
            else:
                yield task, answer, error
