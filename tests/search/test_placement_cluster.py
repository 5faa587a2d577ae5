"""Placements on real Ray nodes: all units that are placed at once hold what they need, then they read, then they end."""

import io
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from cropray.cluster.placement import Node, live_nodes, place_units, place_when_ready
from cropray.cluster.resources import Need
from cropray.cluster.zone_jobs import ZoneTask, run_zone_tasks
from cropray.core.errors import ConfigError
from cropray.core.progress import Progress
from cropray.io.workspace import Workspace
from cropray.search.results import FoldResult
from cropray.search.run import UnitJob, run_units
from cropray.search.space import Trial, Unit
from tests.synthetic import account

PATIENCE_S = 60


STORE, MEMORY = 80 * 2**20, 4 * 10**9
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.own_ray, pytest.mark.nightly]


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs and two nodes with two CPUs and one GPU each, the GPUs in name only."""
    import ray
    from ray.cluster_utils import Cluster

    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE})
    for _ in range(2):
        running.add_node(num_cpus=2, num_gpus=1, object_store_memory=STORE, memory=MEMORY)
    ray.init(address=running.address, log_to_driver=False, logging_level="ERROR")
    yield running
    ray.shutdown()
    running.shutdown()


@pytest.fixture
def nodes(cluster):
    return live_nodes()


def trivial_fit(log, at_once, need):
    """Hold a unit's bundles, wait until so many units hold theirs, read, and end; notes are files in `log`."""

    def fit(unit, folder, progress, on_step):
        import ray

        @ray.remote
        def read():
            return 1

        def hold():
            (log / f"placed-{uuid.uuid4().hex}").touch()
            until = time.monotonic() + PATIENCE_S
            while len(list(log.glob("placed-*"))) < at_once * need.n_bundles:
                assert time.monotonic() < until, "fewer units run at once than were planned"
                time.sleep(0.05)
            reading = read.options(num_cpus=need.task_cpus, scheduling_strategy="DEFAULT").remote()
            ray.get(reading, timeout=PATIENCE_S)
            return ray.get_runtime_context().get_node_id()

        where = on_workers(ray, hold) if need.num_workers else [hold()]
        (log / f"unit-{unit.fold}").write_text("\n".join([ray.get_runtime_context().get_node_id(), *where]))
        return (FoldResult({"learning_rate": 0.1}, unit.fold, 1.0, ((1, 0), (0, 1)), (), 10, 0.1),)

    def on_workers(ray, hold):
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as InGroup

        group = ray.util.placement_group([{"CPU": need.cpus, "GPU": need.gpus}] * need.num_workers, strategy="PACK")
        assert group.wait(PATIENCE_S), "the group is not placed"
        try:
            worker, needs = ray.remote(hold), {"num_cpus": need.cpus, "num_gpus": need.gpus}
            bundles = [InGroup(group, placement_group_bundle_index=i) for i in range(need.num_workers)]
            return ray.get([worker.options(**needs, scheduling_strategy=bundle).remote() for bundle in bundles])
        finally:
            ray.util.remove_placement_group(group)

    return fit


@pytest.mark.parametrize(
    ("need", "at_once"),
    [
        (Need("xgboost", 0, 1, 0), 4),  # every CPU trains, a quarter of one is left for reading
        (Need("cnn", 1, 1, 1), 2),
        (Need("cnn", 2, 1, 1), 1),  # a unit whose workers sit on two nodes
        (Need("xgboost", 1, 2, 0), 1),  # whole nodes: one of them is left for reading
        (Need("xgboost", 0, 0.5, 0, memory_bytes=3e9), 2),  # of eight by their CPUs
    ],
    ids=["in-trials", "one-gpu-each", "across-nodes", "whole-nodes", "memory"],
)
def test_units_run_at_once_and_end(nodes, need, at_once, tmp_path):
    assert sorted(node.cpus for node in nodes) == [0, 2, 2]
    assert sorted(node.gpus for node in nodes) == [0, 1, 1]
    assert all(isinstance(node, Node) and node.object_store_bytes == STORE for node in nodes)
    assert sorted(node.memory_bytes for node in nodes)[:2] == [MEMORY, MEMORY]
    placement = place_units(nodes, need, None)
    assert placement.max_concurrent == at_once
    log = tmp_path / "log"
    log.mkdir()
    units = [Unit("xgboost", Trial({"learning_rate": 0.1}, (10,)), fold) for fold in range(at_once + 1)]
    jobs = [UnitJob(unit, tmp_path / "units" / f"{unit.fold}", tmp_path / f"progress-{unit.fold}") for unit in units]
    told = []
    run_units(jobs, trivial_fit(log, at_once, need), placement, tmp_path / "tune", told.append)
    assert len(told) == len(jobs)
    homes = [(log / f"unit-{unit.fold}").read_text().split("\n") for unit in units]
    if need.num_workers:
        drivers, workers = {home[0] for home in homes}, {node for home in homes for node in home[1:]}
        assert len(drivers) == 1  # the head, which trains nothing
        assert not drivers & workers
    if need.num_workers == 2:
        assert all(len(set(home[1:])) == 2 for home in homes)


def test_nodes_on_their_way_are_waited_for(cluster):
    need, wanted = Need("xgboost", 0, 2, 0), 3
    with pytest.raises(ConfigError, match="cpus_per_worker"):
        place_when_ready(Need("xgboost", 0, 3, 0), 1, 0.0)
    started = time.monotonic()
    assert place_when_ready(need, wanted, 2.0).max_concurrent == 2  # the time is up: as many as fit
    assert 2 <= time.monotonic() - started < 10
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(place_when_ready, need, wanted, PATIENCE_S)
        time.sleep(1)
        assert not waiting.done()
        node = cluster.add_node(num_cpus=2, object_store_memory=STORE)
        try:
            assert waiting.result().max_concurrent == wanted
        finally:
            cluster.remove_node(node)


@pytest.mark.usefixtures("cluster")
def test_the_task_of_a_zone_holds_the_gpu_that_it_asks_for(tmp_path):
    import ray

    tasks = [
        ZoneTask(name, ray.get_gpu_ids, account(), (), gpus) for name, gpus in (("a", 1), ("b", 1), ("c", 1), ("d", 0))
    ]
    held = run_zone_tasks("map-cnn", tasks, Workspace(tmp_path), Progress(io.StringIO()))
    assert [len(held[name]) for name in "abcd"] == [1, 1, 1, 0]
