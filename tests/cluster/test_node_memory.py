"""Memory of nodes: what Ray counts, and what is there."""

import pytest

from cropray.cluster import node_memory, placement
from cropray.cluster.node_memory import memory_of_workers

GIB = 2**30


def node(name, memory, store, cpus=4.0):
    resources = {"CPU": cpus, "memory": memory * GIB, "object_store_memory": store * GIB}
    return {"NodeID": name, "NodeManagerAddress": f"10.0.0.{ord(name)}", "Alive": True, "Resources": resources}


@pytest.fixture
def there(monkeypatch):
    """GiB that each node would find; the names of those that were asked."""
    found, asked = {}, []

    def system_memory(names):
        asked.extend(sorted(names))
        return {name: found[name] * GIB for name in names if name in found}

    monkeypatch.setattr(node_memory, "_system_memory", system_memory)
    return found, asked


@pytest.mark.parametrize(
    ("memory", "store", "has", "left"),
    [
        (56, 16.5, 56, 39.5),  # KubeRay: all of the container, and the store beside it
        (39.2, 16.8, 56, 39.2),  # Ray's own division
        (39.2, 10, 56, 39.2),  # a small /dev/shm: nothing is counted twice
        (50, 10, 56, 46),
        (80, 1, 56, 55),  # more than there is
        (30, 40, 56, 16),
        (8, 60, 56, 8),  # a store on a disk
    ],
)
def test_the_object_store_is_counted_once(there, memory, store, has, left):
    there[0]["a"] = has
    assert memory_of_workers([node("a", memory, store)]) == [pytest.approx(left * GIB)]


def test_only_doubtful_nodes_are_asked_and_a_silent_one_is_believed(there):
    there[0].update(a=56, b=56)
    nodes = [node("a", 56, 16), node("b", 39.2, 16.8), node("c", 20, 1)]
    assert memory_of_workers(nodes) == [pytest.approx(gib * GIB) for gib in (40, 39.2, 20)]
    assert there[1] == ["a", "c"]


def test_units_are_placed_by_it(there, monkeypatch):
    there[0]["a"] = 56
    monkeypatch.setattr(placement, "open_nodes", lambda: [node("a", 56, 16)])
    (seen,) = placement.live_nodes()
    assert (seen.cpus, seen.memory_bytes, seen.object_store_bytes) == (4, 40 * GIB, 16 * GIB)


@pytest.mark.ray
def test_a_node_says_what_it_has(ray_local):
    import ray
    from ray._common.utils import get_system_memory

    (one,) = ray.nodes()
    for address in (one["NodeManagerAddress"], "10.0.0.9"):  # known from here, and asked of the node
        assert node_memory._system_memory({one["NodeID"]: address}) == {one["NodeID"]: get_system_memory()}
    (seen,) = placement.live_nodes()
    assert seen.memory_bytes + seen.object_store_bytes <= get_system_memory()


def test_a_node_that_does_not_answer_is_named_and_waited_for_once(monkeypatch):
    """Every look at the nodes would take as long as the patience."""
    waits, answered = [], {"a"}

    def wait(refs, num_returns, timeout):
        waits.append((sorted(refs), timeout))
        ready = [ref for ref in refs if ref in answered]
        return ready, [ref for ref in refs if ref not in answered]

    monkeypatch.setattr(node_memory.ray.util, "get_node_ip_address", lambda: "10.0.0.1")
    monkeypatch.setattr(node_memory.ray, "wait", wait)
    monkeypatch.setattr(node_memory.ray, "get", lambda _: 56 * GIB)
    monkeypatch.setattr(node_memory, "_asked", lambda node_id: node_id)
    nodes = [node("a", 56, 16), node("b", 39.2, 16.8), node("c", 20, 1)]
    for _ in range(2):
        assert memory_of_workers(nodes) == [pytest.approx(gib * GIB) for gib in (40, 39.2, 20)]
        assert "no answer from 10.0.0.99 on their memory" in node_memory.silence()
    assert waits == [(["a", "c"], 60), (["a", "c"], 0), (["a"], 60), (["a", "c"], 0)]
    answered.add("c")
    memory_of_workers(nodes)
    assert node_memory.silence() == ""
