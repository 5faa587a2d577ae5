"""Memory of nodes beside their object stores, where Ray was told more than there is.

Ray takes its object store off the memory that it finds, and leaves a number that it is given as it is. KubeRay gives it
the whole of a container's limit, so that store and workers together could take 1.3 times the container.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import ray
from ray._common.utils import get_system_memory  # as Ray itself measures it, a container's limit included
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

STORE_SHARE: Final = 0.3
"""Of memory and store together, where Ray itself divides them; source: Ray's documentation."""
_ROUNDING: Final = 0.005
_PATIENCE_S: Final = 60.0
_silent: Final[dict[str, str]] = {}  # node → address, of those that have not answered; none is waited for twice


def memory_of_workers(nodes: Sequence[Mapping[str, Any]]) -> list[float]:
    """Bytes of memory that each node has beside its object store, of Ray's records of living nodes."""
    counted = [(_amount(node, "memory"), _amount(node, "object_store_memory")) for node in nodes]
    doubtful = {
        node["NodeID"]: node["NodeManagerAddress"]
        for node, (memory, store) in zip(nodes, counted, strict=True)
        if store and abs(store - STORE_SHARE * (memory + store)) > _ROUNDING * (memory + store)
    }
    found = _system_memory(doubtful)
    return [
        _beside(memory, store, found.get(node["NodeID"], math.inf))
        for node, (memory, store) in zip(nodes, counted, strict=True)
    ]


def silence() -> str:
    """What to tell of nodes that have not said how much memory they have; empty where all have, or need not."""
    if not _silent:
        return ""
    named = ", ".join(sorted(_silent.values()))
    return f"no answer from {named} on their memory: what Ray was told of it counts, which may be more than there is"


def _beside(memory: float, store: float, there: float) -> float:
    """A store that is larger than all memory lies on a disk."""
    return min(memory, there if store >= there else there - store)


def _amount(node: Mapping[str, Any], name: str) -> float:
    return float(node["Resources"].get(name, 0.0))


def _system_memory(nodes: Mapping[str, str]) -> dict[str, float]:
    """Node → bytes that it, or its container, has, of node → address; nodes that do not answer are left out."""
    early = _silent.keys() & nodes
    _silent.clear()
    if not nodes:
        return {}
    here = {"127.0.0.1", ray.util.get_node_ip_address()}
    found = {node_id: _measure() for node_id, address in nodes.items() if address in here}
    asked = {_asked(node_id): node_id for node_id in nodes if node_id not in found}
    for patience_s, refs in ((_PATIENCE_S, [ref for ref in asked if asked[ref] not in early]), (0.0, list(asked))):
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=patience_s) if refs else ([], [])
    for ref in ready:
        try:
            found[asked[ref]] = ray.get(ref)
        except ray.exceptions.RayError:  # the node went
            continue
    _silent.update({node_id: address for node_id, address in nodes.items() if node_id not in found})
    return found


@cache  # nodes do not change, and none is ever named like another one
def _asked(node_id: str) -> "ray.ObjectRef[float]":
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    answer: ray.ObjectRef[float] = ray.remote(num_cpus=0)(_measure).options(scheduling_strategy=there).remote()
    return answer


def _measure() -> float:
    return float(get_system_memory())
