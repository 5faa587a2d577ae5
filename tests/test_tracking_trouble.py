"""What the user hears of a store that does not take writes, and what is never sent to it."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cropray.commands import doctor
from cropray.core.errors import ConfigError, CroprayError
from cropray.io.storage import write_json
from cropray.io.workspace import Workspace
from cropray.tracking import EvaluationRecord, FoldRecord, Tracker, local_uri, outcome
from tests.tracking_history import EXPERIMENT, prepare

OLDER = "0584bdc529eb"  # a version of the tables that MLflow 3.17 migrates from
NEWER = "feedfacecafe"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    Tracker(prepare(root), EXPERIMENT)
    return root / "mlflow.db"


@pytest.fixture
def workspace(tmp_path, template):
    shutil.copy(template, tmp_path / "mlflow.db")
    return prepare(tmp_path)


def set_schema(workspace, version):
    with sqlite3.connect(workspace.mlflow_database) as database:
        (before,) = database.execute("select version_num from alembic_version").fetchone()
        database.execute("update alembic_version set version_num = ?", (version,))
    return before


class Job:
    """What `doctor` reads of a job."""

    name, tracking_uri = EXPERIMENT, None

    def __init__(self, workspace):
        self.artefacts = workspace


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (OLDER, "run `mlflow db upgrade sqlite:///"),
        (NEWER, "a newer MLflow has used this database: install that version"),
    ],
)
def test_a_database_of_another_mlflow_is_named_with_what_to_do(workspace, version, advice):
    ours = set_schema(workspace, version)
    tracker = Tracker(workspace, EXPERIMENT)
    tracker.search_run("cnn", "abc", {})
    assert tracker.close() == 1  # at once: waiting mends nothing
    (line,) = outcome(tracker)
    assert f"out-of-date database schema (found version {version}" in line
    assert "1 writes wait in" in line
    assert advice in line
    with pytest.raises(CroprayError, match=advice[:20]):
        doctor._check_tracking(Job(workspace))
    assert "1 writes wait in" in outcome(Tracker(workspace, EXPERIMENT))[0]  # any later process says it again
    set_schema(workspace, ours)
    made = f"1 writes that waited for MLflow store '{local_uri(workspace)}' are made"
    assert doctor._check_tracking(Job(workspace)) == f"{local_uri(workspace)}; {made}"
    assert outcome(Tracker(workspace, EXPERIMENT)) == []


def test_a_server_that_is_away_is_named_with_what_to_do(tmp_path):
    tracker = Tracker(prepare(tmp_path), EXPERIMENT, "http://127.0.0.1:9")
    search = tracker.search_run("cnn", "abc", {})
    tracker.finish(search, {"val_loss": 0.5})
    assert tracker.close(0) == 2
    (line,) = outcome(tracker, tracker)
    assert "2 writes wait in" in line
    assert "Connection refused" in line
    assert "start the server, or set tracking_uri" in line


def test_writes_for_another_store_are_not_forgotten(workspace):
    Tracker(workspace, "before", "http://127.0.0.1:9").search_run("cnn", "abc", {})
    (line,) = outcome(Tracker(workspace, EXPERIMENT))
    assert line.startswith("1 writes for another store or experiment (http://127.0.0.1:9 before) wait")


def test_a_driver_that_is_missing_stops_no_search(tmp_path):
    tracker = Tracker(prepare(tmp_path), EXPERIMENT, "mssql+pymssql:///?host=nowhere")
    assert tracker.search_run("cnn", "abc", {}).run_id is None
    assert "pymssql" in outcome(tracker)[0]


def test_a_deleted_experiment_is_restored_aloud(workspace):
    client = MlflowClient(local_uri(workspace))
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    assert outcome(Tracker(workspace, EXPERIMENT)) == [
        f"experiment '{EXPERIMENT}' had been deleted in MLflow and is restored"
    ]


def test_scores_that_are_no_numbers_are_left_out_aloud(workspace):
    tracker = Tracker(workspace, EXPERIMENT)
    search = tracker.search_run("cnn", "abc", {})
    tracker.fold_run(search, FoldRecord(0, {"val_loss": float("nan"), "val_accuracy": 0.5}))
    (line,) = outcome(tracker)
    assert "val_loss" in line
    assert "val_accuracy" not in line


@pytest.mark.parametrize("folder", ["Shared%20Drive", "50%", "a#b &c", "%2Fetc", "é=ü;@"])
def test_a_workspace_has_its_store_whatever_its_path(tmp_path, folder):
    root = tmp_path / folder
    (tmp_path / "Shared Drive").mkdir()  # what an unquoted address would find
    workspace = prepare(root)
    workspace.prepare()
    tracker = Tracker(workspace, EXPERIMENT)
    record = EvaluationRecord("e1", {}, {"test_loss": 0.5}, root / "evaluation" / "cnn")
    run = tracker.evaluate_run("cnn", record)
    assert tracker.n_missed == 0, tracker.trouble()
    assert workspace.mlflow_database.exists()
    assert (workspace.mlflow_artifacts / run.run_id / "artifacts" / "cube.json").exists()
    client = MlflowClient(tracker.uri)
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["cube.json"]
    assert Path(client.download_artifacts(run.run_id, "cube.json", str(tmp_path))).read_text() == "[1]"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({folder, "Shared Drive", "cube.json"})


def test_a_path_that_ray_data_would_cut_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"why\?' holds the character '\?'"):
        Workspace(tmp_path / "why?").prepare()
    assert not list(tmp_path.iterdir())


def planted(workspace, address):
    """A write as somebody else may have put it into the workspace."""
    tracker = Tracker(workspace, EXPERIMENT)
    search = tracker.search_run("cnn", "abc", {})
    operation = {"kind": "files", "key": search.key, "time_ms": 5, "folder": address, "subfolder": "stolen"}
    tracker._spool.folder.mkdir(parents=True)
    (tracker._spool.folder / "00000001-abc.json").write_text(json.dumps(operation))
    return search


@pytest.mark.parametrize(
    "address", ["{outside}", "../outside", "models/../../outside", "file://{outside}", "link", "inner", "."]
)
def test_nothing_outside_of_the_workspace_is_uploaded(tmp_path, template, address):
    outside, root = tmp_path / "outside", tmp_path / "work"
    outside.mkdir()
    (outside / "secret.txt").write_text("hunter2")
    workspace = prepare(root)
    shutil.copy(template, root / "mlflow.db")
    (root / "link").symlink_to(outside)
    (root / "inner").mkdir()
    (root / "inner" / "deeper").symlink_to(outside)
    search = planted(workspace, address.format(outside=outside))
    tracker = Tracker(workspace, EXPERIMENT)
    assert MlflowClient(tracker.uri).list_artifacts(search.run_id) == []
    assert not [path for path in workspace.mlflow_artifacts.rglob("*") if path.is_file()]
    assert "will never store 'stolen'" in outcome(tracker)[0]
    assert tracker.close(0) == 0
    assert len([*(tracker._spool.folder / "refused").iterdir()]) == 1


def test_a_write_of_another_version_is_named_set_aside_and_not_counted_as_made(tmp_path):
    workspace = prepare(tmp_path)
    folder = Tracker(workspace, EXPERIMENT)._spool.folder
    run = {
        "kind": "open",
        "key": "k",
        "time_ms": 1,
        "model": "cnn",
        "parent": None,
        "name": "n",
        "params": {},
        "tags": {},
    }
    write_json(folder / "00000001-a.json", run)
    write_json(
        folder / "00000002-b.json", {"kind": "register", "key": "k", "time_ms": 2, "name": "m", "input_shape": [48]}
    )
    left_out, made = outcome(Tracker(workspace, EXPERIMENT))
    assert "00000002-b.json', which is damaged or of another version of cropray" in left_out
    assert made.startswith("1 writes that waited")
    assert [file.name for file in (folder / "refused").iterdir()] == ["00000002-b.json"]


def test_a_file_out_of_the_workspace_is_uploaded_after_an_outage(tmp_path, template, monkeypatch):
    """Folders that end with their stage are copied into the workspace first."""
    workspace = prepare(tmp_path / "work")
    shutil.copy(template, workspace.root / "mlflow.db")
    (tmp_path / "temporary").mkdir()
    (tmp_path / "temporary" / "z1.png").write_text("map")
    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "get_experiment_by_name", lambda *_: (_ for _ in ()).throw(OSError("away")))
        tracker = Tracker(workspace, EXPERIMENT)
        search = tracker.search_run("cnn", "abc", {})
        tracker.add_artifacts(search, tmp_path / "temporary", "maps")
    shutil.rmtree(tmp_path / "temporary")
    later = Tracker(workspace, EXPERIMENT)
    assert outcome(later) == [f"2 writes that waited for MLflow store '{later.uri}' are made"]
    run = later.search_run("cnn", "abc", {})
    assert [file.path for file in MlflowClient(later.uri).list_artifacts(run.run_id, "maps")] == ["maps/z1.png"]


def test_an_evaluation_and_its_search_name_each_other(workspace):
    tracker = Tracker(workspace, EXPERIMENT)
    search = tracker.search_run("cnn", "abc", {})
    record = EvaluationRecord("e1", {}, {"test_loss": 0.5}, workspace.root / "evaluation" / "cnn")
    unlinked = tracker.evaluate_run("cnn", record)  # as an earlier version wrote it
    linked = tracker.evaluate_run("cnn", EvaluationRecord("e1", {}, {}, record.artifacts, search.key))
    assert linked.run_id == unlinked.run_id
    client = MlflowClient(tracker.uri)
    tags = client.get_run(linked.run_id).data.tags
    assert (tags["mlflow.parentRunId"], tags["cropray.search"]) == (search.run_id, search.key)
    assert search.run_id in tags["mlflow.note.content"]
    assert client.get_run(search.run_id).data.tags["cropray.evaluation"] == linked.run_id
    tracker.evaluate_run("cnn", EvaluationRecord("e2", {}, {}, record.artifacts, "search/cnn/gone"))
    assert outcome(tracker) == [
        "run 'search/cnn/gone' is not in the store: the evaluation of its winner is not linked to it"
    ]


def test_a_wait_that_is_no_number_is_named(workspace, monkeypatch):
    monkeypatch.setenv("CROPRAY_TRACKING_WAIT_S", "half a minute")
    tracker = Tracker(workspace, EXPERIMENT)
    tracker.close()
    assert outcome(tracker) == [
        "CROPRAY_TRACKING_WAIT_S='half a minute' is no number of seconds; up to 30 s are waited for MLflow"
    ]


def test_a_text_that_is_too_long_says_that_it_was_cut(workspace):
    tracker = Tracker(workspace, EXPERIMENT)
    run = tracker.search_run("cnn", "abc", {"zones": "z" * 7000, "seed": 1})
    params = MlflowClient(tracker.uri).get_run(run.run_id).data.params
    assert (len(params["zones"]), params["zones"][-9:], params["seed"]) == (6000, "z … (cut)", "1")
