"""One task per zone: failures are collected, what is current is skipped."""

import io
import os
from functools import partial

import pytest

from cropray.errors import InputError, StageFailedError
from cropray.progress import Progress
from cropray.stages import zone_jobs
from cropray.stages.zone_jobs import ZoneOutcome, ZoneTask, attempt, attempt_and_mark, run_zone_tasks
from cropray.workspace import Workspace


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return text


def fail():
    raise InputError("the sky is missing")


def task(workspace, zone_id, run=None, inputs="1"):
    output = workspace.labels(zone_id)
    return ZoneTask(zone_id, run or partial(write, output, f"{zone_id}:{inputs}"), inputs, (output,))


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def in_process(monkeypatch):
    """Runs tasks here, in order, instead of on Ray."""
    monkeypatch.setattr(zone_jobs, "_on_ray", lambda tasks, *where: (attempt_and_mark(t, *where) for t in tasks))


def run(workspace, *tasks, log=None, **kwargs):
    return run_zone_tasks("labels", tasks, workspace, Progress(log or io.StringIO()), **kwargs)


def test_an_error_becomes_an_outcome():
    assert attempt(ZoneTask("z", lambda: 7, "1", ())) == ZoneOutcome("z", 7)
    assert attempt(ZoneTask("z", fail, "1", ())) == ZoneOutcome("z", None, "the sky is missing")
    # Our own errors explain themselves; of others the type is said too.
    assert attempt(ZoneTask("z", {}.popitem, "1", ())).error.startswith("KeyError: ")


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
    assert run(workspace, task(workspace, "a"), changed) == {}
    assert run(workspace, task(workspace, "a"), overwrite=True) == {"a": "a:1"}
    workspace.labels("a").unlink()
    assert run(workspace, task(workspace, "a")) == {"a": "a:1"}


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


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_zones_on_ray(workspace):
    # `partial` of builtins only: workers need not import this module.
    tasks = [ZoneTask(f"z{i}", partial(pow, 2, i), "1", ()) for i in range(6)]
    broken = ZoneTask("broken", partial(int, "x"), "1", ())
    dying = ZoneTask("dying", partial(os._exit, 1), "1", ())
    with pytest.raises(StageFailedError) as error:
        run(workspace, *tasks, broken, dying)
    assert error.value.failures["broken"].startswith("ValueError: ")
    assert "died" in error.value.failures["dying"]
    assert set(error.value.failures) == {"broken", "dying"}
    assert run(workspace, *tasks) == {}  # all six were recorded
    assert run(workspace, *tasks, overwrite=True) == {f"z{i}": 2**i for i in range(6)}
