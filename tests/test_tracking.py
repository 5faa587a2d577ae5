"""Runs and models in a real SQLite store."""

import logging
import sqlite3
from dataclasses import replace

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cropray.io.workspace import Workspace
from cropray.tracking import (
    CHAMPION,
    EvaluationRecord,
    FoldRecord,
    ModelPackage,
    Tracker,
    flatten,
    ui_command,
)
from tests.tracking_history import FORM, MERIT

SCORES = {"val_loss": 0.5, "val_accuracy": 0.8, "val_macro_f1": 0.4}
HISTORY = [
    {"train_loss": 0.9, "val_loss": 0.8},
    {"train_loss": 0.7, "val_loss": 0.5},
    {"train_loss": 0.6, "val_loss": 0.55},
]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """An empty store: creating its tables takes seconds, copying it none."""
    root = tmp_path_factory.mktemp("store")
    Tracker(Workspace(root), "other")
    return root / "mlflow.db"


@pytest.fixture
def workspace(tmp_path, template, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MLflow's own defaults would leave files
    with sqlite3.connect(template) as source, sqlite3.connect(tmp_path / "mlflow.db") as target:
        source.backup(target)
    return Workspace(tmp_path)


def write_search(workspace):
    """Write a search of two configurations and two folds, as a stage does."""
    tracker = Tracker(workspace, "landscape")
    search = tracker.search_run("cnn", "abc", {"seed": 7, "cnn": {"epochs": 3}}, {"git_commit": "f00"})
    for rate in (0.001, 0.0001):
        configuration = tracker.configuration_run(search, f"learning_rate={rate}", {"learning_rate": rate})
        for fold in range(2):
            tracker.fold_run(configuration, FoldRecord(fold, SCORES, HISTORY))
        tracker.finish(configuration, {f"{key}_mean": value for key, value in SCORES.items()})
    tracker.finish(search, {"best_val_loss_mean": 0.5})
    return tracker, search


def runs_of(tracker):
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name("landscape")
    return client, client.search_runs([experiment.experiment_id])


def n_metric_rows(workspace):
    with sqlite3.connect(workspace.mlflow_database) as database:
        return database.execute("select count(*) from metrics").fetchone()[0]


def test_the_tree_is_visible_by_parent_run_id(workspace):
    tracker, search = write_search(workspace)
    client, runs = runs_of(tracker)
    children = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
    configurations = [run_id for run_id, parent in children.items() if parent == search.run_id]
    assert len(configurations) == 2
    for configuration in configurations:
        assert sorted(client.get_run(r).info.run_name for r, parent in children.items() if parent == configuration) == [
            "fold 0",
            "fold 1",
        ]
    assert len(runs) == 1 + 2 + 4
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_fold_is_seen_while_it_is_fitted(workspace):
    tracker = Tracker(workspace, "landscape")
    search = tracker.search_run("cnn", "abc", {}, {})
    configuration = tracker.configuration_run(search, "a", {})
    for number in (1, 2):
        tracker.follow_fold(configuration, FoldRecord(0, {}, ({"step": number, "val_loss": 0.8 / number},)))
        client, runs = runs_of(tracker)
        (fold,) = [run for run in runs if run.info.run_name == "fold 0"]
        assert fold.info.status == "RUNNING"
        assert [p.step for p in client.get_metric_history(fold.info.run_id, "curve/val_loss")] == [1, 2][:number]
    history = [{"step": n, "val_loss": 0.8 / n} for n in (1, 2, 3)]
    for _ in range(2):
        tracker.fold_run(configuration, FoldRecord(0, SCORES, history))
        finished = client.get_run(fold.info.run_id)  # the same run
        assert finished.info.status == "FINISHED"
        curve = client.get_metric_history(fold.info.run_id, "curve/val_loss")
        assert [(point.step, point.value) for point in curve] == [(n, 0.8 / n) for n in (1, 2, 3)]
        assert {key: finished.data.metrics[key] for key in SCORES} == SCORES
    tracker.follow_fold(configuration, FoldRecord(0, {}, ({"step": 9, "val_loss": 9.0},)))  # late news of it
    assert client.get_run(fold.info.run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(fold.info.run_id, "curve/val_loss")) == 3


def test_a_store_that_is_away_misses_steps_and_keeps_nothing_for_later(workspace, monkeypatch):
    tracker = Tracker(workspace, "landscape")
    configuration = tracker.configuration_run(tracker.search_run("cnn", "abc", {}, {}), "a", {})
    monkeypatch.setattr(tracker._store, "apply", lambda *_: (_ for _ in ()).throw(MlflowException("away")))
    tracker.follow_fold(configuration, FoldRecord(0, {}, ({"step": 1, "val_loss": 0.8},)))
    assert not tracker._spool.waiting()


def test_params_are_flat_and_metrics_have_the_contract_names(workspace):
    tracker, search = write_search(workspace)
    client, runs = runs_of(tracker)
    assert client.get_run(search.run_id).data.params == {"seed": "7", "cnn.epochs": "3"}
    fold = next(run for run in runs if run.data.tags["cropray.key"] == "search/cnn/abc/learning_rate=0.001/fold-1")
    assert {key: fold.data.metrics[key] for key in SCORES} == SCORES  # not hidden by the curve's last point
    curve = client.get_metric_history(fold.info.run_id, "curve/val_loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.8), (2, 0.5), (3, 0.55)]


def test_writing_a_search_twice_adds_nothing(workspace):
    tracker, _ = write_search(workspace)
    before = {run.info.run_id for run in runs_of(tracker)[1]}, n_metric_rows(workspace)
    tracker, search = write_search(workspace)
    assert ({run.info.run_id for run in runs_of(tracker)[1]}, n_metric_rows(workspace)) == before
    assert search.is_finished


def test_an_interrupted_search_is_continued(workspace):
    tracker = Tracker(workspace, "landscape")
    search = tracker.search_run("cnn", "abc", {"seed": 7})
    configuration = tracker.configuration_run(search, "learning_rate=0.001", {"learning_rate": 0.001})
    tracker.fold_run(configuration, FoldRecord(0, SCORES, HISTORY))
    client, _ = runs_of(tracker)
    half_written = tracker.fold_run(configuration, FoldRecord(1, {"val_loss": 9.0}))
    client.set_terminated(half_written.run_id, "RUNNING")

    tracker, again = write_search(workspace)
    client, runs = runs_of(tracker)
    assert again.run_id == search.run_id
    assert half_written.run_id not in {run.info.run_id for run in runs}
    assert len(runs) == 7
    assert all(run.data.metrics["val_loss"] == 0.5 for run in runs if run.data.tags["cropray.kind"] == "fold")


def test_closing_metrics_can_be_corrected(workspace):
    tracker, search = write_search(workspace)
    tracker.finish(search, {"best_val_loss_mean": 0.4})
    assert MlflowClient(tracker.uri).get_run(search.run_id).data.metrics["best_val_loss_mean"] == 0.4


def test_histories_longer_than_one_request(workspace):
    tracker = Tracker(workspace, "landscape")
    configuration = tracker.configuration_run(tracker.search_run("xgboost", "x", {}), "a", {})
    rounds = [{"step": 10 * i, "val_loss": 1 / i, "train_loss": float("nan")} for i in range(1, 1202)]
    run = tracker.fold_run(configuration, FoldRecord(0, {}, rounds))
    points = MlflowClient(tracker.uri).get_metric_history(run.run_id, "curve/val_loss")
    assert (len(points), points[-1].step) == (1201, 12010)
    assert n_metric_rows(workspace) == 1201  # values that are not finite are left out


def test_an_evaluation_stores_its_files_under_the_workspace(workspace, tmp_path):
    folder = tmp_path / "evaluation"
    folder.mkdir()
    (folder / "cube.json").write_text("[]")
    tracker = Tracker(workspace, "landscape")
    record = EvaluationRecord("e1", {"protocol": "zones"}, {"test_loss": 0.6, "test_pixels": 640}, folder)
    run = tracker.evaluate_run("cnn", record)
    assert tracker.evaluate_run("cnn", record).run_id == run.run_id
    tracker.add_artifacts(run, folder, "maps")
    client = MlflowClient(tracker.uri)
    assert client.get_run(run.run_id).data.metrics == {"test_loss": 0.6, "test_pixels": 640}
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["cube.json", "maps"]
    assert (workspace.mlflow_artifacts / run.run_id / "artifacts" / "cube.json").exists()


def test_a_model_is_registered_once_and_called_champion(workspace, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "card.json").write_text("{}")
    tracker = Tracker(workspace, "landscape")
    run = tracker.evaluate_run("cnn", EvaluationRecord("e1", {}, {}, folder))
    package = ModelPackage(folder, FORM, MERIT)
    assert tracker.register("landscape", package, run) == "1"
    assert tracker.register("landscape", package, run) == "1"
    (folder / "card.json").write_text('{"seed": 1}')
    assert tracker.register("landscape", replace(package, merit=replace(MERIT, value=0.7)), run) == "2"
    client = MlflowClient(tracker.uri)
    assert client.get_model_version_by_alias("landscape", CHAMPION).version == 2
    stored = sorted(path.name for path in workspace.mlflow_artifacts.rglob("*") if path.is_file())
    assert stored.count("card.json") == 3  # the run's artifact and two versions
    assert not [name for name in stored if name.endswith((".pkl", ".pickle", ".pt"))]
    assert not (tmp_path / "mlruns").exists()
    assert tracker.n_missed == 0


def test_a_deleted_experiment_is_restored(workspace):
    tracker, search = write_search(workspace)
    client = MlflowClient(tracker.uri)
    client.delete_experiment(client.get_experiment_by_name("landscape").experiment_id)
    assert Tracker(workspace, "landscape").search_run("cnn", "abc", {}).run_id == search.run_id


def test_an_outage_is_a_warning(workspace, monkeypatch, caplog):
    def fail(*_, **__):
        raise MlflowException("database is locked\nwith a long tail")

    (workspace.root / "model").mkdir()
    (workspace.root / "model" / "card.json").write_text("{}")
    package = ModelPackage(workspace.root / "model", FORM, MERIT)
    tracker = Tracker(workspace, "landscape")
    search = tracker.search_run("cnn", "abc", {})
    with monkeypatch.context() as broken, caplog.at_level(logging.WARNING, "cropray.tracking"):
        broken.setattr(MlflowClient, "search_runs", fail)
        broken.setattr(MlflowClient, "search_model_versions", fail)
        configuration = tracker.configuration_run(search, "learning_rate=0.001", {})
        tracker.fold_run(configuration, FoldRecord(0, SCORES))
        tracker.finish(configuration, SCORES)
        assert tracker.register("landscape", package, configuration) is None
    assert tracker.n_missed == 4
    assert [record.levelname for record in caplog.records].count("WARNING") == 1  # said once, not at every write
    assert "(database is locked); work goes on" in caplog.text

    tracker, _ = write_search(workspace)
    assert len(runs_of(tracker)[1]) == 7


def test_an_unreachable_server_is_a_warning(workspace, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    tracker = Tracker(workspace, "landscape", "http://127.0.0.1:9")  # the discard port: nothing listens
    assert tracker.search_run("cnn", "abc", {}).run_id is None
    assert tracker.n_missed == 2
    assert "http://127.0.0.1:9" in caplog.text


def test_flatten_joins_nested_keys():
    assert flatten({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}


def test_the_ui_serves_the_workspace_store(workspace):
    command = ui_command(workspace, port=5055)
    assert command[1:4] == ["-m", "mlflow", "ui"]
    assert command[-3:] == [f"sqlite:///{workspace.mlflow_database.resolve()}", "--port", "5055"]
