"""What the user hears of a store that does not take writes, and what is never sent to it."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cropray.commands import doctor
from cropray.core.errors import ConfigError, CroprayError
from cropray.io.storage import content_id, write_json
from cropray.io.workspace import Workspace
from cropray.io.workspace_lock import locked
from cropray.tracking import Tracker, beside_stages, local_uri
from tests.tracking_history import (
    EXPERIMENT,
    SEARCH,
    candidate,
    evaluation_note,
    fold_result,
    prepare,
    search_note,
    write_unit,
)

OLDER = "0584bdc529eb"  # a version of the tables that MLflow 3.17 migrates from
NEWER = "feedfacecafe"
SECRET = "hunter2"


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
    tracker.note(search_note())
    assert tracker.close() == 1  # at once: waiting mends nothing
    (line,) = tracker.outcome()
    assert f"out-of-date database schema (found version {version}" in line
    assert "1 writes wait in" in line
    assert advice in line
    with pytest.raises(CroprayError, match=advice[:20]):
        doctor._check_tracking(Job(workspace))
    assert "1 writes wait in" in Tracker(workspace, EXPERIMENT).outcome()[0]  # any later process says it again
    set_schema(workspace, ours)
    made = f"1 writes that waited for MLflow store '{local_uri(workspace)}' are made"
    assert doctor._check_tracking(Job(workspace)) == f"{local_uri(workspace)}; {made}"
    assert Tracker(workspace, EXPERIMENT).outcome() == []


def test_a_server_that_is_away_is_named_with_what_to_do(tmp_path):
    tracker = Tracker(prepare(tmp_path), EXPERIMENT, "http://127.0.0.1:9")
    tracker.note(search_note(metrics={"val_loss": 0.5}))
    tracker.note(evaluation_note())
    assert tracker.close(0) == 2
    (line,) = tracker.outcome()
    assert f"2 writes wait in '{tmp_path}/runs' (evaluate/cnn/e1, {SEARCH})" in line
    assert "Connection refused" in line
    assert "start the server, or set tracking_uri" in line


def test_what_another_store_missed_is_written_to_the_one_that_the_job_names_now(workspace):
    Tracker(workspace, "before", "http://127.0.0.1:9").note(search_note("before"))
    tracker = Tracker(workspace, EXPERIMENT)
    assert tracker.outcome() == [f"1 writes that waited for MLflow store '{tracker.uri}' are made"]
    client = MlflowClient(tracker.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("before").experiment_id])
    assert run.data.tags["cropray.key"] == SEARCH


def test_a_driver_that_is_missing_stops_no_search(tmp_path):
    tracker = Tracker(prepare(tmp_path), EXPERIMENT, "mssql+pymssql:///?host=nowhere")
    tracker.note(search_note())
    assert not tracker.answers
    assert "pymssql" in tracker.outcome()[0]


def test_what_an_earlier_version_kept_for_a_store_is_removed_aloud(workspace):
    kept = workspace.root / "spool" / "5e884898da280471" / "00000001-abc.json"
    write_json(kept, {"kind": "files", "key": SEARCH, "time_ms": 5, "folder": "../outside", "subfolder": "maps"})
    (line,) = Tracker(workspace, EXPERIMENT).outcome()
    assert line.startswith(
        f"'{workspace.root}/spool', in which an earlier version kept what MLflow had missed, is removed"
    )
    assert not (workspace.root / "spool").exists()
    assert Tracker(workspace, EXPERIMENT).outcome() == []


def test_a_command_beside_a_stage_that_is_at_work_writes_nothing(workspace):
    """There is one writer: two would make the same runs."""
    stage = Tracker(workspace, EXPERIMENT, "http://127.0.0.1:9")
    stage.note(search_note())
    with locked(workspace.root):
        beside = beside_stages(workspace, EXPERIMENT, None)
    assert beside.runs_page().startswith("/#/experiments/1/runs")
    (line,) = beside.outcome()
    assert line.startswith("MLflow is not brought up to date with the workspace now: workspace '")
    client = MlflowClient(beside.uri)
    assert not client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert "1 writes that waited" in beside_stages(workspace, EXPERIMENT, None).outcome()[0]


def test_a_deleted_experiment_is_restored_aloud(workspace):
    client = MlflowClient(local_uri(workspace))
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    assert Tracker(workspace, EXPERIMENT).outcome() == [
        f"experiment '{EXPERIMENT}' had been deleted in MLflow and is restored"
    ]


def test_scores_that_are_no_numbers_are_left_out_aloud(workspace):
    tracker = Tracker(workspace, EXPERIMENT)
    tracker.note(search_note(metrics={"val_loss_mean": float("nan"), "val_accuracy_mean": 0.5}))
    tracker.sync()
    (line,) = tracker.outcome()
    assert "val_loss" in line
    assert "val_accuracy" not in line
    assert Tracker(workspace, EXPERIMENT).outcome() == []  # said once


@pytest.mark.parametrize("folder", ["Shared%20Drive", "50%", "a#b &c", "%2Fetc", "é=ü;@"])
def test_a_workspace_has_its_store_whatever_its_path(tmp_path, folder):
    root = tmp_path / folder
    (tmp_path / "Shared Drive").mkdir()  # what an unquoted address would find
    workspace = prepare(root)
    workspace.prepare()
    tracker = Tracker(workspace, EXPERIMENT)
    tracker.note(evaluation_note())
    assert tracker.sync() == 0, tracker.trouble()
    assert workspace.mlflow_database.exists()
    run = run_of(tracker, "evaluate/cnn/e1").info
    assert (workspace.mlflow_artifacts / run.run_id / "artifacts" / "cube.json").exists()
    client = MlflowClient(tracker.uri)
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["cube.json"]
    assert Path(client.download_artifacts(run.run_id, "cube.json", str(tmp_path))).read_text() == "[1]"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({folder, "Shared Drive", "cube.json"})


def test_a_path_that_ray_data_would_cut_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"why\?' holds the character '\?'"):
        Workspace(tmp_path / "why?").prepare()
    assert not list(tmp_path.iterdir())


def run_of(tracker, key):
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    (run,) = client.search_runs([experiment], f"tags.`cropray.key` = '{key}'")
    return run


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_text(SECRET)
    return folder


@pytest.mark.parametrize("planted", ["evaluation/cnn", "evaluation/cnn/inner", "models/cnn", "models/cnn/inner"])
def test_nothing_outside_of_the_workspace_is_uploaded_through_a_link(tmp_path, template, outside, planted):
    workspace = prepare(tmp_path / "work")
    shutil.copy(template, workspace.root / "mlflow.db")
    note = evaluation_note(candidate=candidate(workspace))
    link = workspace.root / planted
    if link.exists():
        shutil.rmtree(link)
    link.symlink_to(outside)
    tracker = Tracker(workspace, EXPERIMENT)
    tracker.note(note)
    assert tracker.close(0) == 0
    assert not [path for path in workspace.mlflow_artifacts.rglob("*") if path.is_file() and SECRET in path.read_text()]
    assert "will never write 'evaluate/cnn/e1'" in tracker.outcome()[0]
    assert "leads out of the workspace" in tracker.outcome()[0]


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "../../outside"},
        {"model": ".."},
        {"model": "/etc"},
        {"maps": {"../../../outside/secret": "*"}},
        {"kind": "files"},
        {"folder": "../outside"},
    ],
)
def test_a_note_that_somebody_else_wrote_leads_nowhere(tmp_path, template, outside, changed):
    workspace = prepare(tmp_path / "work")
    shutil.copy(template, workspace.root / "mlflow.db")
    (outside / "secret.png").write_text(SECRET)
    if "maps" in changed:
        changed = {"maps": dict.fromkeys(changed["maps"], content_id(outside / "secret.png"))}
        workspace.map_preview("cnn", "z1").parent.mkdir(parents=True)
    write_json(workspace.run("evaluate/cnn") / "run.json", {**evaluation_note().model_dump(mode="json"), **changed})
    tracker = Tracker(workspace, EXPERIMENT)
    assert tracker.close(0) == 0
    assert not [path for path in workspace.mlflow_artifacts.rglob("*") if path.is_file() and SECRET in path.read_text()]
    (line,) = tracker.outcome()
    assert "leads out of the workspace" in line or "is damaged or of another version of cropray" in line


def test_a_note_of_another_version_is_named_and_not_counted_as_made(workspace):
    tracker = Tracker(workspace, EXPERIMENT, "http://127.0.0.1:9")
    tracker.note(search_note())
    write_json(workspace.run("search/cnn/def") / "run.json", {**search_note().model_dump(mode="json"), "n_zones": 3})
    made, left_out = Tracker(workspace, EXPERIMENT).outcome()
    assert "def/run.json' is damaged or of another version of cropray" in left_out
    assert "run `cropray search CONFIG.yaml` again" in left_out
    assert made.startswith("1 writes that waited")


def test_an_evaluation_and_its_search_name_each_other(workspace):
    tracker = Tracker(workspace, EXPERIMENT)
    tracker.note(evaluation_note(search=SEARCH))  # its search is of a workspace that was left behind
    tracker.sync()
    missing = f"run '{SEARCH}' is not in the store: the evaluation of its winner is not linked to it"
    assert tracker.outcome() == [missing]
    unlinked = run_of(tracker, "evaluate/cnn/e1")
    assert "mlflow.parentRunId" not in unlinked.data.tags
    tracker = Tracker(workspace, EXPERIMENT)
    tracker.note(search_note(metrics={"best": 1.0}))
    tracker.close(0)
    linked, search = run_of(tracker, "evaluate/cnn/e1"), run_of(tracker, SEARCH)
    assert linked.info.run_id == unlinked.info.run_id
    tags = linked.data.tags
    assert (tags["mlflow.parentRunId"], tags["cropray.search"]) == (search.info.run_id, SEARCH)
    assert search.info.run_id in tags["mlflow.note.content"]
    assert search.data.tags["cropray.evaluation"] == linked.info.run_id
    assert Tracker(workspace, EXPERIMENT).outcome() == []


def test_a_wait_that_is_no_number_is_named(workspace, monkeypatch):
    monkeypatch.setenv("CROPRAY_TRACKING_WAIT_S", "half a minute")
    tracker = Tracker(workspace, EXPERIMENT)
    tracker.close()
    assert tracker.outcome() == [
        "CROPRAY_TRACKING_WAIT_S='half a minute' is no number of seconds; up to 30 s are waited for MLflow"
    ]


def test_a_text_that_is_too_long_says_that_it_was_cut(workspace):
    tracker = Tracker(workspace, EXPERIMENT)
    tracker.note(search_note(params={"zones": "z" * 7000, "seed": 1}))
    tracker.sync()
    params = run_of(tracker, SEARCH).data.params
    assert (len(params["zones"]), params["zones"][-9:], params["seed"]) == (6000, "z … (cut)", "1")


def test_a_note_that_the_workspace_does_not_take_is_tracked_and_named(workspace, monkeypatch):
    tracker = Tracker(workspace, EXPERIMENT)
    monkeypatch.setattr(tracker, "_rests_until", 0.0)
    workspace.run("").write_text("a file where a folder is needed")
    tracker.note(search_note())
    assert run_of(tracker, SEARCH).data.params["seed"] == "7"
    (line,) = tracker.outcome()
    assert "run.json' cannot be written" in line


def test_runs_that_an_earlier_version_wrote_are_completed_and_not_doubled(workspace):
    """Its searches and configurations did not say what they were closed with."""
    name = write_unit(workspace, {"depth": 3}, 0)
    tracker = Tracker(workspace, EXPERIMENT)
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    parent = None
    for key in (SEARCH, f"{SEARCH}/depth=3", f"{SEARCH}/depth=3/fold-0"):
        tags = {"cropray.key": key, **({} if parent is None else {"mlflow.parentRunId": parent})}
        parent = client.create_run(experiment, 5, tags).info.run_id
        client.log_metric(parent, "val_accuracy", 0.25)
        client.set_terminated(parent)
    tracker.note(search_note(units=(name,), n_folds=1, metrics={"best": 0.75}))
    assert tracker.close(0) == 0
    assert len(client.search_runs([experiment])) == 3
    assert client.get_run(parent).data.metrics == {"val_accuracy": 0.25}  # a fold that was finished stands
    means = run_of(tracker, f"{SEARCH}/depth=3").data.metrics
    assert means["val_accuracy_mean"] == fold_result({}, 0).scores.as_metrics("val")["val_accuracy"]
    assert run_of(tracker, SEARCH).data.metrics["best"] == 0.75
