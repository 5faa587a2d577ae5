"""A node whose preemption is announced: nothing new is placed on it, and what it loses goes on elsewhere."""

import threading
import time

import pytest

from cropray.cluster.placement import live_nodes, place_units
from cropray.cluster.resources import Need
from cropray.search.results import FoldResult
from cropray.search.run import UnitJob, run_units
from cropray.search.space import Trial, Unit
from tests.cluster.preemption import announce

STORE = 80 * 2**20
N_UNITS, N_STEPS, STEP_S, NOTICE_S, PATIENCE_S = 6, 16, 0.25, 1.5, 120
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.own_ray, pytest.mark.nightly]


@pytest.fixture
def cluster():
    """A head without CPUs and two nodes with one each."""
    import ray
    from ray.cluster_utils import Cluster

    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE})
    running.leaving, running.staying = [running.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    ray.init(address=running.address, log_to_driver=False, logging_level="ERROR")
    yield running
    ray.shutdown()
    running.shutdown()


def stepwise_fit(log):
    """A fit of steps that keeps each one and goes on from the last; it notes where each step was made."""

    def fit(unit, folder, progress, on_step):
        import ray

        node = ray.get_runtime_context().get_node_id()
        done = int(progress.read_text()) if progress.exists() else 0
        for step in range(done, N_STEPS):
            time.sleep(STEP_S)
            with (log / f"{unit.fold}").open("a") as notes:
                notes.write(f"{step} {node}\n")
            progress.write_text(str(step + 1))
        return (FoldResult({"learning_rate": 0.1}, unit.fold, float(unit.fold), ((1, 0), (0, 1)), (), N_STEPS, 0.1),)

    return fit


def notes_of(log):
    """Unit → (step, node) of each step, in the order in which they were made."""
    lines = {file.name: [line.split() for line in file.read_text().splitlines()] for file in log.iterdir()}
    return {int(name): [(int(step), node) for step, node in of] for name, of in lines.items() if of}


def test_a_preempted_node_costs_no_step(cluster, tmp_path):
    (log := tmp_path / "log").mkdir()
    (tmp_path / "progress").mkdir()
    placement = place_units(live_nodes(), Need("xgboost", 0, 1, 0), None)
    assert placement.max_concurrent == 2
    units = [Unit("xgboost", Trial({"learning_rate": 0.1}, (10,)), fold) for fold in range(N_UNITS)]
    jobs = [
        UnitJob(unit, tmp_path / "units" / f"{unit.fold}", tmp_path / "progress" / f"{unit.fold}") for unit in units
    ]
    told, seen = [], {}

    def is_midway():
        """Whether some unit is finished, and the node that will go is in the first half of another."""
        under_way = [of[-1] for unit, of in notes_of(log).items() if unit not in told]
        return bool(told) and any(node == cluster.leaving.node_id and step >= N_STEPS // 4 for step, node in under_way)

    def preempt():
        until = time.monotonic() + PATIENCE_S
        while not is_midway() and time.monotonic() < until:
            time.sleep(STEP_S / 5)
        announce(cluster.address, cluster.leaving.node_id, NOTICE_S)
        time.sleep(NOTICE_S)
        seen["cpus"] = sorted(node.cpus for node in live_nodes())
        cluster.remove_node(cluster.leaving, allow_graceful=False)

    cloud = threading.Thread(target=preempt)
    cloud.start()
    # A node that is lost without notice counts as a failure of its units; with notice it does not.
    run_units(
        jobs, stepwise_fit(log), placement, tmp_path / "tune", lambda job: told.append(job.unit.fold), max_failures=0
    )
    cloud.join()
    assert seen["cpus"] == [0, 1]
    assert sorted(told) == list(range(N_UNITS))
    assert [job.results()[0].loss_sum for job in jobs] == list(range(N_UNITS))
    notes = notes_of(log)
    steps = {unit: [step for step, _ in of] for unit, of in notes.items()}
    # The step that was under way when the power went may have been noted and not kept.
    assert all(sorted(set(of)) == list(range(N_STEPS)) and len(of) <= N_STEPS + 1 for of in steps.values())
    moved = [unit for unit, of in notes.items() if len({node for _, node in of}) == 2]
    assert len(moved) == 1
