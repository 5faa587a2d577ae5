"""A search, evaluation and registration as stages write them, and all that a store then holds."""

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import ViewType

from cropray.io.workspace import Workspace
from cropray.tracking import EvaluationRecord, FoldRecord, Merit, ModelForm, ModelPackage

EXPERIMENT = "landscape"
MODEL = "landscape"
FORM = ModelForm("cropray.training.cnn.served", (), (-1, 12, 4, -1, -1), (-1, 2, -1, -1), ("Wheat", "Maize"))
MERIT = Merit("cnn", "d1", "val_loss", 0.75, greater_is_better=False)


def prepare(root):
    """A workspace with the folders that stages leave."""
    for name, text in (("evaluation/cnn/cube.json", "[1]"), ("models/cnn/card.json", "{}")):
        path = Path(root, name)
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return Workspace(Path(root))


def steps(root, model_name=MODEL):
    """The history: functions of the tracker and of the runs so far, one after the other."""
    history = [{"train_loss": 0.9, "val_loss": 0.8}, {"train_loss": 0.7, "val_loss": 1 / 3}]
    runs = {}

    def configuration(tracker, rate):
        runs[rate] = tracker.configuration_run(runs["search"], f"learning_rate={rate}", {"learning_rate": rate})

    def fold(tracker, rate, number):
        tracker.fold_run(runs[rate], FoldRecord(number, {"val_loss": 0.5 + number, "val_accuracy": 0.8}, history))

    def in_temporary_folder(write, name):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, name).write_text(name)
            write(Path(folder))

    def evaluate(tracker):
        record = EvaluationRecord(
            "e1", {"protocol": "zones"}, {"test_loss": 0.6}, root / "evaluation" / "cnn", runs["search"].key
        )
        runs["evaluate"] = tracker.evaluate_run("cnn", record)

    package = ModelPackage(root / "models" / "cnn", FORM, MERIT)
    return [
        lambda t: runs.update(search=t.search_run("cnn", "abc", {"seed": 7, "cnn": {"epochs": 2}}, {"git": "f00"})),
        lambda t: configuration(t, 0.001),
        lambda t: fold(t, 0.001, 0),
        lambda t: fold(t, 0.001, 1),
        lambda t: configuration(t, 0.01),
        lambda t: fold(t, 0.01, 0),
        lambda t: t.finish(runs[0.001], {"val_loss_mean": 0.75}),
        lambda t: t.finish(runs[0.01], {"val_loss_mean": 1.0}),
        lambda t: in_temporary_folder(lambda f: t.finish(runs["search"], {"best": 0.75}, f), "config.yaml"),
        evaluate,
        lambda t: t.register(model_name, package, runs["evaluate"]),
        lambda t: in_temporary_folder(lambda f: t.add_artifacts(runs["evaluate"], f, "maps"), "z1.png"),
    ]


def contents(uri, artifacts, experiment=EXPERIMENT, model_name=MODEL):
    """Everything in the store but ids and times; deleted runs as well.

    `artifacts` is the folder where a server keeps files.
    """
    client = MlflowClient(uri, uri)
    experiment_id = client.get_experiment_by_name(experiment).experiment_id
    runs = client.search_runs([experiment_id], run_view_type=ViewType.ALL)
    keys = {run.info.run_id: run.data.tags["cropray.key"] for run in runs}
    versions = client.search_model_versions(f"name = '{model_name}'")
    models = client.search_logged_models([experiment_id])
    return {
        "runs": sorted((_run(client, artifacts, run, keys) for run in runs), key=str),
        "versions": sorted((v.version, keys[v.run_id], sorted(v.tags.items())) for v in versions),
        "aliases": client.get_registered_model(model_name).aliases if versions else {},
        "moves": client.get_registered_model(model_name).tags if versions else {},
        "models": [(str(m.status), sorted(dict(_files(m.artifact_location, artifacts)))) for m in models],
    }


def _run(client, artifacts, run, keys):
    links = ("mlflow.parentRunId", "cropray.evaluation")  # hold ids, as the note does
    tags = {k: keys.get(v) if k in links else v for k, v in run.data.tags.items() if k != "mlflow.note.content"}
    curves = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    return (
        run.data.tags["cropray.key"],
        keys.get(run.data.tags.get("mlflow.parentRunId")),
        (run.info.status, run.info.lifecycle_stage),
        sorted(run.data.params.items()),
        sorted(tags.items()),
        sorted((key, [(point.step, point.value) for point in points]) for key, points in curves.items()),
        sorted(_files(run.info.artifact_uri, artifacts)),
    )


def _files(address, artifacts):
    target = Path(artifacts, address.removeprefix("mlflow-artifacts:/").removeprefix("file://"))
    return [(f.relative_to(target).as_posix(), f.read_bytes()) for f in target.rglob("*") if f.is_file()]
