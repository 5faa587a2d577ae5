"""How many units run at once: every plan that is accepted ends, every one that is refused could not."""

import itertools
import math
import re
import time

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from cropray.cluster.placement import Node, live_nodes, need_of, place_units, share_cpus
from cropray.cluster.resources import Need
from cropray.core.errors import ConfigError
from cropray.training.cnn.settings import CnnSettings
from cropray.training.xgboost.settings import XgboostSettings
from tests.search.ray_scheduler import at_random, clusters, is_safe, pack, run_to_the_end, spread

READ, FRAME = 0.25, 1.0


def model_of(settings):
    return "cnn" if isinstance(settings, CnnSettings) else "xgboost"


PICKS = {"pack": lambda: pack, "spread": lambda: spread, "random": lambda: at_random(0)}


@pytest.mark.parametrize(
    ("nodes", "need", "limit", "at_once", "trial_cpus"),
    [
        ([(4, 0)], (0, 1, 0), None, 4, 0.9375),  # four trials, and a quarter of a CPU for reading
        ([(2, 0)], (0, 1, 0), None, 2, 0.875),
        ([(1, 0)], (0, 1, 0), None, 1, 0.75),
        ([(4, 0)], (0, 1, 0), 3, 3, 1),  # a CPU is left: nothing needs to be saved
        ([(4, 0)], (0, 3, 0), 9, 1, 3),  # a limit adds nothing
        ([(16, 2)], (0, 4, 1), None, 2, 4),  # GPUs are what is short
        ([(8, 1), (64, 0)], (1, 8, 1), None, 1, 0),  # the other node is left for reading
        ([(3, 0)], (2, 1, 0), None, 1, 0),
        ([(2, 0), (2, 0)], (3, 1, 0), None, 1, 0),  # workers of one unit on two nodes
        ([(8, 0)] * 4, (1, 8, 0), None, 3, 0),  # drivers take no CPU, so whole nodes can be used
        ([(0, 0), (4, 1), (4, 1)], (1, 2, 1), None, 2, 0),  # a head without CPUs
    ],
)
def test_plans(nodes, need, limit, at_once, trial_cpus):
    n_workers, cpus, _ = need
    placement = place_units([Node(*node) for node in nodes], Need("cnn", *need), limit)
    assert (placement.max_concurrent, placement.trial_cpus) == (at_once, trial_cpus)
    in_use = at_once * (n_workers * cpus if n_workers else trial_cpus)
    assert placement.cpus_left == sum(node[0] for node in nodes) - in_use


@pytest.mark.parametrize(
    ("nodes", "need"),
    [
        ([(1, 0), (1, 0)], (0, 2, 0)),  # two CPUs, and neither node has both
        ([(16, 0), (2, 2)], (0, 4, 1)),  # the GPUs are where the CPUs are not
        ([(2, 0)], (2, 1, 0)),  # nothing would be left for reading
        ([], (0, 1, 0)),
    ],
)
def test_plans_that_would_wait_for_ever(nodes, need):
    with pytest.raises(ConfigError, match="it would wait for ever"):
        place_units([Node(*node) for node in nodes], Need("cnn", *need), None)


def check(nodes, need, limit):
    """Hold a plan against the scheduler and against all ways to place it.

    Returns:
        Whether it was accepted.
    """
    try:
        placement = place_units(nodes, need, limit)
    except ConfigError:
        assert not could_run(nodes, need, 1)
        return False
    for pick in PICKS.values():
        run_to_the_end(nodes, placement, need.task_cpus, placement.max_concurrent + 2, pick())
    n_bundles = placement.max_concurrent * max(need.num_workers, 1)
    assert is_safe(nodes, placement.trial_cpus or need.cpus, need.gpus, n_bundles, need.task_cpus, need.memory_bytes)
    if limit is not None and placement.max_concurrent == limit:
        return True
    assert limit is None or placement.max_concurrent < limit
    assert not could_run(nodes, need, placement.max_concurrent + 1)
    return True


def could_run(nodes, need, n_units):
    """Whether so many units are sure to run; trials may ask for less than they use, workers may not."""
    if need.num_workers:
        return is_safe(nodes, need.cpus, need.gpus, n_units * need.num_workers, need.task_cpus, need.memory_bytes)
    fits = is_safe(nodes, need.cpus, need.gpus, n_units, 0, need.memory_bytes)
    return fits and any(node.cpus > need.task_cpus for node in nodes)


NEEDS = [
    Need("xgboost", workers, cpus, gpus, task)
    for workers, cpus, gpus, task in itertools.product(range(5), (1, 2, 4), (0, 1), (READ, FRAME))
    if workers or task == READ  # xgboost-ray has workers
]


@pytest.mark.slow
def test_every_accepted_plan_ends_and_every_refused_one_could_not():
    verdicts = [
        check([Node(*node) for node in cluster], need, limit)
        for cluster in clusters()
        for need in NEEDS
        for limit in (None, 1, 3)
    ]
    assert len(verdicts) > 15_000
    assert 0.3 < sum(verdicts) / len(verdicts) < 0.9  # both happen


shapes = st.tuples(
    st.sampled_from([0, 0.5, 1, 2, 3, 4, 8, 16]),
    st.integers(0, 4),
    st.just(0.0),
    st.sampled_from([1e9, 2.5e9, 8e9, 30e9, math.inf]),
)


needs = st.builds(
    lambda workers, cpus, on_gpu, task, memory: Need(
        "cnn", workers, cpus, float(on_gpu), task if workers else READ, memory
    ),
    st.integers(0, 4),
    st.sampled_from([0.5, 1, 1.5, 2, 4]),
    st.booleans(),
    st.sampled_from([READ, FRAME]),
    st.sampled_from([0.0, 1e9, 2.4e9, 3e9]),
)


@given(st.lists(shapes, max_size=8), needs, st.one_of(st.none(), st.integers(1, 5)))
def test_mixed_clusters(cluster, need, limit):
    check([Node(*node) for node in cluster], need, limit)


def test_trials_that_ask_for_less_do_not_crowd_a_node():
    # A trial of 1 CPU asks for 0.75 if the small node were to keep room; 21 of them would then fit the large one.
    placement = place_units([Node(1), Node(16)], Need("xgboost", 0, 1, 0), None)
    assert placement.trial_cpus == 0.9843
    assert 16 // placement.trial_cpus == 16


@pytest.mark.parametrize(
    ("nodes", "settings", "message"),
    [
        (
            [Node(2)] * 2,
            XgboostSettings(cpus_per_worker=4),
            (
                r"one xgboost unit needs 4 CPUs, each on one node, and 0.25 CPU free for reading beside them; the cluster "
                r"has 2 nodes of 2 CPUs: it would wait for ever. Set xgboost.cpus_per_worker to 2, or add nodes"
            ),
        ),
        (
            [Node(4)],
            CnnSettings(num_workers=4),
            (
                r"needs 4 workers of 1 CPU, .* has 1 node of 4 CPUs: .* Set cnn.num_workers to 3 or "
                r"cnn.cpus_per_worker to 0.75, or add nodes"
            ),
        ),
        (
            [Node(0), Node(8), Node(4, 1), Node(4, 1)],
            CnnSettings(num_workers=4, use_gpu=True),
            (
                r"4 workers of 1 CPU \+ 1 GPU, .* has 1 node of 0 CPUs, 1 node of 8 CPUs, 2 nodes of 4 CPUs \+ 1 GPU: .* "
                r"Set cnn.num_workers to 2 or cnn.use_gpu to false, or add"
            ),
        ),
        ([Node(8)], XgboostSettings(device="cuda"), "needs 1 CPU . 1 GPU, .* Set xgboost.device to cpu, or add"),
        (
            [Node(2)],
            XgboostSettings(engine="xgboost_ray", num_workers=2, cpus_per_worker=2),
            "1 CPU free for reading .* Set xgboost.num_workers to 1 and cpus_per_worker to 1, or add",
        ),
        ([Node(1)], XgboostSettings(engine="xgboost_ray", num_workers=1), "Add nodes .*min_workers"),
        (
            [Node(8, memory_bytes=9.87e9)],
            CnnSettings(num_workers=3, memory_gb=4),
            (
                r"needs 3 workers of 1 CPU \+ 4 GB of memory, .* has 1 node of 8 CPUs \+ 9.87 GB of memory: .* "
                r"Set cnn.num_workers to 2 or cnn.memory_gb to 3.2, or add"
            ),
        ),
        (
            [Node(4, memory_bytes=3e9)] * 2,
            XgboostSettings(memory_gb=20),
            "2 nodes of .* Set xgboost.memory_gb to 3, or",
        ),
        ([], CnnSettings(), "the cluster has no node: .* Add nodes"),
    ],
)
def test_a_refusal_says_what_is_there_and_what_to_change(nodes, settings, message):
    with pytest.raises(ConfigError) as error:
        place_units(nodes, need_of(model_of(settings), settings), None)
    assert re.search(message, str(error.value)), error.value


def test_what_is_proposed_is_accepted():
    settings = CnnSettings(num_workers=4, cpus_per_worker=8)
    for nodes in ([Node(8)], [Node(8)] * 3, [Node(3), Node(9)]):
        with pytest.raises(ConfigError) as error:
            place_units(nodes, need_of(model_of(settings), settings), None)
        groups = re.search("Set (.*), or add", str(error.value))[1]
        for way in groups.split(" or "):
            found = dict(re.findall(r"(num_workers|cpus_per_worker) to ([\d.]+)", way))
            update = {name: type(getattr(settings, name))(float(value)) for name, value in found.items()}
            assert update
            assert (
                place_units(nodes, need_of(model_of(settings), settings.model_copy(update=update)), None).max_concurrent
                >= 1
            )


def test_memory_that_is_set_is_asked_for_and_counted():
    need = need_of("xgboost", XgboostSettings(memory_gb=4))
    placement = place_units([Node(8, memory_bytes=13e9)], need, None)
    assert placement.max_concurrent == 3
    assert placement.trial_resources == {"CPU": 1, "GPU": 0, "memory": 4_000_000_000}
    assert placement.memory_bytes == 4e9
    workers = need_of("cnn", CnnSettings(num_workers=2, memory_gb=4, use_gpu=True))
    assert workers.bundles(1) == [{"CPU": 1, "GPU": 1, "memory": 4_000_000_000}] * 2 + [{"CPU": READ}]


@pytest.mark.parametrize(
    ("nodes", "need", "limit", "memory"),
    [
        ([Node(4, memory_bytes=8e9)], Need("cnn", 0, 1, 0), None, 0.85 * 2e9),  # four trials
        ([Node(4, memory_bytes=8e9)], Need("cnn", 0, 1, 0), 1, 0.85 * 8e9),  # one that has it all
        ([Node(4, memory_bytes=8e9)] * 2, Need("cnn", 3, 1, 0), None, 0.85 * 2e9),  # two units may mix on a node
        ([Node(2, memory_bytes=8e9), Node(4, memory_bytes=8e9)], Need("cnn", 1, 2, 0), None, 0.85 * 4e9),
        ([Node(0, memory_bytes=1e9), Node(4, memory_bytes=8e9)], Need("cnn", 0, 2, 0), None, 0.85 * 4e9),
        ([Node(4)], Need("cnn", 0, 1, 0), None, math.inf),
    ],
)
def test_memory_that_is_not_set_is_a_share_of_the_node(nodes, need, limit, memory):
    placement = place_units(nodes, need, limit)
    assert placement.memory_bytes == memory
    assert "memory" not in placement.trial_resources


def test_a_thousand_nodes_are_refused_within_a_second():
    nodes = [Node(2)] * 1000
    started = time.monotonic()
    with pytest.raises(ConfigError):
        place_units(nodes, Need("cnn", 4, 64, 1), None)
    assert time.monotonic() - started < 1


def test_engines_differ_in_the_tasks_that_they_wait_for():
    assert need_of("xgboost", XgboostSettings(num_workers=2)).task_cpus == READ
    assert need_of("xgboost", XgboostSettings(num_workers=2, engine="xgboost_ray")).task_cpus == FRAME
    need = need_of("cnn", CnnSettings(num_workers=2, use_gpu=True))
    assert (need.model, need.num_workers, need.cpus, need.gpus, need.task_cpus) == ("cnn", 2, 1, 1, READ)


@pytest.mark.parametrize(
    ("nodes", "need", "text"),
    [
        (
            [Node(11), Node(0, 4)],
            Need("cnn", 0, 2, 0),
            "5 units at a time, each 2 CPUs; 1 CPU left for reading",
        ),
        (
            [Node(3, 1)] * 4,
            Need("cnn", 1, 2, 1),
            "4 units at a time, each 1 worker × 2 CPUs + 1 GPU; 4 CPUs left for reading",
        ),
        (
            [Node(8)],
            Need("cnn", 4, 1.5, 0),
            "1 unit at a time, each 4 workers × 1.5 CPUs; 2 CPUs left for reading",
        ),
        ([Node(2)], Need("cnn", 0, 1, 0), "2 units at a time, each 1 CPU; 0.25 CPUs left for reading"),
        (
            [Node(5, memory_bytes=16e9)],
            Need("cnn", 2, 2, 0),
            "1 unit at a time, each 2 workers × 2 CPUs and at most 6.8 GB of memory; 1 CPU left for reading",
        ),
    ],
)
def test_in_words(nodes, need, text):
    assert str(place_units(nodes, need, None)) == text


def test_nodes_that_are_announced_to_go_are_not_counted(monkeypatch):
    records = [
        {
            "NodeID": name,
            "Alive": name != "dead",
            "Resources": {"CPU": cpus, "object_store_memory": 1.2e9, "memory": 2.8e9},
        }
        for name, cpus in (("stays", 1.0), ("leaves", 2.0), ("dead", 4.0))
    ]
    monkeypatch.setattr(ray, "nodes", lambda: records)
    monkeypatch.setattr(ray._private.state.state, "get_draining_nodes", lambda: {"leaves": 1_700_000_000_000})
    assert live_nodes() == (Node(1.0, 0.0, 1.2e9, 2.8e9),)


@pytest.mark.parametrize(
    ("nodes", "need", "n_units", "at_once", "cpus"),
    [
        ([(2, 0)], (0, 1, 0), 18, 2, 1),  # as many as fit: each keeps what it had
        ([(2, 0)], (0, 1, 0), 1, 1, 2),  # a refit alone
        ([(16, 0)], (0, 1, 0), 3, 3, 5),
        ([(16, 0)], (2, 1, 0), 1, 1, 7),  # two workers of 8 would leave no CPU for reading
        ([(16, 1)], (0, 1, 1), 9, 1, 16),  # a GPU is what is short: its CPUs do not stand idle
        ([(4, 0), (16, 0)], (0, 1, 0), 2, 2, 8),
        ([(0, 0), (8, 0)], (0, 1, 0), 7, 7, 1),
    ],
)
def test_units_that_are_few_share_all_cpus(nodes, need, n_units, at_once, cpus):
    nodes, need = [Node(*node, memory_bytes=8e9) for node in nodes], Need("cnn", *need)
    placement = place_units(nodes, need, None)
    shared = share_cpus(nodes, need, placement, n_units)
    assert shared.cpus_per_worker == cpus
    assert min(shared.max_concurrent, n_units) == at_once
    assert shared.memory_bytes == placement.memory_bytes
    run_to_the_end(nodes, shared, READ, n_units, pack)


@given(st.lists(shapes, max_size=6), needs, st.integers(1, 9))
def test_shares_of_mixed_clusters(cluster, need, n_units):
    nodes = [Node(*node) for node in cluster]
    try:
        placement = place_units(nodes, need, None)
    except ConfigError:
        return
    shared = share_cpus(nodes, need, placement, n_units)
    assert shared.cpus_per_worker >= need.cpus
    assert min(shared.max_concurrent, n_units) == min(placement.max_concurrent, n_units)
    for pick in PICKS.values():
        run_to_the_end(nodes, shared, need.task_cpus, n_units, pick())
