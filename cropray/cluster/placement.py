"""How many units run at once, so that none ever waits for what another one holds.

A unit is a trial of Ray Tune. Without workers it trains inside its trial. With workers the trial only drives: it sits
on the head node and takes no CPU, and Ray places its worker group whole or not at all. Everything that takes CPUs is
therefore the same bundle, which makes the count exact: a node holds so many bundles, whatever the order in which Ray
fills the nodes. Beside them some node must always keep room for the tasks that running units wait for: zones that are
still being read when the first unit starts, or that are read again.

What counts is the cluster as it is when the search starts. Nodes that an autoscaler could still add are not seen, so it
is asked for them first and waited for (`place_when_ready`). A cluster that then loses nodes
for good holds fewer units than were counted: the others wait for their turn, and where worker groups fill the nodes
that are left, room for reading is no longer sure. The search, run again, counts anew and repeats no finished unit.

A node whose preemption is announced is not counted: Ray begins nothing new there. A unit that it has already works on to
the end of the notice, and so do units that follow it in the same process: what they keep goes on elsewhere, so that the
notice is not lost. Tune does not count that among a unit's failures.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import ray
from ray.autoscaler.sdk import request_resources
from ray.util.client import ray as client

from cropray.cluster.node_memory import memory_of_workers
from cropray.cluster.resources import GB, Need
from cropray.core.errors import ConfigError

HEAD: Final = {"node:__internal_head__": 0.001}  # Ray's own mark of the head node, as Ray Train uses it for its actors
_POLL_S: Final = 1.0
_MEMORY_STEP: Final = 1e8  # bytes, of proposed settings
_STEPS: Final = 10_000  # Ray counts resources in steps of 1/10,000
# Of a node's memory beside its object store; the rest is for drivers, Ray and reading. At 95 % of everything Ray's
# memory monitor ends a worker, so that is where no node should come.
WORKERS_SHARE: Final = 0.85


@dataclass(frozen=True, slots=True)
class Node:
    """What one node of the cluster has, in use or not."""

    cpus: float
    gpus: float = 0.0
    object_store_bytes: float = 0.0
    memory_bytes: float = math.inf
    """Beside the object store; inf: not known."""


class Fitting(Protocol):
    """Settings of what is fitted: a family's."""

    def need(self) -> Need:
        """What a unit asks for."""


def need_of(model: str, settings: Fitting) -> Need:
    """What a unit of a family asks for; where it takes its share of the CPUs, the least: `share_cpus` gives it more."""
    return replace(settings.need(), model=model)


@dataclass(frozen=True, slots=True)
class Placement:
    """What one unit takes, and how many units run at once. Units of equal placements may run side by side."""

    num_workers: int
    """0: the unit trains in its trial."""
    cpus_per_worker: float
    """CPUs that each worker, or the trial, uses."""
    gpus_per_worker: float
    trial_cpus: float
    """CPUs that the trial itself asks Ray for: 0 where it only drives, and up to one reading task less than it uses
    where all units together would leave no CPU for reading."""
    max_concurrent: int
    cpus_left: float
    """CPUs that nothing asks for while all these units run; one node has enough of them for a reading task."""
    memory_bytes: float = math.inf
    """Memory that each worker, or the trial, may take; inf: not known."""
    asked_memory_bytes: float = 0.0
    """Memory that each of them asks Ray for; 0 where the settings give none."""

    @property
    def cpus_per_unit(self) -> float:
        """CPUs that a unit and its workers use."""
        return max(self.num_workers, 1) * self.cpus_per_worker

    @property
    def trial_resources(self) -> dict[str, float]:
        """What Tune asks Ray for, per trial."""
        if self.num_workers:
            return dict(HEAD)
        asked = {"CPU": self.trial_cpus, "GPU": self.gpus_per_worker}
        return {**asked, "memory": int(self.asked_memory_bytes)} if self.asked_memory_bytes else asked

    def __str__(self) -> str:
        """For the user, in words."""
        workers = f"{_plural(self.num_workers, 'worker')} × " if self.num_workers else ""
        needs = _amount(self.cpus_per_worker, self.gpus_per_worker)
        if math.isfinite(self.memory_bytes):
            needs += f" and at most {self.memory_bytes / GB:.3g} GB of memory"
        return (
            f"{_plural(self.max_concurrent, 'unit')} at a time, each {workers}{needs}; "
            f"{_plural(self.cpus_left, 'CPU')} left for reading"
        )


def open_nodes() -> list[dict[str, Any]]:
    """Ray's records of the nodes on which something can begin: they live, and no preemption of them is announced."""
    # Ray has no public way to ask; Ray Train asks like this. A client (`ray://…`) cannot: it sees all that live.
    draining = {} if client.is_connected() else ray._private.state.state.get_draining_nodes()  # noqa: SLF001
    return [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in draining]


def live_nodes() -> tuple[Node, ...]:
    """What the open nodes of the Ray that is connected have."""
    nodes = open_nodes()
    return tuple(
        Node(has.get("CPU", 0.0), has.get("GPU", 0.0), has.get("object_store_memory", 0.0), memory)
        for has, memory in zip((node["Resources"] for node in nodes), memory_of_workers(nodes), strict=True)
    )


def place_units(nodes: Sequence[Node], need: Need, limit: int | None) -> Placement:
    """Compute how many units run at once, from what each living node has; at most `limit`, None: no limit.

    Workers of a unit may sit on several nodes, one worker may not.

    Raises:
        ConfigError: not even one unit is sure to run; it would wait for ever.
    """
    room = Counter(_Room(_steps(node.cpus), _steps(node.gpus), node.memory_bytes) for node in nodes)
    fits, asked = _count(room, need, limit)
    if fits < 1:
        raise ConfigError(_refusal(room, need))
    bundle = _Bundle(asked, _steps(need.gpus), need.memory_bytes)
    left = sum(n_nodes * node.cpus for node, n_nodes in room.items()) - fits * need.n_bundles * asked
    return Placement(
        num_workers=need.num_workers,
        cpus_per_worker=need.cpus,
        gpus_per_worker=need.gpus,
        trial_cpus=0.0 if need.num_workers else asked / _STEPS,
        max_concurrent=fits,
        cpus_left=left / _STEPS,
        memory_bytes=need.memory_bytes or _share(room, bundle, fits * need.n_bundles),
        asked_memory_bytes=need.memory_bytes,
    )


def share_cpus(nodes: Sequence[Node], need: Need, placement: Placement, n_units: int) -> Placement:
    """The same placement with as many CPUs for each unit as let just as many of `n_units` run at once.

    `need` has the CPUs that a unit takes at least; a refit may be the only unit, which then has all of a node.
    """
    room = Counter(_Room(_steps(node.cpus), _steps(node.gpus), node.memory_bytes) for node in nodes)
    at_once = min(n_units, placement.max_concurrent)
    for cpus in range(int(max((node.cpus for node in nodes), default=0)), int(need.cpus), -1):
        wider = replace(need, cpus=float(cpus))
        if _count(room, wider, at_once)[0] == at_once:
            # What a unit may take of the memory was told, and decides where bins are kept: it stays.
            return replace(place_units(nodes, wider, at_once), memory_bytes=placement.memory_bytes)
    return placement


def place_when_ready(need: Need, limit: int | None, wait_s: float) -> Placement:
    """`place_units` on the connected cluster, once it holds the units that are wanted or the time is up.

    An autoscaler is asked for nodes; another cluster is waited for as well, should nodes be on their way, `wait_s` seconds.
    Where `limit` is None, one unit is enough to begin, and more are taken where they fit.

    Raises:
        ConfigError: not even one unit is sure to run when the time is up.
    """
    until = time.monotonic() + wait_s
    is_asked = False
    try:
        while True:
            try:
                placement = place_units(live_nodes(), need, limit)
            except ConfigError as error:
                if time.monotonic() >= until:
                    raise ConfigError(
                        f"{error}. An autoscaler is asked for nodes for cluster.wait_s = {wait_s:g} s; "
                        f"900 or more give it time to start some"
                    ) from None
            else:
                if placement.max_concurrent >= (limit or 1) or time.monotonic() >= until:
                    return placement
            if not is_asked:
                is_asked = True
                request_resources(bundles=need.bundles(limit or 1))
            time.sleep(_POLL_S)
    finally:
        if is_asked:
            request_resources(num_cpus=0)  # from here on the units themselves keep the nodes


@dataclass(frozen=True, slots=True)
class _Bundle:
    """What a worker, or a trial, asks for: CPUs and GPUs in Ray's steps, memory in bytes."""

    cpus: int
    gpus: int
    memory: float


@dataclass(frozen=True, slots=True)
class _Room:
    """One node: CPUs and GPUs in Ray's steps, memory in bytes."""

    cpus: int
    gpus: int
    memory: float

    def bundles(self, bundle: _Bundle) -> int:
        """Bundles that fit here."""
        fits = self.cpus // bundle.cpus
        if bundle.gpus:
            fits = min(fits, self.gpus // bundle.gpus)
        if bundle.memory and math.isfinite(self.memory):
            fits = min(fits, int(self.memory // bundle.memory))
        return fits

    def blocked_by(self, bundle: _Bundle, task: int) -> int | None:
        """Least number of bundles that leaves no room for a task here; None: there is always room."""
        least = max((self.cpus - task) // bundle.cpus + 1, 0)
        return least if least <= self.bundles(bundle) else None

    def asked(self, bundle: _Bundle, task: int) -> int:
        """CPUs per bundle with which as many bundles leave room for a task here; 0: there is no such number."""
        n = self.bundles(bundle)
        return max(self.cpus - task, 0) // n if n else 0


def _count(room: Mapping[_Room, int], need: Need, limit: int | None) -> tuple[int, int]:
    """(units at once, CPUs that each bundle asks for, in Ray's steps)."""
    bundle = _Bundle(max(_steps(need.cpus), 1), _steps(need.gpus), need.memory_bytes)
    task = _steps(need.task_cpus)
    wanted = _fitting(room, bundle) // need.n_bundles
    wanted = wanted if limit is None else min(wanted, limit)
    asked = bundle.cpus
    if need.num_workers == 0 and wanted > _readable(room, bundle, task):
        # A laptop with two CPUs runs two units, each of which asks for a little less than it uses.
        asked = max(node.asked(bundle, task) for node in room) or asked
    return min(wanted, _readable(room, replace(bundle, cpus=asked), task) // need.n_bundles), asked


def _fitting(room: Mapping[_Room, int], bundle: _Bundle) -> int:
    """Bundles that fit on all nodes."""
    return sum(n_nodes * node.bundles(bundle) for node, n_nodes in room.items())


def _readable(room: Mapping[_Room, int], bundle: _Bundle, task: int) -> int:
    """Bundles that may sit anywhere and still leave some node with room for a task."""
    blocked = 0
    for node, n_nodes in room.items():
        here = node.blocked_by(bundle, task)
        if here is None:
            return _fitting(room, bundle)
        blocked += n_nodes * here
    return max(blocked - 1, 0)


def _share(room: Mapping[_Room, int], bundle: _Bundle, n_bundles: int) -> float:
    """Memory of a bundle where as many as can sit on one node do so."""
    shares = [node.memory / min(node.bundles(bundle), n_bundles) for node in room if node.bundles(bundle)]
    return WORKERS_SHARE * min(shares)


def _refusal(room: Mapping[_Room, int], need: Need) -> str:
    """Why no unit can run, node by node, and what to change."""
    n, each = need.n_bundles, _amount(need.cpus, need.gpus, need.memory_bytes)
    unit = f"{_plural(n, 'worker')} of {each}" if need.num_workers else each
    kinds: Counter[str] = Counter()
    for node, n_nodes in room.items():
        kinds[_amount(node.cpus / _STEPS, node.gpus / _STEPS, node.memory if need.memory_bytes else 0)] += n_nodes
    has = ", ".join(f"{_plural(n_nodes, 'node')} of {what}" for what, n_nodes in kinds.items()) or "no node"
    return (
        f"one {need.model} unit needs {unit}, each on one node, and {need.task_cpus:g} CPU free for reading beside "
        f"them; the cluster has {has}: it would wait for ever. {_remedy(room, need)}"
    )


def _remedy(room: Mapping[_Room, int], need: Need) -> str:
    """Settings that one unit would run with, each with the largest value that does."""
    step = need.cpu_step
    workers = [replace(need, num_workers=n) for n in range(need.num_workers - 1, need.least_workers - 1, -1)]
    thinner = [replace(need, cpus=n * step) for n in range(math.ceil(need.cpus / step) - 1, 0, -1)]
    ways = [
        (f"{need.model}.num_workers to {{0.num_workers}}", workers),
        (f"{need.model}.cpus_per_worker to {{0.cpus:g}}", thinner),
        (f"{need.model}.memory_gb to {{0.memory_gb:g}}", _with_less_memory(room, need)),
        (f"{need.model}.{need.gpu_setting} to {need.without_gpu}", [replace(need, gpus=0.0)] if need.gpus else []),
        (
            f"{need.model}.num_workers to {{0.num_workers}} and cpus_per_worker to {{0.cpus:g}}",
            [replace(few, cpus=thin.cpus) for few in workers for thin in thinner],
        ),
    ]
    found = [way.format(best) for way, values in ways if (best := _first(room, values)) is not None]
    single = [way for way in found if " and " not in way] or found
    add = "add nodes (an autoscaler's count when they are there: see its min_workers)"
    return f"Set {' or '.join(single)}, or {add}" if single else f"{add[0].upper()}{add[1:]}"


def _with_less_memory(room: Mapping[_Room, int], need: Need) -> list[Need]:
    """The need with the parts of a node that are less than it asks for, largest first."""
    if not need.memory_bytes:
        return []
    known = [node.memory for node in room if math.isfinite(node.memory)]
    parts = {math.floor(memory / n / _MEMORY_STEP) for memory in known for n in range(1, need.n_bundles + 1)}
    return [
        replace(need, memory_bytes=part * _MEMORY_STEP)
        for part in sorted(parts, reverse=True)
        if 0 < part * _MEMORY_STEP < need.memory_bytes
    ]


def _first(room: Mapping[_Room, int], needs: Iterable[Need]) -> Need | None:
    return next((need for need in needs if _count(room, need, 1)[0]), None)


def _amount(cpus: float, gpus: float, memory: float = 0.0) -> str:
    amount = _plural(cpus, "CPU") + (f" + {_plural(gpus, 'GPU')}" if gpus else "")
    return f"{amount} + {memory / GB:.3g} GB of memory" if memory else amount


def _plural(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def _steps(amount: float) -> int:
    return round(amount * _STEPS)
