"""A store that is away or whose answers are lost: in the end all is there, exactly once. Faults are put into MLflow's client."""

import logging
import random
import shutil
import socket
import time

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cropray.tracking import FoldRecord, Tracker, redact
from cropray.tracking.breaker import LONGEST_WAIT_S, Breaker
from cropray.tracking.spool import Spool
from tests.tracking_history import EXPERIMENT, contents, prepare, steps

CALLS = (
    "get_experiment_by_name", "create_experiment", "search_runs", "create_run", "log_batch", "get_run", "get_metric_history",
    "set_terminated", "log_artifacts", "search_model_versions", "search_logged_models", "create_logged_model",
    "log_model_artifacts", "finalize_logged_model", "search_registered_models", "create_registered_model",
    "create_model_version", "set_model_version_tag", "set_registered_model_alias", "set_registered_model_tag",
    "get_registered_model", "set_tag",
)  # fmt: skip
SECRET = "hunter2"


class Faults:
    """Counts the client's calls; those from `away_from` on fail, the one at `lose` is made and then fails."""

    def __init__(self, monkeypatch):
        self.n_calls, self.away_from, self.lose, self.slowness_s = 0, None, None, 0.0
        for name in CALLS:
            monkeypatch.setattr(MlflowClient, name, self._wrap(getattr(MlflowClient, name)))

    def _wrap(self, method):
        def call(*args, **kwargs):
            number, self.n_calls = self.n_calls, self.n_calls + 1
            if self.away_from is not None and number >= self.away_from:
                raise MlflowException("connection refused")
            time.sleep(self.slowness_s)
            answer = method(*args, **kwargs)
            if number == self.lose:
                raise MlflowException("connection reset")
            return answer

        return call


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """An empty store: creating its tables takes seconds, copying it none."""
    root = tmp_path_factory.mktemp("store")
    Tracker(prepare(root), "other")
    return root / "mlflow.db"


@pytest.fixture
def workspace(tmp_path, template):
    shutil.copy(template, tmp_path / "mlflow.db")
    return prepare(tmp_path)


@pytest.fixture
def faults(monkeypatch):
    return Faults(monkeypatch)


def in_store(workspace):
    return contents(f"sqlite:///{workspace.root}/mlflow.db", "/")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, template):
    """(store after an uninterrupted history, its number of calls)."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copy(template, root / "mlflow.db")
    workspace = prepare(root)
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch)
        tracker = Tracker(workspace, EXPERIMENT)
        for step in steps(root):
            step(tracker)
        n_calls = faults.n_calls
    assert (tracker.n_missed, tracker.close(0)) == (0, 0)
    return in_store(workspace), n_calls


def positions(n_calls):
    """Some of the calls: one drawn from each of six stretches of the history."""
    rng = random.Random(5)
    return [rng.randrange(n_calls * i // 6, n_calls * (i + 1) // 6) for i in range(6)]


def check_outage(workspace, expected, faults, position):
    faults.n_calls, faults.away_from = 0, position
    tracker = Tracker(workspace, EXPERIMENT)
    for step in steps(workspace.root):
        step(tracker)
    assert tracker.n_missed > 0
    faults.away_from = None
    assert Tracker(workspace, EXPERIMENT).close(0) == 0  # a later process makes up for it
    assert in_store(workspace) == expected, f"away from call {position}"
    assert not [file for file in (workspace.root / "spool").rglob("*") if file.is_file()]


def check_lost_answer(workspace, expected, faults, position):
    faults.n_calls, faults.lose = 0, position
    tracker = Tracker(workspace, EXPERIMENT)
    for step in steps(workspace.root):
        step(tracker)
    assert tracker.n_missed > 0
    assert tracker.close(5) == 0
    assert in_store(workspace) == expected, f"answer to call {position} lost"


@pytest.mark.parametrize("check", [check_outage, check_lost_answer])
@pytest.mark.parametrize("stretch", range(6))
def test_a_fault_somewhere_in_the_history(stretch, check, workspace, whole, faults):
    expected, n_calls = whole
    check(workspace, expected, faults, positions(n_calls)[stretch])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("check", [check_outage, check_lost_answer])
@pytest.mark.parametrize("first", [1, *(pytest.param(n, marks=pytest.mark.nightly) for n in (0, 2, 3))])
def test_a_fault_at_every_call(first, check, tmp_path, template, whole, faults):
    """Every fourth call, and by night the others."""
    expected, n_calls = whole
    assert n_calls > 60
    for position in range(first, n_calls, 4):
        root = tmp_path / str(position)
        root.mkdir()
        shutil.copy(template, root / "mlflow.db")
        check(prepare(root), expected, faults, position)


def spool_history(workspace, faults):
    """The history while the store is away from the start."""
    faults.away_from = 0
    tracker = Tracker(workspace, EXPERIMENT)
    for step in steps(workspace.root):
        step(tracker)
    faults.away_from = None
    return tracker


@pytest.mark.parametrize("n_removed", [0, 3, 8, 11])
def test_a_process_dies_between_a_write_and_its_removal(n_removed, workspace, whole, faults, monkeypatch):
    spool_history(workspace, faults)
    remove, counted = Spool.remove, iter(range(n_removed))

    def remove_and_die(self, file):
        if next(counted, None) is None:
            raise KeyboardInterrupt
        remove(self, file)

    with monkeypatch.context() as dying:
        dying.setattr(Spool, "remove", remove_and_die)
        with pytest.raises(KeyboardInterrupt):
            Tracker(workspace, EXPERIMENT)
    Tracker(workspace, EXPERIMENT)
    assert in_store(workspace) == whole[0]


def test_a_stage_that_runs_again_during_the_outage_waits_once(workspace, whole, faults):
    tracker = spool_history(workspace, faults)
    n_waiting = tracker._spool.waiting()
    spool_history(workspace, faults)
    assert tracker._spool.waiting() == n_waiting
    Tracker(workspace, EXPERIMENT)
    assert in_store(workspace) == whole[0]


def test_a_workspace_that_moved_keeps_what_waits(workspace, whole, faults, tmp_path_factory):
    spool_history(workspace, faults)
    moved = workspace.root.rename(tmp_path_factory.mktemp("elsewhere") / "moved")
    workspace = type(workspace)(moved)
    Tracker(workspace, EXPERIMENT)
    expected = whole[0]
    assert in_store(workspace) == expected


def test_what_can_never_be_written_does_not_hold_up_the_rest(workspace, whole, faults, caplog):
    tracker = spool_history(workspace, faults)
    folder = tracker._spool.folder
    (folder / "00000000-damaged.json").write_text('{"kind": "open"')
    shutil.rmtree(workspace.root / "models")
    with caplog.at_level(logging.WARNING, "cropray.tracking"):
        assert Tracker(workspace, EXPERIMENT).close(0) == 0
    assert in_store(workspace)["runs"] == whole[0]["runs"]
    assert "00000000-damaged.json" in caplog.text
    assert "register 'landscape' (folder" in caplog.text
    assert sorted(file.name.partition("-")[0] for file in (folder / "refused").iterdir()) == ["00000000", "00000012"]


def test_a_model_that_was_trained_again_is_not_registered_as_the_old_one(workspace, faults, caplog):
    spool_history(workspace, faults)
    (workspace.root / "models" / "cnn" / "card.json").write_text('{"seed": 8}')
    Tracker(workspace, EXPERIMENT)
    assert "of another model by now" in caplog.text
    assert not MlflowClient(f"sqlite:///{workspace.root}/mlflow.db").search_model_versions("name = 'landscape'")


def test_a_refused_write_is_named_and_left_out(workspace, caplog):
    tracker = Tracker(workspace, EXPERIMENT)
    search = tracker.search_run("cnn", "abc", {})
    tracker.finish(search, {"bad\tname": 1.0})
    assert "will never finish 'search/cnn/abc'" in caplog.text
    assert tracker.close(0) == 0


def test_runs_that_a_slow_server_made_twice_become_one(workspace):
    tracker = Tracker(workspace, EXPERIMENT)
    search = tracker.search_run("cnn", "abc", {"seed": 7})
    client = MlflowClient(f"sqlite:///{workspace.root}/mlflow.db")
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    client.create_run(experiment, 1, {"cropray.key": search.key})  # older, and empty
    tracker._store._doubtful.add(search.key)
    tracker.close(5)
    assert [run.info.run_id for run in client.search_runs([experiment])] == [search.run_id]


def test_a_dead_server_costs_almost_no_time(tmp_path, monkeypatch):
    """It accepts and never answers: the dearest way to be away."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    workspace = prepare(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        tracker = Tracker(workspace, EXPERIMENT, f"http://127.0.0.1:{silent.getsockname()[1]}")
        search = tracker.search_run("cnn", "abc", {})
        for number in range(100):
            tracker.fold_run(search, FoldRecord(number, {"val_loss": 0.5}))
        seconds = time.monotonic() - began
    assert tracker.n_missed == 102  # the opening too
    assert seconds < 5, "one probe of 2 s, then files only"


def test_the_wait_at_the_end_is_bounded(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CROPRAY_TRACKING_WAIT_S", "1.5")
    tracker = Tracker(prepare(tmp_path), EXPERIMENT, "http://127.0.0.1:9")
    tracker.search_run("cnn", "abc", {})
    began = time.monotonic()
    assert tracker.close() == 1
    assert 1 < time.monotonic() - began < 6
    assert "1 writes wait in" in caplog.text


def test_a_slow_store_is_given_a_bounded_time_to_catch_up(workspace, whole, faults):
    tracker = spool_history(workspace, faults)
    faults.slowness_s = 0.2
    assert 0 < tracker.close(1.0) < 13
    faults.slowness_s = 0.0
    assert tracker.close(60) == 0
    assert in_store(workspace) == whole[0]


def test_the_breaker_gives_a_dead_store_a_small_share_of_the_time():
    for cost_s in (0.001, 2.0):
        now, asked = 0.0, 0.0
        breaker = Breaker(clock=lambda: now)  # noqa: B023
        waits = []
        while now < 3600:
            assert breaker.allows_try()
            now, asked = now + cost_s, asked + cost_s
            breaker.failed(cost_s)
            start = now
            while not breaker.allows_try():
                now += 0.01
            waits.append(now - start)
        assert max(waits) <= LONGEST_WAIT_S + 0.02
        assert len({round(wait, 1) for wait in waits[-20:]}) > 3, "jitter"
        assert asked / now < 0.1


def test_the_breaker_waits_longer_after_each_failure_and_anew_after_a_success():
    now = 0.0
    breaker = Breaker(clock=lambda: now)
    for _ in range(8):
        breaker.failed(0)
    now = 14.9
    assert not breaker.allows_try()
    breaker.succeeded()
    now = 100.0
    breaker.failed(0)
    now = 101.01
    assert breaker.allows_try()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ada:hunter2@host:5000/x", "http://***@host:5000/x"),
        ("postgresql+psycopg2://ada:hunt@er2@host/db", "postgresql+psycopg2://***@host/db"),
        (
            "postgresql://host/db?sslmode=require&password=hunter2&x=1",
            "postgresql://host/db?sslmode=require&password=***&x=1",
        ),
        ("see 'https://tok@host' and a@b.org", "see 'https://***@host' and a@b.org"),
        ("sqlite:////srv/a@b/mlflow.db", "sqlite:////srv/a@b/mlflow.db"),
    ],
)
def test_addresses_are_shown_without_passwords(text, shown):
    assert redact(text) == shown


def test_a_password_in_the_address_is_written_nowhere(tmp_path, template, caplog):
    uri = f"http://ada:{SECRET}@127.0.0.1:9"
    workspace = prepare(tmp_path)
    with caplog.at_level(logging.DEBUG):
        tracker = Tracker(workspace, EXPERIMENT, uri)
        search = tracker.search_run("cnn", "abc", {"job": {"tracking_uri": uri}}, {"uri": uri})
        tracker.finish(search, {"best": 1.0})
        assert tracker.close(0) == 2
    assert "127.0.0.1:9" in caplog.text
    waiting = [file.read_text() for file in (tmp_path / "spool").rglob("*") if file.is_file()]
    assert "http://***@127.0.0.1:9" in waiting[0]
    assert SECRET not in caplog.text + tracker.uri + "".join(waiting)

    shutil.copy(template, tmp_path / "mlflow.db")
    local = Tracker(workspace, EXPERIMENT)
    run = local.search_run("cnn", "abc", {"job": {"tracking_uri": uri}}, {"uri": uri})
    stored = MlflowClient(local.uri).get_run(run.run_id)
    assert stored.data.params == {"job.tracking_uri": "http://***@127.0.0.1:9"}
    assert SECRET not in str(stored.data.tags)
