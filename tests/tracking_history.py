"""What stages leave in a workspace, step by step, and all that a store then holds."""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import ViewType

from cropray.io.storage import content_id, folder_hash, write_json
from cropray.io.workspace import Workspace
from cropray.search.results import FoldResult, save_results
from cropray.tracking import Candidate, EvaluationNote, Merit, ModelForm, SearchNote

EXPERIMENT = "landscape"
MODEL = "landscape"
SEARCH = "search/cnn/abc"
FORM = ModelForm("cropray.training.cnn.served", (), (-1, 12, 4, -1, -1), (-1, 2, -1, -1), ("Wheat", "Maize"))
MERIT = Merit("cnn", "d1", "val_loss", 0.75, greater_is_better=False)
HISTORY = ({"train_loss": 0.9, "val_loss": 0.8}, {"train_loss": 0.7, "val_loss": 1 / 3})


def prepare(root):
    """A workspace with the folders that stages leave."""
    for name, text in (("evaluation/cnn/cube.json", "[1]"), ("models/cnn/card.json", "{}")):
        path = Path(root, name)
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return Workspace(Path(root))


def fold_result(params, fold, history=HISTORY, right=8):
    return FoldResult(params, fold, 5.0 + fold, ((right, 10 - right), (2, 8)), tuple(history), len(history), 1.5)


def write_unit(workspace, params, fold, model="cnn", **result):
    """A finished unit; returns its name."""
    name = "-".join(f"{key}={value}" for key, value in params.items()) + f"-fold={fold}"
    save_results(workspace.unit(model, name) / "result.json", [fold_result(params, fold, **result)])
    return name


def search_note(experiment=EXPERIMENT, **fields):
    fields = {"params": {"seed": 7, "cnn": {"epochs": 2}}, "tags": {"git": "f00"}, "n_folds": 2, **fields}
    return SearchNote(experiment=experiment, **{"key": SEARCH, "model": "cnn", "time_ms": 1000, **fields})


def evaluation_note(experiment=EXPERIMENT, **fields):
    fields = {"params": {"protocol": "zones"}, "metrics": {"test_loss": 0.6}, "time_ms": 2000, **fields}
    return EvaluationNote(experiment=experiment, **{"key": "evaluate/cnn/e1", "model": "cnn", **fields})


def candidate(workspace, merit=MERIT, asked_ms=0):
    """The model of a workspace, to be registered."""
    return Candidate(folder_hash(workspace.model(merit.family)), FORM, merit, asked_ms)


def steps(workspace, experiment=EXPERIMENT):
    """The history: functions of the tracker, one after the other; each is seen by the next `sync`."""
    units = [f"learning_rate={rate}-fold={fold}" for rate in (0.001, 0.01) for fold in range(2)]
    begun = search_note(experiment, units=tuple(units))
    closed = begun.model_copy(update={"metrics": {"best": 0.75}})
    tested = evaluation_note(experiment, search=SEARCH)
    registered = tested.model_copy(update={"candidate": candidate(workspace)})

    def fold(tracker, rate, number):
        write_unit(workspace, {"learning_rate": rate}, number)
        tracker.keep_up(begun)

    def close(tracker):
        write_json(workspace.run_files(SEARCH) / "config.yaml", {"seed": 7})
        tracker.note(closed)

    def draw(tracker):
        picture = workspace.map_preview("cnn", "z1")
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text("z1.png")
        tracker.note(registered.model_copy(update={"maps": {"z1": content_id(picture)}}))

    return [
        lambda t: t.note(begun),
        lambda t: fold(t, 0.001, 0),
        lambda t: fold(t, 0.001, 1),
        lambda t: fold(t, 0.01, 0),
        close,
        lambda t: t.note(tested),
        lambda t: t.note(registered),
        draw,
    ]


def run_history(tracker, workspace, experiment=EXPERIMENT):
    """All steps, with a look at the store after each; how many times something waited."""
    n_waiting = 0
    for step in steps(workspace, experiment):
        step(tracker)
        n_waiting += bool(tracker.sync())
    return n_waiting


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
