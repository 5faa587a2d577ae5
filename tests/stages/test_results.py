"""What evaluations leave in the tracker: runs below their searches, versions of the job's own model."""

import io
from types import SimpleNamespace

import mlflow
import pytest
from mlflow import MlflowClient

from cropray.core.progress import Progress
from cropray.io.storage import write_json
from cropray.io.workspace import Workspace
from cropray.search.results import FoldResult, save_results
from cropray.stages import evaluate
from cropray.stages import map as map_stage
from cropray.stages.results import _interval_metrics, candidate_of, evaluation_note, load_configurations
from cropray.tracking import Tracker
from tests.maps.builders import CLASSES, save_trees
from tests.study import FEATURE_COLUMNS
from tests.tracking_history import search_note

MANIFEST = SimpleNamespace(fingerprint=lambda: "d7")
BEST = {"n_estimators": 8, "learning_rate": 0.3}


@pytest.fixture
def job(tmp_path):
    """A job whose search and test are done."""
    job = SimpleNamespace(name="loire 2023", artefacts=Workspace(tmp_path), tracking_uri=None, seed=3)
    search = search_note(job.name, key="search/xgboost/abc", model="xgboost")
    with Tracker(job.artefacts, job.name) as tracker:
        tracker.note(search)
    save_trees(job.artefacts.model("xgboost"))
    scores = {"metrics": {"test_accuracy": 0.75}, "intervals": None}
    write_json(job.artefacts.evaluation("xgboost") / "scores.json", scores)
    configurations = [
        {"params": {**BEST, "n_estimators": 4}, "val_macro_f1_mean": 0.9},
        {"params": BEST, "val_macro_f1_mean": 0.5},
    ]
    summary = {
        "model": "xgboost", "dataset": "d7", "objective": "val_macro_f1", "run": search.key,
        "best": BEST, "refit_steps": 8, "units": [], "configurations": configurations,
    }  # fmt: skip
    write_json(job.artefacts.search_result("xgboost"), summary)
    return job


def test_the_model_is_the_job_s_and_worth_its_objective(job):
    with Tracker(job.artefacts, job.name) as tracker:
        note = evaluation_note(job, MANIFEST, "xgboost", tracker)
        tracker.note(note.model_copy(update={"candidate": candidate_of(job, "xgboost")}))
    client = MlflowClient(tracker.uri)
    assert [model.name for model in client.search_registered_models()] == ["loire 2023"]
    version = client.get_model_version_by_alias("loire 2023", "xgboost")
    run = client.get_run(version.run_id)
    assert run.data.tags["cropray.key"] == note.key
    assert version.tags["cropray.objective"] == "val_macro_f1"
    assert (version.tags["cropray.objective_value"], version.tags["cropray.dataset"]) == ("0.5", "d7")
    search = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert search.data.tags["cropray.key"] == "search/xgboost/abc"
    mlflow.set_tracking_uri(tracker.uri)
    metadata = mlflow.pyfunc.load_model("models:/loire 2023@champion").metadata
    assert metadata.metadata["classes"] == [crop.name for crop in CLASSES]
    assert metadata.metadata["bands"] == ["B02", "B03", "B04", "B08"]
    assert metadata.signature.inputs.input_names() == list(FEATURE_COLUMNS)
    assert [line for line in tracker.outcome() if "alias" not in line] == ["model 'loire 2023': version 1 (xgboost)"]


def test_evaluations_alone_register_models(job, monkeypatch):
    """A map adds its pictures to the run of the test; what it says of the model is what `evaluate` said."""
    assert hasattr(evaluate, "candidate_of")
    assert not hasattr(map_stage, "candidate_of")
    with Tracker(job.artefacts, job.name) as tracker:
        tested = evaluation_note(job, MANIFEST, "xgboost", tracker)
        tracker.note(tested)
    client = MlflowClient(tracker.uri)
    assert not client.search_registered_models()
    registered = tested.model_copy(update={"candidate": candidate_of(job, "xgboost")})
    with Tracker(job.artefacts, job.name) as tracker:
        tracker.note(registered)
    client.set_registered_model_alias("loire 2023", "champion", 1)
    client.delete_registered_model_alias("loire 2023", "xgboost")
    picture = job.artefacts.map_preview("xgboost", "k1")
    picture.parent.mkdir(parents=True)
    picture.write_text("drawn")
    write_json(job.artefacts.manifest, {})
    monkeypatch.setattr(map_stage, "load_manifest", lambda _: MANIFEST)
    monkeypatch.setattr(map_stage, "why_no_scores", lambda *_: "")
    map_stage._record(job, "xgboost", [SimpleNamespace(zone_id="k1")], Progress(io.StringIO()))
    version = client.get_model_version_by_alias("loire 2023", "champion")
    assert [file.path for file in client.list_artifacts(version.run_id, "maps")] == ["maps/k1.png"]
    assert list(client.get_registered_model("loire 2023").aliases) == ["champion"]  # as the person left it
    assert len(client.search_model_versions("name = 'loire 2023'")) == 1


def test_a_test_of_another_model_has_none_of_the_pictures_of_the_one_before(job):
    tracker = Tracker(job.artefacts, job.name)
    before = evaluation_note(job, MANIFEST, "xgboost", tracker)
    tracker.note(before.model_copy(update={"maps": {"k1": "picture"}}))
    assert evaluation_note(job, MANIFEST, "xgboost", tracker).maps == {"k1": "picture"}
    card = job.artefacts.model("xgboost") / "notes.json"
    card.write_text("{}")
    after = evaluation_note(job, MANIFEST, "xgboost", tracker)
    assert (after.maps, after.key == before.key) == ({}, False)


def test_ends_of_intervals_are_metrics_of_their_own():
    intervals = {"test_accuracy": [0.7, 0.9], "test_macro_f1": [0.3, 0.5]}
    assert _interval_metrics({"intervals": intervals}) == {
        "test_accuracy_low": 0.7, "test_accuracy_high": 0.9, "test_macro_f1_low": 0.3, "test_macro_f1_high": 0.5,
    }  # fmt: skip
    assert _interval_metrics({"intervals": None, "no_intervals": "2 test zones"}) == {}


def test_a_configuration_whose_time_was_up_is_none_of_a_report(tmp_path):
    """Its mean over fewer folds would stand beside those of all."""
    workspace = Workspace(tmp_path)
    for name, fold in (("whole", 0), ("whole", 1), ("cut", 0)):
        found = FoldResult({"net": ["a", name]}, fold, 1.0, ((1, 0), (0, 1)), (), 1, 1.0)
        folder = workspace.unit("cnn", f"{name}-{fold}")
        folder.mkdir(parents=True)
        save_results(folder / "result.json", [found])
    summary = {"units": ["whole-0", "cut-0", "whole-1"], "configurations": [{"params": {"net": ["a", "whole"]}}]}
    (only,) = load_configurations(workspace, "cnn", summary)
    assert (only.params["net"], len(only.folds)) == (["a", "whole"], 2)
