"""What evaluations leave in the tracker: runs below their searches, versions of the job's own model."""

import json
from types import SimpleNamespace

import mlflow
import pytest
from mlflow import MlflowClient

from cropray.io.storage import write_json
from cropray.io.workspace import Workspace
from cropray.search.results import FoldResult, save_results
from cropray.stages import evaluate
from cropray.stages import map as map_stage
from cropray.stages.results import _gain, _interval_metrics, evaluation_run, load_configurations, register_model
from cropray.tracking import Tracker, outcome
from tests.maps.builders import CLASSES, RULE, ruled, save_trees
from tests.study import FEATURE_COLUMNS

BEST = {"n_estimators": 8, "learning_rate": 0.3}


@pytest.fixture
def job(tmp_path):
    """A job whose search and test are done."""
    job = SimpleNamespace(name="loire 2023", artefacts=Workspace(tmp_path), tracking_uri=None, seed=3)
    search = Tracker(job.artefacts, job.name).search_run("xgboost", "abc", {})
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
    tracker, run = evaluation_run(job, SimpleNamespace(fingerprint=lambda: "d7"), "xgboost")
    register_model(job, tracker, run)
    client = MlflowClient(tracker.uri)
    assert [model.name for model in client.search_registered_models()] == ["loire 2023"]
    version = client.get_model_version_by_alias("loire 2023", "xgboost")
    assert version.run_id == run.run_id
    assert version.tags["cropray.objective"] == "val_macro_f1"
    assert (version.tags["cropray.objective_value"], version.tags["cropray.dataset"]) == ("0.5", "d7")
    search = client.get_run(client.get_run(run.run_id).data.tags["mlflow.parentRunId"])
    assert search.data.tags["cropray.key"] == "search/xgboost/abc"
    mlflow.set_tracking_uri(tracker.uri)
    metadata = mlflow.pyfunc.load_model("models:/loire 2023@champion").metadata
    assert metadata.metadata["classes"] == [crop.name for crop in CLASSES]
    assert metadata.metadata["bands"] == ["B02", "B03", "B04", "B08"]
    assert metadata.signature.inputs.input_names() == list(FEATURE_COLUMNS)
    assert [line for line in outcome(tracker) if "alias" not in line] == ["model 'loire 2023': version 1 (xgboost)"]


def test_how_a_model_decides_stands_beside_its_test(job):
    path, found = job.artefacts.search_result("xgboost"), SimpleNamespace(fingerprint=lambda: "d7")
    tracker, plain = evaluation_run(job, found, "xgboost")
    scores = {"accuracy": 0.9, "macro_f1": 0.5, "loss": 0.3, "ece": 0.1}
    decision = {"settings": {"rule": "prior"}, "tau": 0.35, "temperature": 1.25, "before": scores}
    decision["after"] = {**scores, "macro_f1": 0.6}
    write_json(path, {**json.loads(path.read_text()), "decision": decision})
    save_trees(job.artefacts.model("xgboost"), seed=3)
    tracker, run = evaluation_run(job, found, "xgboost")
    told, untold = (MlflowClient(tracker.uri).get_run(one.run_id).data for one in (run, plain))
    assert (told.metrics["oof_macro_f1"], told.metrics["oof_macro_f1_argmax"]) == (0.6, 0.5)
    assert (told.params["decision.rule"], told.params["decision.tau"]) == ("prior", "0.35")
    assert told.params["decision.temperature"] == "1.25"
    assert not [name for name in (*untold.metrics, *untold.params) if name.startswith(("oof", "decision"))]


@pytest.mark.parametrize(("elsewhere", "moves"), [(0.58, True), (0.47, False)])
def test_an_alias_goes_to_the_same_fits_where_they_decide_better(job, elsewhere, moves):
    """Scores of folds are of the likeliest class, whatever the decision."""
    path, found = job.artefacts.search_result("xgboost"), SimpleNamespace(fingerprint=lambda: "d7")
    tracker, run = evaluation_run(job, found, "xgboost")
    register_model(job, tracker, run)
    before = {"accuracy": 0.9, "macro_f1": 0.52, "loss": 0.3, "ece": 0.1}
    decision = {"settings": {"rule": "prior"}, "tau": 0.4, "temperature": 1.0, "before": before, "after": before}
    decision["other_folds"] = {"accuracy": 0.9, "macro_f1": elsewhere}
    write_json(path, {**json.loads(path.read_text()), "decision": decision})
    ruled(job.artefacts.model("xgboost"), RULE)
    tracker, run = evaluation_run(job, found, "xgboost")
    register_model(job, tracker, run)
    client = MlflowClient(tracker.uri)
    value = client.get_model_version("loire 2023", "2").tags["cropray.objective_value"]
    assert float(value) == pytest.approx(0.5 + elsewhere - 0.52)
    assert str(client.get_model_version_by_alias("loire 2023", "champion").version) == ("2" if moves else "1")


@pytest.mark.parametrize(("key", "gain"), [("loss", -0.2), ("accuracy", 0.0), ("ece", 0.0)])
def test_tempered_probabilities_are_worth_their_loss(key, gain):
    of = {"before": {"loss": 0.5, "accuracy": 0.8}, "after": {"loss": 0.3, "accuracy": 0.9}, "other_folds": None}
    assert _gain(of, key) == pytest.approx(gain)
    assert _gain(None, key) == 0.0


def test_evaluations_alone_register_models():
    assert hasattr(evaluate, "register_model")
    assert not hasattr(map_stage, "register_model")


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
