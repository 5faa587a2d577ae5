"""Runs and models in a real SQLite store, as they follow from a workspace."""

import shutil
import sqlite3
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from cropray.io.storage import write_json
from cropray.io.workspace import Workspace
from cropray.io.workspace_lock import locked
from cropray.tracking import CHAMPION, ResultNote, RunningFold, Tracker, as_keys, beside_stages, local_uri, ui_command
from cropray.tracking.records import flatten
from tests.tracking_history import (
    EXPERIMENT,
    MERIT,
    SEARCH,
    candidate,
    contents,
    evaluation_note,
    fold_result,
    prepare,
    run_history,
    search_note,
    write_unit,
)

RATES = (0.001, 0.0001)
SCORES = fold_result({}, 0).scores.as_metrics("val")


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


def write_search(workspace, **closing):
    """Leave a search of two configurations and two folds, as a stage does, and track it."""
    units = [write_unit(workspace, {"learning_rate": rate}, fold) for rate in RATES for fold in range(2)]
    tracker = Tracker(workspace, EXPERIMENT)
    tracker.note(search_note(units=tuple(units), metrics={"best_val_loss_mean": 0.5, **closing}))
    assert tracker.sync() == 0
    return tracker


def runs_of(tracker):
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return client, client.search_runs([experiment.experiment_id])


def by_key(tracker):
    return {run.data.tags["cropray.key"]: run for run in runs_of(tracker)[1]}


def n_metric_rows(workspace):
    with sqlite3.connect(workspace.mlflow_database) as database:
        return database.execute("select count(*) from metrics").fetchone()[0]


def test_the_tree_is_visible_by_parent_run_id(workspace):
    tracker = write_search(workspace)
    client, runs = runs_of(tracker)
    search = by_key(tracker)[SEARCH]
    children = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
    configurations = [run_id for run_id, parent in children.items() if parent == search.info.run_id]
    assert len(configurations) == 2
    for configuration in configurations:
        assert sorted(client.get_run(r).info.run_name for r, parent in children.items() if parent == configuration) == [
            "fold 0",
            "fold 1",
        ]
    assert len(runs) == 1 + 2 + 4
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_fold_is_seen_while_it_is_fitted(workspace):
    tracker = Tracker(workspace, EXPERIMENT)
    name, params = "learning_rate=0.1-fold=0", {"learning_rate": 0.1}
    steps = [{"step": n, "val_loss": 0.8 / n} for n in (1, 2, 3)]
    for number in (1, 2):
        running = RunningFold(params=params, fold=0, history=tuple(steps[:number]))
        note = search_note(units=(name,), running={name: running})
        tracker.note(note)
        tracker.sync()
        client, runs = runs_of(tracker)
        (fold,) = [run for run in runs if run.info.run_name == "fold 0"]
        assert fold.info.status == "RUNNING"
        assert [p.step for p in client.get_metric_history(fold.info.run_id, "curve/val_loss")] == [1, 2][:number]
    write_unit(workspace, params, 0, history=steps)
    for tracker in (tracker, Tracker(workspace, EXPERIMENT)):  # noqa: B020  this process and a later one
        tracker.sync()
        finished = client.get_run(fold.info.run_id)  # the same run
        assert finished.info.status == "FINISHED"
        curve = client.get_metric_history(fold.info.run_id, "curve/val_loss")
        assert [(point.step, point.value) for point in curve] == [(n, 0.8 / n) for n in (1, 2, 3)]
        assert {key: finished.data.metrics[key] for key in SCORES} == SCORES
    late = RunningFold(params=params, fold=0, history=({"step": 9, "val_loss": 9.0},))
    tracker.note(note.model_copy(update={"running": {name: late}}))
    tracker.sync()
    assert client.get_run(fold.info.run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(fold.info.run_id, "curve/val_loss")) == 3


def test_a_search_that_was_killed_shows_how_far_its_fits_were(workspace):
    """Steps stand in the workspace too: whatever the store missed of them is written by the next command."""
    name, running = "a-fold=1", RunningFold(params={"a": 1}, fold=1, history=({"step": 4, "val_loss": 0.7},))
    Tracker(workspace, EXPERIMENT, "http://127.0.0.1:9").note(search_note(units=(name,), running={name: running}))
    tracker = Tracker(workspace, EXPERIMENT)
    fold = by_key(tracker)[f"{SEARCH}/a=1/fold-1"]
    assert (fold.info.status, fold.data.metrics) == ("RUNNING", {"curve/val_loss": 0.7})


def test_params_are_flat_and_metrics_have_the_contract_names(workspace):
    tracker = write_search(workspace)
    runs = by_key(tracker)
    assert runs[SEARCH].data.params == {"seed": "7", "cnn.epochs": "2"}
    fold = runs[f"{SEARCH}/learning_rate=0.001/fold-1"]
    wanted = fold_result({}, 1).scores.as_metrics("val")
    assert {key: fold.data.metrics[key] for key in wanted} == wanted  # not hidden by the curve's last point
    curve = MlflowClient(tracker.uri).get_metric_history(fold.info.run_id, "curve/val_loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.8), (2, 1 / 3)]
    means = runs[f"{SEARCH}/learning_rate=0.001"].data.metrics
    assert means["val_accuracy_mean"] == 0.8
    assert means["val_loss_std"] == pytest.approx(0.025)


def test_means_of_some_folds_close_no_configuration(workspace):
    tracker = Tracker(workspace, EXPERIMENT)
    units = [write_unit(workspace, {"depth": 3}, fold) for fold in range(3)]
    units += [write_unit(workspace, {"depth": 4}, fold) for fold in range(2)]
    tracker.note(search_note(units=(*units, "depth=5-fold=0"), n_folds=3, metrics={"best": 1.0}))
    tracker.sync()
    runs = by_key(tracker)
    assert runs[f"{SEARCH}/depth=3"].info.status == "FINISHED"
    cut = runs[f"{SEARCH}/depth=4"]
    assert (cut.info.status, cut.data.metrics) == ("RUNNING", {})
    assert runs[SEARCH].info.status == "FINISHED"
    assert len(runs) == 1 + 2 + 5


def test_writing_a_search_twice_adds_nothing(workspace):
    tracker = write_search(workspace)
    before = {run.info.run_id for run in runs_of(tracker)[1]}, n_metric_rows(workspace)
    tracker = write_search(workspace)
    assert ({run.info.run_id for run in runs_of(tracker)[1]}, n_metric_rows(workspace)) == before


def test_an_interrupted_search_is_continued(workspace):
    tracker = Tracker(workspace, EXPERIMENT)
    write_unit(workspace, {"learning_rate": 0.001}, 0)
    other = write_unit(workspace, {"learning_rate": 0.001}, 1, right=3)
    tracker.note(search_note(units=("learning_rate=0.001-fold=0", other)))
    tracker.sync()
    client, _ = runs_of(tracker)
    search, half_written = (by_key(tracker)[f"{SEARCH}{end}"].info for end in ("", "/learning_rate=0.001/fold-1"))
    client.set_terminated(half_written.run_id, "RUNNING")

    tracker = write_search(workspace)
    runs = by_key(tracker)
    assert runs[SEARCH].info.run_id == search.run_id
    assert half_written.run_id not in {run.info.run_id for run in runs.values()}
    assert len(runs) == 7
    folds = [run for run in runs.values() if run.data.tags["cropray.kind"] == "fold"]
    assert all(run.data.metrics["val_accuracy"] == 0.8 for run in folds)


def test_closing_metrics_can_be_corrected(workspace):
    write_search(workspace)
    tracker = write_search(workspace, best_val_loss_mean=0.4)
    assert by_key(tracker)[SEARCH].data.metrics["best_val_loss_mean"] == 0.4


def test_histories_longer_than_one_request(workspace):
    tracker = Tracker(workspace, EXPERIMENT)
    rounds = [{"step": 10 * i, "val_loss": 1 / i, "train_loss": float("nan")} for i in range(1, 1202)]
    tracker.note(search_note(units=(write_unit(workspace, {"a": 1}, 0, history=rounds),)))
    tracker.sync()
    run = by_key(tracker)[f"{SEARCH}/a=1/fold-0"]
    points = MlflowClient(tracker.uri).get_metric_history(run.info.run_id, "curve/val_loss")
    assert (len(points), points[-1].step) == (1201, 12010)
    assert "curve/train_loss" not in run.data.metrics  # values that are not finite are left out


def test_an_evaluation_stores_its_files_under_the_workspace(workspace):
    folder = workspace.evaluation("cnn")
    folder.mkdir(parents=True)
    (folder / "cube.json").write_text("[]")
    picture = workspace.map_preview("cnn", "k1")
    picture.parent.mkdir(parents=True)
    picture.write_text("drawn by another model")
    tracker = Tracker(workspace, EXPERIMENT)
    note = evaluation_note(metrics={"test_loss": 0.6, "test_pixels": 640}, maps={"k1": "another picture", "k2": "gone"})
    for _ in range(2):
        tracker.note(note)
        assert tracker.sync() == 0
    client = MlflowClient(tracker.uri)
    (run,) = by_key(tracker).values()
    assert run.data.metrics == {"test_loss": 0.6, "test_pixels": 640}
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["cube.json"]
    assert (workspace.mlflow_artifacts / run.info.run_id / "artifacts" / "cube.json").exists()


def test_a_model_is_registered_once_and_called_champion(workspace, tmp_path):
    write_json(workspace.model("cnn") / "card.json", {})
    tracker = Tracker(workspace, EXPERIMENT)
    for asked_ms in (1, 2):
        tracker.note(evaluation_note(candidate=candidate(workspace, asked_ms=asked_ms)))
        assert tracker.sync() == 0
    write_json(workspace.model("cnn") / "card.json", {"seed": 1})
    better = candidate(workspace, replace(MERIT, value=0.7))
    tracker.note(evaluation_note(key="evaluate/cnn/e2", candidate=better))
    assert tracker.sync() == 0
    client = MlflowClient(tracker.uri)
    assert len(client.search_model_versions(f"name = '{EXPERIMENT}'")) == 2
    assert client.get_model_version_by_alias(EXPERIMENT, CHAMPION).version == 2
    stored = sorted(path.name for path in workspace.mlflow_artifacts.rglob("*") if path.is_file())
    assert stored.count("card.json") == 2
    assert not [name for name in stored if name.endswith((".pkl", ".pickle", ".pt"))]
    assert not (tmp_path / "mlruns").exists()
    assert tracker.answers


@pytest.mark.parametrize("deleted", ["", f"/learning_rate={RATES[0]}", f"/learning_rate={RATES[0]}/fold-1"])
def test_a_run_that_a_person_deleted_comes_back_with_what_belongs_to_it(workspace, deleted):
    tracker = write_search(workspace)
    tracker.note(evaluation_note(search=SEARCH))
    tracker.sync()
    client, before = MlflowClient(tracker.uri), by_key(tracker)
    client.delete_run(before[SEARCH + deleted].info.run_id)
    if deleted:  # what a closed search holds is not looked at
        client.delete_tag(before[SEARCH].info.run_id, "cropray.content")
    if deleted.endswith("fold-1"):
        client.delete_tag(before[f"{SEARCH}/learning_rate={RATES[0]}"].info.run_id, "cropray.content")
    client, runs = runs_of(Tracker(workspace, EXPERIMENT))
    after = by_key(tracker)
    assert len(runs) == len(after) == 8
    kept = {key for key, run in after.items() if run.info.run_id == before[key].info.run_id}
    assert kept == after.keys() - {SEARCH + deleted}
    for key, run in after.items():
        above = SEARCH if key.startswith("evaluate") else key.rpartition("/")[0]
        assert run.data.tags.get("mlflow.parentRunId") == (None if key == SEARCH else after[above].info.run_id)


def test_a_deleted_experiment_is_restored(workspace):
    tracker = write_search(workspace)
    client, before = MlflowClient(tracker.uri), by_key(tracker)
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    after = by_key(Tracker(workspace, EXPERIMENT))
    assert {key: run.info.run_id for key, run in after.items()} == {key: r.info.run_id for key, r in before.items()}


def test_a_store_that_was_lost_is_made_again_from_the_workspace(tmp_path, template):
    """Everything that it held: runs, links, files, versions and aliases."""
    first, second = prepare(tmp_path / "first"), Workspace(tmp_path / "second")
    shutil.copy(template, first.root / "mlflow.db")
    run_history(Tracker(first, EXPERIMENT), first)
    lost = shutil.ignore_patterns("mlflow.db", "mlartifacts")
    shutil.copytree(first.root, second.root, ignore=lost)
    tracker = Tracker(second, EXPERIMENT)
    assert contents(local_uri(second), "/") == contents(local_uri(first), "/")
    assert f"2 writes that waited for MLflow store '{tracker.uri}' are made" in tracker.outcome()


def test_runs_of_a_job_that_was_renamed_keep_their_experiment(workspace):
    write_search(workspace)
    tracker = Tracker(workspace, "new name")
    tracker.note(search_note("new name", key="search/cnn/def"))
    tracker.sync()
    assert len(runs_of(tracker)[1]) == 7
    other = MlflowClient(tracker.uri)
    (run,) = other.search_runs([other.get_experiment_by_name("new name").experiment_id])
    assert run.data.tags["cropray.key"] == "search/cnn/def"


def test_flatten_joins_nested_keys():
    assert flatten({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}


def test_the_ui_serves_the_workspace_store(workspace):
    command = ui_command(workspace, port=5055)
    assert command[1:4] == ["-m", "mlflow", "ui"]
    assert command[-3:] == [f"sqlite:///{workspace.mlflow_database.resolve()}", "--port", "5055"]


def test_what_is_made_of_tests_waits_while_a_stage_is_at_work(workspace):
    (workspace.root / "evaluation").mkdir()
    (workspace.root / "evaluation" / "pair.json").write_text("{}")
    note = ResultNote(
        experiment=EXPERIMENT, key="compare/cnn-and-forest-1f/d4", model="cnn", kind="compare", name="cnn − forest", time_ms=1000,
        metrics={"zones": 6}, files=("evaluation/pair.json", "evaluation/gone.json"),
    )  # fmt: skip
    with locked(workspace.root):
        tracker = beside_stages(workspace, EXPERIMENT, None, [note])
    assert "not brought up to date with the workspace now" in " ".join(tracker.outcome())
    assert by_key(tracker) == {}
    tracker = beside_stages(workspace, EXPERIMENT, None)
    client, (run,) = runs_of(tracker)
    assert (run.info.run_name, run.data.metrics) == ("cnn − forest", {"zones": 6})
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["pair.json"]


def test_names_that_keys_cannot_tell_apart_are_told_apart():
    names = ["Côte/Sud", "Côte-Sud", "Côte:Sud", "Jura (haut)", "x" * 300, "x" * 200 + "y" * 100, "plain"]
    keys = as_keys(names)
    assert [*keys] == names
    assert len({*keys.values()}) == len(names)
    assert max(map(len, keys.values())) < 220
    assert (keys["Côte-Sud"], keys["plain"], keys["Jura (haut)"]) == ("Côte-Sud", "plain", "Jura -haut-")
    assert as_keys(["Côte:Sud", "Jura"])["Côte:Sud"] == "Côte-Sud"  # as ever, where it is alone
    assert as_keys(reversed(names)) == keys
