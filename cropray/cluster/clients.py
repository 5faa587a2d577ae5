"""Clients of a service that limits how it is asked: each in a process of its own on Ray, all under one limit."""

import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import ray

from cropray.cluster.session import ask_nodes
from cropray.cluster.tasks import run_tasks
from cropray.core.errors import CroprayError

_CPUS: Final = 0.01  # a client waits for the network: as many as the service allows may stand on one core
_MAX_DEATHS: Final = 3  # of workers over one unit, before the unit is given up

Connect = Callable[[Callable[[], None]], Callable[[Any], Any]]
"""Makes a client, which answers one unit of work after another; it is given what returns when a request may be sent."""


class ClientPool:
    """At most so many clients, started when they are needed and stopped with the block."""

    def __init__(self, connect: Connect, n_clients: int, per_s: float) -> None:
        """Args: connect: picklable; n_clients: requests in flight; per_s: requests begun per second."""
        self._connect, self._n_clients = connect, n_clients
        # Its node may be lost; what it knows, the next turn, may begin anew.
        self._turns = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Turns).remote(per_s)
        self._idle: list[Any] = []
        self._busy: dict[Any, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in [*self._idle, *self._busy.values(), self._turns]:
            ray.kill(actor)

    def answers(self, units: Iterable[Any]) -> Iterator[tuple[Any, Any, str | None]]:
        """(unit, answer, why there is none), as they come, of hashable units, all different.

        A unit whose worker died is given to another one.
        """
        for unit, answer, error in run_tasks(units, self._submit, lambda: self._n_clients, _MAX_DEATHS):
            if isinstance(error, ray.exceptions.RayTaskError):  # no death: the client is at fault, for every unit
                raise (error.cause if isinstance(error.cause, CroprayError) else error) from None
            client = self._busy.pop(unit)
            if error is None:
                self._idle.append(client)
            yield unit, answer, error and f"its worker died {_MAX_DEATHS} times, the last time so: {error}"

    def _submit(self, unit: Any) -> "ray.ObjectRef[Any]":
        client = (
            self._idle.pop() if self._idle else ray.remote(num_cpus=_CPUS)(_Client).remote(self._connect, self._turns)
        )
        self._busy[unit] = client  # one that died over this unit is forgotten
        answer: ray.ObjectRef[Any] = client.work.remote(unit)
        return answer


class _Turns:
    """The rate of the whole cluster: turns are handed out one after the other, evenly spaced."""

    def __init__(self, per_s: float) -> None:
        self._spacing_s = 1 / per_s
        self._next = time.monotonic()

    def take(self) -> float:
        """Seconds until the caller's turn."""
        now = time.monotonic()
        turn = max(now, self._next)
        self._next = turn + self._spacing_s
        return turn - now


class _Client:
    """One process with one client, one request at a time."""

    def __init__(self, connect: Connect, turns: Any) -> None:
        self._ask = connect(lambda: time.sleep(ray.get(turns.take.remote())))

    def work(self, unit: Any) -> Any:
        """Do one unit."""
        return self._ask(unit)


def connect_everywhere(connect: Callable[[], str]) -> str:
    """Connect once on every node that clients may run on, with the node's own credentials; what they say of it.

    Raises:
        CroprayError: a node has no access, or does not answer; it is named.
    """
    said = ask_nodes(connect, lambda has: has.get("CPU", 0) >= _CPUS)
    return f"{', '.join(sorted({*said.values()}))} from {len(said)} nodes"
