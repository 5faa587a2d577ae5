"""A pool of Earth Engine clients on Ray: each in a process of its own, all of them under one limit."""

import os
import platform
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import ray

from cropray.cluster.session import ask_nodes
from cropray.core.cube import Season
from cropray.core.errors import CroprayError
from cropray.imagery.sources.earth_engine.client import EarthEngine
from cropray.imagery.sources.earth_engine.ledger import LISTING, Account, UnitOutcome
from cropray.imagery.sources.earth_engine.months import MonthUnit, write_month
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone

_CPUS: Final = 0.01  # a client waits for the network: as many as the service allows may stand on one core
_MAX_DEATHS: Final = 3  # of workers over one unit, before the unit is given up


@dataclass(frozen=True, slots=True)
class ListingUnit:
    """The scenes of one zone: what one request asks for."""

    zone: Zone
    season: Season

    @property
    def zone_id(self) -> str:
        """The zone's id."""
        return self.zone.zone_id


Unit = ListingUnit | MonthUnit


class ClientPool:
    """At most `max_concurrent` clients, started when they are needed and stopped with the block."""

    def __init__(self, settings: EarthEngineSettings, workspace: Workspace) -> None:
        self._settings = settings
        self._workspace = workspace
        # Its node may be lost; what it knows, the next turn, may begin anew.
        turns = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Turns)
        self._turns = turns.remote(settings.max_requests_per_s)
        self._clients: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in [*self._clients, self._turns]:
            ray.kill(actor)

    def outcomes(self, units: Iterable[Unit]) -> Iterator[UnitOutcome]:
        """What became of each unit, as they come. A unit whose worker died is given to another one."""
        waiting = deque(units)
        idle = list(self._clients)
        running: dict[ray.ObjectRef, tuple[Any, Unit]] = {}
        deaths: Counter[Unit] = Counter()
        while waiting or running:
            while waiting and (idle or len(self._clients) < self._settings.max_concurrent):
                client, unit = idle.pop() if idle else self._start(), waiting.popleft()
                running[client.work.remote(unit)] = client, unit
            (ready,), _ = ray.wait(list(running), num_returns=1)
            client, unit = running.pop(ready)
            try:
                outcome = ray.get(ready)
            except ray.exceptions.RayActorError as error:
                self._clients.remove(client)
                deaths[unit] += 1
                if deaths[unit] < _MAX_DEATHS:
                    waiting.appendleft(unit)
                else:
                    yield _failed(unit, f"its worker died {_MAX_DEATHS} times, the last time so: {error}")
            else:
                idle.append(client)
                yield outcome

    def _start(self) -> Any:
        client = ray.remote(num_cpus=_CPUS)(_Client).remote(self._settings, self._turns, self._workspace)
        self._clients.append(client)
        return client


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

    def __init__(self, settings: EarthEngineSettings, turns: Any, workspace: Workspace) -> None:
        self._settings = settings
        self._turns = turns
        self._workspace = workspace
        self._earth_engine: EarthEngine | None = None

    def work(self, unit: Unit) -> UnitOutcome:
        """Do one unit; its errors become part of the outcome."""
        started = time.monotonic()
        try:
            if self._earth_engine is None:
                self._earth_engine = EarthEngine(self._settings, self._take_turn)
        except CroprayError as error:
            return _failed(unit, f"{error} (node {platform.node()})", is_cut_off=True)
        assets: tuple[str, ...] = ()
        message = None
        try:
            if isinstance(unit, ListingUnit):
                assets = self._earth_engine.list_assets(unit.zone.grid, unit.season)
            else:
                write_month(self._workspace, unit, self._earth_engine.month(unit))
        except CroprayError as error:
            message = str(error)
        except Exception as error:  # noqa: BLE001  the edge of a unit: recorded, the others go on
            message = f"{type(error).__name__}: {error}"
        account, seconds = self._earth_engine.take_account(), time.monotonic() - started
        return UnitOutcome(unit.zone_id, _unit_name(unit), account, seconds, message, assets)

    def _take_turn(self) -> None:
        time.sleep(ray.get(self._turns.take.remote()))


def _failed(unit: Unit, error: str, *, is_cut_off: bool = False) -> UnitOutcome:
    return UnitOutcome(unit.zone_id, _unit_name(unit), Account(), 0.0, error, is_cut_off=is_cut_off)


def _unit_name(unit: Unit) -> str:
    return LISTING if isinstance(unit, ListingUnit) else unit.month


def check_access(settings: EarthEngineSettings) -> str:
    """Connect once on every node that clients may run on, with the node's own credentials.

    Raises:
        CroprayError: a node has no access, or does not answer; it is named.
    """
    n_nodes = len(ask_nodes(partial(_connect, settings), lambda has: has.get("CPU", 0) >= _CPUS))
    return f"project '{settings.project}' can be used from {n_nodes} nodes"


def _connect(settings: EarthEngineSettings) -> int:
    EarthEngine(settings)
    return os.getpid()
