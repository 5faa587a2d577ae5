"""What evaluations leave in the tracker: runs below their searches, versions of the job's own model."""

import io
import json
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
from cropray.stages.results import (
    _gain,
    candidate_of,
    evaluation_note,
    interval_metrics,
    load_configurations,
)
from cropray.tracking import Tracker
from tests.maps.builders import CLASSES, RULE, ruled, save_trees
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


def registered(job):
    """The test of the model as the tracker knows it, and its version: (client, note)."""
    with Tracker(job.artefacts, job.name) as tracker:
        note = evaluation_note(job, MANIFEST, "xgboost", tracker)
        tracker.note(note.model_copy(update={"candidate": candidate_of(job, "xgboost")}))
    return MlflowClient(tracker.uri), note


def test_how_a_model_decides_stands_beside_its_test(job):
    path = job.artefacts.search_result("xgboost")
    client, _ = registered(job)
    plain = client.get_run(client.get_model_version("loire 2023", "1").run_id).data
    scores = {"accuracy": 0.9, "macro_f1": 0.5, "loss": 0.3, "ece": 0.1}
    decision = {"settings": {"rule": "prior"}, "tau": 0.35, "temperature": 1.25, "before": scores, "other_folds": None}
    decision["after"] = {**scores, "macro_f1": 0.6}
    write_json(path, {**json.loads(path.read_text()), "decision": decision})
    save_trees(job.artefacts.model("xgboost"), seed=3)
    client, _ = registered(job)
    told = client.get_run(client.get_model_version("loire 2023", "2").run_id).data
    assert (told.metrics["oof_macro_f1"], told.metrics["oof_macro_f1_argmax"]) == (0.6, 0.5)
    assert (told.params["decision.rule"], told.params["decision.tau"]) == ("prior", "0.35")
    assert told.params["decision.temperature"] == "1.25"
    assert not [name for name in (*plain.metrics, *plain.params) if name.startswith(("oof", "decision"))]


def test_what_confidence_is_worth_in_each_region_stands_beside_it(job):
    path = job.artefacts.search_result("xgboost")
    scores = {"accuracy": 0.9, "macro_f1": 0.5, "loss": 0.3, "ece": 0.1}
    decision = {"settings": {"rule": "argmax"}, "tau": 0.0, "temperature": 1.4, "before": scores, "other_folds": None}
    regions = {"Val d'Oise / nord": {"rows": 900, "ece": {"before": 0.2, "after": 0.05}}, "Île": {"rows": 12}}
    of_all = {
        "after": scores,
        "unlike": {"share": 0.04},
        "reliability": {"before": [], "after": [], "regions": regions},
    }
    write_json(path, {**json.loads(path.read_text()), "decision": {**decision, **of_all}})
    client, _ = registered(job)
    told = client.get_run(client.get_model_version("loire 2023", "1").run_id).data.metrics
    assert {name: value for name, value in told.items() if "." in name} == {
        "oof_ece.Val d-Oise - nord": 0.05, "oof_ece_argmax.Val d-Oise - nord": 0.2,
        "oof_rows.Val d-Oise - nord": 900, "oof_rows.Île": 12,
    }  # fmt: skip
    assert told["oof_ece"] == told["oof_ece_argmax"] == 0.1
    assert told["oof_unlike"] == 0.04


def test_regions_whose_names_differ_in_signs_keep_figures_of_their_own(job):
    path = job.artefacts.search_result("xgboost")
    scores = {"accuracy": 0.9, "macro_f1": 0.5, "loss": 0.3, "ece": 0.1}
    regions = {name: {"rows": n, "ece": {"before": 0.2, "after": n / 1e4}} for n, name in ((500, "A+B"), (600, "A.B"))}
    summary = json.loads(path.read_text())
    summary["decision"] = {
        "settings": {"rule": "argmax"}, "tau": 0.0, "temperature": 1.4, "before": scores, "after": scores,
        "reliability": {"regions": regions}, "other_folds": None,
    }  # fmt: skip
    write_json(path, summary)
    told = evaluation_note(job, MANIFEST, "xgboost", SimpleNamespace(tested=lambda _: None)).metrics
    assert sorted(value for key, value in told.items() if key.startswith("oof_rows.A-B ")) == [500, 600]
    assert sorted(value for key, value in told.items() if key.startswith("oof_ece.A-B ")) == [0.05, 0.06]


@pytest.mark.parametrize(("elsewhere", "moves"), [(0.58, True), (0.47, False)])
def test_an_alias_goes_to_the_same_fits_where_they_decide_better(job, elsewhere, moves):
    """Scores of folds are of the likeliest class, whatever the decision."""
    path = job.artefacts.search_result("xgboost")
    registered(job)
    before = {"accuracy": 0.9, "macro_f1": 0.52, "loss": 0.3, "ece": 0.1}
    decision = {"settings": {"rule": "prior"}, "tau": 0.4, "temperature": 1.0, "before": before, "after": before}
    decision["other_folds"] = {"accuracy": 0.9, "macro_f1": elsewhere}
    write_json(path, {**json.loads(path.read_text()), "decision": decision})
    ruled(job.artefacts.model("xgboost"), RULE)
    client, _ = registered(job)
    value = client.get_model_version("loire 2023", "2").tags["cropray.objective_value"]
    assert float(value) == pytest.approx(0.5 + elsewhere - 0.52)
    assert str(client.get_model_version_by_alias("loire 2023", "champion").version) == ("2" if moves else "1")


@pytest.mark.parametrize(("key", "gain"), [("loss", -0.2), ("accuracy", 0.0), ("ece", 0.0)])
def test_tempered_probabilities_are_worth_their_loss(key, gain):
    of = {"before": {"loss": 0.5, "accuracy": 0.8}, "after": {"loss": 0.3, "accuracy": 0.9}, "other_folds": None}
    assert _gain(of, key) == pytest.approx(gain)
    assert _gain(None, key) == 0.0


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
    assert interval_metrics({"intervals": intervals}) == {
        "test_accuracy_low": 0.7, "test_accuracy_high": 0.9, "test_macro_f1_low": 0.3, "test_macro_f1_high": 0.5,
    }  # fmt: skip
    assert interval_metrics({"intervals": None, "no_intervals": "2 test zones"}) == {}


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


def test_the_tracker_is_told_of_parcels_and_the_worst_zone_where_they_were_counted(job):
    path = job.artefacts.evaluation("xgboost") / "scores.json"
    scores = json.loads(path.read_text())
    with Tracker(job.artefacts, job.name) as tracker:
        before = evaluation_note(job, MANIFEST, "xgboost", tracker)
        parcels = {"metrics": {"test_accuracy": 0.7, "test_macro_f1": 0.6}, "intervals": {"test_macro_f1": [0.5, 0.8]}}
        spread = {"macro_f1": {"worst_zone": "z-4", "worst": 0.2}, "accuracy": {"worst_zone": "z-1", "worst": 0.4}}
        write_json(path, {**scores, "detail": {"parcels": {"majority": parcels}, "zones": spread}})
        after = evaluation_note(job, MANIFEST, "xgboost", tracker)
    assert before.key == after.key  # the same test
    assert {key: after.metrics[key] for key in after.metrics.keys() - before.metrics.keys()} == {
        "test_parcel_accuracy": 0.7, "test_parcel_macro_f1": 0.6, "test_parcel_macro_f1_low": 0.5,
        "test_parcel_macro_f1_high": 0.8, "test_worst_zone_macro_f1": 0.2, "test_worst_zone_accuracy": 0.4,
    }  # fmt: skip
