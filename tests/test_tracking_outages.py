"""A store that is away or whose answers are lost: in the end all is there, exactly once. Faults are put into MLflow's client."""

import itertools
import json
import logging
import math
import random
import shutil
import socket
import time

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cropray.core.redaction import redact
from cropray.io.workspace import Workspace
from cropray.tracking import RunningFold, Tracker, records
from tests.tracking_history import (
    EXPERIMENT,
    SEARCH,
    contents,
    evaluation_note,
    prepare,
    run_history,
    search_note,
    write_unit,
)

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
        self.n_calls, self.away_from, self.lose, self.slowness_s, self.error = 0, None, None, 0.0, MlflowException
        for name in CALLS:
            monkeypatch.setattr(MlflowClient, name, self._wrap(getattr(MlflowClient, name)))

    def _wrap(self, method):
        def call(*args, **kwargs):
            number, self.n_calls = self.n_calls, self.n_calls + 1
            if self.away_from is not None and number >= self.away_from:
                raise self.error("connection refused")
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
        assert run_history(tracker, workspace) == 0
        n_calls = faults.n_calls
    assert tracker.close(0) == 0
    return in_store(workspace), n_calls


def positions(n_calls):
    """Some of the calls: one drawn from each of six stretches of the history."""
    rng = random.Random(5)
    return [rng.randrange(n_calls * i // 6, n_calls * (i + 1) // 6) for i in range(6)]


def check_outage(workspace, expected, faults, position):
    faults.n_calls, faults.away_from = 0, position
    assert run_history(Tracker(workspace, EXPERIMENT), workspace) > 0
    faults.away_from = None
    later = Tracker(workspace, EXPERIMENT)  # a later process makes up for it
    assert in_store(workspace) == expected, f"away from call {position}"
    assert (later.close(0), later.trouble()) == (0, "")


def check_lost_answer(workspace, expected, faults, position):
    faults.n_calls, faults.lose = 0, position
    tracker = Tracker(workspace, EXPERIMENT)
    run_history(tracker, workspace)
    assert tracker.close(5) == 0
    assert faults.n_calls > position
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


def history_while_away(workspace, faults):
    """The history while the store is away from the start."""
    faults.away_from = 0
    tracker = Tracker(workspace, EXPERIMENT)
    run_history(tracker, workspace)
    faults.away_from = None
    return tracker


@pytest.mark.parametrize("n_calls", [3, 20, 55, 70])
def test_a_process_dies_while_it_makes_up_for_an_outage(n_calls, workspace, whole, faults):
    history_while_away(workspace, faults)
    faults.n_calls, faults.away_from, faults.error = 0, n_calls, KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        Tracker(workspace, EXPERIMENT)
    faults.away_from = None
    Tracker(workspace, EXPERIMENT)
    assert in_store(workspace) == whole[0]


def test_a_stage_that_runs_again_during_the_outage_waits_once(workspace, whole, faults):
    n_waiting = len(history_while_away(workspace, faults)._waiting)
    tracker = history_while_away(workspace, faults)
    assert len(tracker._waiting) == n_waiting == 2
    assert f"up to 2 writes wait in '{workspace.root}/runs' (evaluate/cnn/e1, {SEARCH})" in tracker.trouble()
    Tracker(workspace, EXPERIMENT)
    assert in_store(workspace) == whole[0]


def test_a_workspace_that_moved_keeps_what_waits(workspace, whole, faults, tmp_path_factory):
    history_while_away(workspace, faults)
    moved = workspace.root.rename(tmp_path_factory.mktemp("elsewhere") / "moved")
    workspace = Workspace(moved)
    Tracker(workspace, EXPERIMENT)
    assert in_store(workspace) == whole[0]


def test_what_cannot_be_read_does_not_hold_up_the_rest(workspace, whole, faults):
    history_while_away(workspace, faults)
    damaged = workspace.run("search/cnn/damaged") / "run.json"
    damaged.parent.mkdir()
    damaged.write_text('{"kind": "search"')
    shutil.rmtree(workspace.root / "models")
    tracker = Tracker(workspace, EXPERIMENT)
    assert tracker.close(0) == 0
    keys = {run[0] for run in in_store(workspace)["runs"]}
    assert keys == {run[0] for run in whole[0]["runs"]}
    told = tracker.outcome()
    assert any(line.startswith(f"'{damaged}' is damaged or of another version of cropray") for line in told)
    assert any("will never register 'landscape' (folder" in line for line in told)


def test_results_of_a_unit_that_are_damaged_leave_out_that_unit(workspace):
    names = [write_unit(workspace, {"depth": depth}, 0) for depth in (2, 3)]
    (workspace.unit("cnn", names[0]) / "result.json").write_text("[{")
    tracker = Tracker(workspace, EXPERIMENT)
    tracker.note(search_note(units=tuple(names), n_folds=1))
    assert tracker.sync() == 0
    keys = [run[0] for run in in_store(workspace)["runs"]]
    assert keys == [SEARCH, f"{SEARCH}/depth=3", f"{SEARCH}/depth=3/fold-0"]
    (line,) = tracker.outcome()
    assert f"{names[0]}/result.json' is missing, damaged" in line


def test_a_model_that_was_trained_again_is_not_registered_as_the_old_one(workspace, faults, caplog):
    history_while_away(workspace, faults)
    (workspace.root / "models" / "cnn" / "card.json").write_text('{"seed": 8}')
    Tracker(workspace, EXPERIMENT)
    assert "of another model by now" in caplog.text
    assert not MlflowClient(f"sqlite:///{workspace.root}/mlflow.db").search_model_versions("name = 'landscape'")


def test_a_refused_write_is_named_and_left_out(workspace, caplog):
    tracker = Tracker(workspace, EXPERIMENT)
    tracker.note(search_note(metrics={"bad\tname": 1.0}))
    assert tracker.close(0) == 0
    assert f"will never finish '{SEARCH}'" in caplog.text
    assert len(tracker.outcome()) == 1


def test_runs_that_a_slow_server_made_twice_become_one(workspace, faults):
    faults.away_from = 1 << 30
    tracker = Tracker(workspace, EXPERIMENT)
    client = MlflowClient(f"sqlite:///{workspace.root}/mlflow.db")
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    real = MlflowClient.create_run

    def answer_late(self, *args):
        MlflowClient.create_run = real
        raise MlflowException("read timed out")

    MlflowClient.create_run = answer_late
    tracker._rests_until = time.monotonic() + 600  # so that it is `sync` that asks first
    tracker.note(search_note())
    assert tracker.sync() == 1

    def create_and_let_the_late_one_come(self, *args):
        made = real(self, *args)
        real(self, experiment, 1, {"cropray.key": SEARCH})  # older, and empty
        MlflowClient.create_run = real
        return made

    MlflowClient.create_run = create_and_let_the_late_one_come
    assert tracker.close(5) == 0
    (run,) = client.search_runs([experiment])
    assert run.data.params == {"seed": "7", "cnn.epochs": "2"}


def test_a_dead_server_costs_almost_no_time(tmp_path, monkeypatch):
    """It accepts and never answers: the dearest way to be away."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    workspace = prepare(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        tracker = Tracker(workspace, EXPERIMENT, f"http://127.0.0.1:{silent.getsockname()[1]}")
        for number in range(100):
            tracker.note(search_note(units=tuple(map(str, range(number)))))
        seconds = time.monotonic() - began
    assert "1 writes wait in" in tracker.trouble()
    assert seconds < 5, "one probe of 2 s, then files only"


def test_a_server_that_stays_away_is_asked_seldom(tmp_path, monkeypatch):
    """A hundredth of the time at most, and not by all jobs at once; at first soon, so that short outages cost little."""
    now, asked = 0.0, []
    monkeypatch.setattr("cropray.tracking.tracker.time.monotonic", lambda: now)
    monkeypatch.setattr("cropray.tracking.store.Store._probe", lambda _: asked.append(now) or _refuse())
    tracker = Tracker(prepare(tmp_path), EXPERIMENT, "http://127.0.0.1:9")
    while now < 3600:
        now += 0.1
        tracker.keep_up(search_note())
    waits = [round(after - before, 1) for before, after in itertools.pairwise(asked)]
    assert waits[0] <= 2.2
    assert max(waits) <= 30.2
    assert len(set(waits[-20:])) > 3, "jitter"
    assert len(asked) < 260


def test_a_store_that_was_just_made_is_not_left_alone(tmp_path):
    """Its tables take seconds, once: a search is seen in it from the start."""
    tracker = Tracker(prepare(tmp_path), EXPERIMENT)
    tracker.note(search_note())
    assert tracker.trouble() == ""
    assert [run[0] for run in in_store(tracker._workspace)["runs"]] == [SEARCH]


def _refuse():
    raise OSError("connection refused")


def test_the_wait_at_the_end_is_bounded(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CROPRAY_TRACKING_WAIT_S", "1.5")
    tracker = Tracker(prepare(tmp_path), EXPERIMENT, "http://127.0.0.1:9")
    tracker.note(search_note())
    began = time.monotonic()
    assert tracker.close() == 1
    assert 1 < time.monotonic() - began < 6
    assert "1 writes wait in" in caplog.text


def test_a_stage_that_fails_does_not_wait_for_a_store_that_is_away(tmp_path):
    began = time.monotonic()
    tracker = Tracker(prepare(tmp_path), EXPERIMENT, "http://127.0.0.1:9")
    tracker.note(search_note())
    with pytest.raises(KeyboardInterrupt), tracker:
        raise KeyboardInterrupt
    assert time.monotonic() - began < 5
    assert "1 writes wait in" in tracker.trouble()


def test_a_slow_store_is_given_a_bounded_time_to_catch_up(workspace, whole, faults, monkeypatch):
    tracker = history_while_away(workspace, faults)
    monkeypatch.setattr("cropray.tracking.tracker._PATIENCE_S", 1.0)
    faults.slowness_s = 0.2
    assert tracker.close(1.0) > 0
    assert "more than the time at the end of a stage allows" in tracker.trouble()
    faults.slowness_s = 0.0
    assert tracker.close(60) == 0
    assert in_store(workspace) == whole[0]


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
    note = search_note(params={"job": {"tracking_uri": uri}}, tags={"uri": uri}, metrics={"best": 1.0})
    with caplog.at_level(logging.DEBUG):
        tracker = Tracker(workspace, EXPERIMENT, uri)
        tracker.note(note)
        assert tracker.close(0) == 1
    assert "127.0.0.1:9" in caplog.text
    noted = (workspace.run(SEARCH) / "run.json").read_text()
    assert json.loads(noted)["params"] == {"job.tracking_uri": "http://***@127.0.0.1:9"}
    assert SECRET not in caplog.text + tracker.uri + noted + tracker.trouble()

    shutil.copy(template, tmp_path / "mlflow.db")
    local = Tracker(workspace, EXPERIMENT)
    client = MlflowClient(local.uri)
    (stored,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert stored.data.params == {"job.tracking_uri": "http://***@127.0.0.1:9"}
    assert SECRET not in str(stored.data.tags)


def test_a_fold_whose_loss_is_no_number_is_tracked_like_others(workspace):
    running = {"unit": RunningFold(params={"rate": 0.1}, fold=0, history=({"epoch": 1.0, "val_loss": math.nan},))}
    tracker = Tracker(workspace, EXPERIMENT)
    tracker.note(search_note(units=("unit",), running=running))
    assert tracker.sync() == 0
    assert tracker.outcome() == []


def test_an_unreadable_file_of_the_workspace_is_no_outage_of_the_store(workspace, monkeypatch):
    def unreadable(file):
        raise PermissionError(13, "Permission denied", str(file))

    tracker = Tracker(workspace, EXPERIMENT)
    monkeypatch.setattr(records, "content_id", unreadable)
    tracker.note(search_note())
    tracker.note(evaluation_note())
    assert tracker.sync() == 0
    told = " ".join(tracker.outcome())
    assert "Permission denied" in told
    assert "in the workspace" in told
    assert "did not answer" not in told
    assert "is behind" not in told


def test_a_test_without_its_search_is_no_news_each_time(workspace):
    for _ in range(2):
        tracker = Tracker(workspace, EXPERIMENT)
        tracker.note(evaluation_note(search="search/elsewhere"))
        assert tracker.sync() == 0
    assert not [line for line in tracker.outcome() if "that waited" in line]
