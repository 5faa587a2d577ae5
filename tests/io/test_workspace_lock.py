"""Two runs never work on one workspace, and a run that was killed is not in the way of the next."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from upath import UPath

from cropray.core.errors import ConfigError
from cropray.io import workspace_lock
from cropray.io.workspace_lock import NAME, STALE_S, locked

HOLD = """
import sys, time
from upath import UPath
from pathlib import Path
from cropray.io.workspace_lock import locked
root = UPath(sys.argv[2]) if "://" in sys.argv[2] else Path(sys.argv[2])
with locked(root):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["disk", "store"])
def root(request, tmp_path, monkeypatch):
    """A workspace on a disk, and one that is asked as object storage is."""
    monkeypatch.setattr(workspace_lock, "_SETTLE_S", 0.01)
    return tmp_path if request.param == "disk" else UPath(f"local://{tmp_path}")


@pytest.fixture
def other(root):
    """Another process that is at work on the workspace."""
    command = [sys.executable, "-c", HOLD, "labels", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_told_who_is_at_work(root, other):
    with pytest.raises(ConfigError) as error, locked(root):
        raise AssertionError("it must not begin")
    assert f"process {other.pid} on " in str(error.value)
    assert "labels" in str(error.value)
    assert time.strftime("%Y-%m-%d", time.gmtime()) in str(error.value)
    assert "'workspace'" in str(error.value)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
def test_who_was_killed_is_not_in_the_way(root, other, blow):
    other.send_signal(blow)
    other.wait()
    with locked(root):
        pass


def test_one_after_the_other(root):
    for _ in range(2):
        with locked(root):
            pass
    with pytest.raises(RuntimeError), locked(root):
        raise RuntimeError
    with locked(root):
        pass


def test_not_even_this_process_twice(root):
    with locked(root), pytest.raises(ConfigError, match=f"process {os.getpid()} "), locked(root):
        pass


def record(root, **changes):
    """The record that a run leaves which is killed."""
    with locked(root):
        content = json.loads((root / NAME).read_text())
    (root / NAME).write_text(json.dumps(content | changes))


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on while a run waits; returns what was slept."""
    slept, start = [], time.time()
    monkeypatch.setattr(workspace_lock.time, "sleep", slept.append)
    monkeypatch.setattr(workspace_lock.time, "time", lambda: start + sum(slept))
    return slept


def test_a_run_elsewhere_counts_while_it_renews_its_record(root, clock, capsys, monkeypatch):
    record(root, boot="another machine", host="node7")
    begun = time.time()

    def pass_time(seconds):
        clock.append(seconds)
        if time.time() > begun + 30:
            (root / NAME).write_text(json.dumps(json.loads((root / NAME).read_text()) | {"renewed": time.time()}))

    monkeypatch.setattr(workspace_lock.time, "sleep", pass_time)
    with pytest.raises(ConfigError, match=r"in use: .* on node7\)"), locked(root):
        pass
    assert 30 < sum(clock) < 60
    assert capsys.readouterr().out.count("it is taken for dead in 180 s") == 1


def test_a_run_elsewhere_that_is_silent_is_waited_for(root, clock):
    record(root, boot="another machine", renewed=time.time() - STALE_S * 0.75)
    with locked(root):
        assert STALE_S * 0.2 < sum(clock) < STALE_S * 0.3


def test_a_run_elsewhere_that_was_silent_long_is_not_waited_for(root, clock):
    record(root, boot="another machine", renewed=time.time() - STALE_S * 1.1)
    with locked(root):
        assert sum(clock) < 2


def test_a_number_that_another_process_has_now(root):
    record(root, pid=os.getppid(), born="1")
    with locked(root):
        pass


def test_where_the_disk_has_no_locks_the_record_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace_lock, "_lock", lambda _: None)
    with locked(tmp_path), pytest.raises(ConfigError, match=f"process {os.getpid()} "), locked(tmp_path):
        pass
    record(tmp_path, pid=2**22 + 1)
    with locked(tmp_path):
        pass


def test_a_damaged_record_is_in_nobody_s_way(root):
    (root / NAME).write_text('{"token": "a')
    with locked(root):
        pass


def test_of_two_that_begin_at_once_in_a_store_one_goes_on(tmp_path, monkeypatch):
    root = UPath(f"local://{tmp_path}")

    def write_over(_seconds):
        text = (tmp_path / NAME).read_text()
        (tmp_path / NAME).write_text(json.dumps(json.loads(text) | {"token": "b", "pid": 4711}))

    monkeypatch.setattr(workspace_lock.time, "sleep", write_over)
    with pytest.raises(ConfigError, match="process 4711"), locked(root):
        raise AssertionError("it must not begin")


def test_the_record_is_renewed(root, monkeypatch):
    monkeypatch.setattr(workspace_lock, "_RENEW_S", 0.01)
    with locked(root):
        first = json.loads((root / NAME).read_text())["renewed"]
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            content = (root / NAME).read_text()
            if content.endswith(("}", "}\n")) and json.loads(content)["renewed"] > first:
                return
        raise AssertionError(content)


def test_a_child_does_not_keep_the_lock(tmp_path):
    """Ray's processes outlive a driver that is killed."""
    with locked(tmp_path):
        child = subprocess.Popen(["sleep", "30"])
    try:
        with locked(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def test_the_workspace_holds_nothing_else(tmp_path):
    with locked(tmp_path):
        pass
    assert [path.name for path in Path(tmp_path).iterdir()] == [NAME]
    assert (tmp_path / NAME).read_bytes() == b""
