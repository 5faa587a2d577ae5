"""One task per zone: failures are collected, what is current is skipped."""

import io
import os
from functools import partial
from types import SimpleNamespace

import pytest

from cropray.cluster import session as cluster
from cropray.cluster import tasks as tasks_on_ray
from cropray.cluster import zone_jobs
from cropray.cluster.zone_jobs import ZoneOutcome, ZoneTask, attempt, attempt_and_mark, in_flight, run_zone_tasks
from cropray.core.errors import ConfigError, InputError, StageFailedError
from cropray.core.progress import Progress
from cropray.io.workspace import Workspace
from tests.stages.autoscaled import Autoscaled
from tests.synthetic import account


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return text


def fail():
    raise InputError("the sky is missing")


def task(workspace, zone_id, run=None, inputs="1"):
    output = workspace.labels(zone_id)
    return ZoneTask(zone_id, run or partial(write, output, f"{zone_id}:{inputs}"), account(inputs), (output,))


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def in_process(monkeypatch):
    """Runs tasks here, in order, instead of on Ray."""
    monkeypatch.setattr(zone_jobs, "require_cpus", lambda *_: None)
    monkeypatch.setattr(zone_jobs, "on_ray", lambda tasks, *where: (attempt_and_mark(t, *where[:2]) for t in tasks))


def run(workspace, *tasks, log=None, **kwargs):
    return run_zone_tasks("labels", tasks, workspace, Progress(log or io.StringIO()), **kwargs)


def test_an_error_becomes_an_outcome():
    assert attempt(ZoneTask("z", lambda: 7, account(), ())) == ZoneOutcome("z", 7)
    assert attempt(ZoneTask("z", fail, account(), ())) == ZoneOutcome("z", None, "the sky is missing")
    # Our own errors explain themselves; of others the type is said too.
    assert attempt(ZoneTask("z", {}.popitem, account(), ())).error.startswith("KeyError: ")


def test_a_zone_is_marked_where_it_was_made(workspace):
    """The driver may be gone by then: nobody makes the zone again."""
    done, failed = task(workspace, "a"), task(workspace, "b", fail)
    for one in (done, failed):
        attempt_and_mark(one, "labels", workspace)
    assert workspace.is_current("labels", "a", done.inputs, done.outputs)
    assert not workspace.is_current("labels", "b", failed.inputs, ())


@pytest.mark.usefixtures("in_process")
def test_what_is_up_to_date_is_skipped_and_said(workspace):
    assert run(workspace, task(workspace, "a"), task(workspace, "b")) == {"a": "a:1", "b": "b:1"}
    log = io.StringIO()
    changed = task(workspace, "b", inputs="2")
    assert run(workspace, task(workspace, "a"), changed, log=log) == {"b": "b:2"}
    assert "1 of 2 zones are up to date and skipped" in log.getvalue()
    assert "made again: 1 of 2 zones: input was 1, is 2" in log.getvalue()
    assert run(workspace, task(workspace, "a"), changed) == {}
    assert run(workspace, task(workspace, "a"), overwrite=True) == {"a": "a:1"}
    workspace.labels("a").unlink()
    assert run(workspace, task(workspace, "a")) == {"a": "a:1"}


@pytest.mark.usefixtures("in_process")
def test_one_line_tells_why_zones_are_made_again(workspace):
    run(workspace, *(task(workspace, zone_id) for zone_id in "abc"))
    log = io.StringIO()
    run(workspace, *(task(workspace, zone_id, inputs=zone_id) for zone_id in "abcd"), log=log)
    again = [line.strip() for line in log.getvalue().splitlines() if "made again" in line]
    assert again == ["made again: 3 of 4 zones: a: input was 1, is a"]  # the fourth is made for the first time
    log = io.StringIO()
    run(workspace, task(workspace, "e"), log=log)
    run(workspace, task(workspace, "e"), log=log, overwrite=True)
    assert "again" not in log.getvalue()


@pytest.mark.usefixtures("in_process")
def test_a_zone_that_fails_does_not_stop_the_others(workspace):
    with pytest.raises(StageFailedError, match="stage 'labels': 1 failed, 2 finished") as error:
        run(workspace, task(workspace, "a"), task(workspace, "b", fail), task(workspace, "c"))
    assert error.value.failures == {"b": "the sky is missing"}
    # Mended, only the failed one is made.
    tasks = [task(workspace, zone_id) for zone_id in "abc"]
    assert run(workspace, *tasks) == {"b": "b:1"}


@pytest.mark.usefixtures("in_process")
def test_a_zone_that_failed_halfway_is_not_taken_for_its_old_self(workspace):
    # New inputs replace the first of several files, then fail; going back to the old inputs must make it again.
    def halfway():
        write(workspace.labels("a"), "a:2")
        fail()

    run(workspace, task(workspace, "a"))
    with pytest.raises(StageFailedError):
        run(workspace, task(workspace, "a", halfway, inputs="2"))
    assert run(workspace, task(workspace, "a")) == {"a": "a:1"}


@pytest.mark.parametrize(("n_tasks", "cpus"), [(900, 8 * 16 + 4 * 8), (40, 3 * 16), (1, 16)])
def test_an_autoscaler_adds_nodes_for_the_zones_that_wait(monkeypatch, workspace, n_tasks, cpus):
    """From no worker at all to as many as the zones fill, or as cluster.yaml allows: GPU nodes where no other may be added."""
    seen = Autoscaled()
    for module in (zone_jobs, tasks_on_ray):
        monkeypatch.setattr(module, "ray", seen)
    monkeypatch.setattr(zone_jobs, "require_cpus", lambda *_: None)
    monkeypatch.setattr(
        zone_jobs, "_remote_attempt", SimpleNamespace(options=lambda **_: SimpleNamespace(remote=seen.submit))
    )
    tasks = [ZoneTask(f"z{n}", int, account(), ()) for n in range(n_tasks)]
    assert run(workspace, *tasks).keys() == {task.zone_id for task in tasks}
    assert seen.most_cpus == cpus


def test_tasks_in_flight_follow_the_cluster():
    assert in_flight(0) == in_flight(2) == in_flight(64) == 128
    assert in_flight(1600) == 3200


class Clock:
    """Time that passes by sleeping; after each second there are the nodes that were given for it."""

    def __init__(self, *nodes):
        self.now, self.asked, self._nodes = 0, [], nodes

    def monotonic(self):
        return self.now

    def sleep(self, _):
        self.now += 1

    def nodes(self):
        return self._nodes[min(self.now, len(self._nodes) - 1)]

    def request(self, **wanted):
        self.asked.append(wanted)


@pytest.fixture
def clock(monkeypatch):
    def start(*nodes):
        seen = Clock(*nodes)
        monkeypatch.setattr(cluster, "time", seen)
        monkeypatch.setattr(cluster, "open_nodes", seen.nodes)
        monkeypatch.setattr(cluster, "request_resources", seen.request)
        return seen

    return start


HEAD = {"Resources": {"memory": 1e9}}


def node(cpus):
    return {"Resources": {"CPU": cpus}}


def test_the_first_node_is_waited_for_and_asked_for(clock):
    seen = clock([HEAD], [HEAD], [HEAD, node(16.0)])
    cluster.require_cpus(3, wait_s=9)
    assert seen.now == 2
    assert seen.asked == [{"bundles": [{"CPU": 1}] * 3}, {"num_cpus": 0}]


def test_a_cluster_that_is_there_is_asked_for_nothing(clock):
    seen = clock([node(1.0)])
    cluster.require_cpus(3, wait_s=0)
    assert seen.asked == []


@pytest.mark.parametrize(("wait_s", "asked"), [(0, []), (5, [{"bundles": [{"CPU": 1}]}, {"num_cpus": 0}])])
def test_a_cluster_without_cpus_is_refused_with_the_setting(clock, wait_s, asked):
    seen = clock([HEAD, node(0.5)])
    with pytest.raises(ConfigError, match=r"cluster\.wait_s"):
        cluster.require_cpus(1, wait_s)
    assert seen.now == wait_s
    assert seen.asked == asked


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_zones_on_ray(workspace):
    # `partial` of builtins only: workers need not import this module.
    tasks = [ZoneTask(f"z{i}", partial(pow, 2, i), account(), ()) for i in range(6)]
    broken = ZoneTask("broken", partial(int, "x"), account(), ())
    dying = ZoneTask("dying", partial(os._exit, 1), account(), ())
    with pytest.raises(StageFailedError) as error:
        run(workspace, *tasks, broken, dying)
    assert error.value.failures["broken"].startswith("ValueError: ")
    assert "died" in error.value.failures["dying"]
    assert set(error.value.failures) == {"broken", "dying"}
    assert run(workspace, *tasks) == {}  # all six were recorded
    assert run(workspace, *tasks, overwrite=True) == {f"z{i}": 2**i for i in range(6)}
