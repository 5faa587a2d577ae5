"""The one writer of tracking runs: search → configuration → fold, evaluations and registered models.

A run is identified by its tag `cropray.key`, so that writing the same result again changes nothing: a finished
run is found and reused, an unfinished parent is reopened, an unfinished fold is replaced. A store that does not
answer costs a warning and never a result; whatever it missed is written when the stage runs again.

Source: measured behaviour of MLflow 3.17 with SQLite.
"""

import contextlib
import logging
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Final

# MLflow decides about telemetry while it is imported, so this cannot wait for a function.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow.pyfunc
import numpy as np
from mlflow.entities import Experiment, LoggedModelStatus, Metric, Param, ViewType
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sqlalchemy.exc import SQLAlchemyError

from cropray import __version__
from cropray.storage import Location, folder_hash, local_folder
from cropray.workspace import Workspace

logger = logging.getLogger(__name__)

KEY_TAG: Final = "cropray.key"
KIND_TAG: Final = "cropray.kind"
MODEL_TAG: Final = "cropray.model"
MODEL_HASH_TAG: Final = "cropray.model_hash"
CURVE_PREFIX: Final = "curve/"  # keeps a curve's last point from hiding the score of the same name
MODEL_LOADER: Final = "cropray.maps.serving"  # module with MLflow's `_load_pyfunc`
CHAMPION: Final = "champion"
UI_PORT: Final = 5000

_STEP: Final = "step"  # key of a history record that holds its step
_BATCH: Final = 1000  # most metrics in one request, MLflow REST API
_PARAM_BATCH: Final = 100  # most params in one request, MLflow REST API
_LONGEST_PARAM: Final = 6000  # characters, MLflow REST API
_FINISHED: Final = "FINISHED"
_OUTAGES: Final = (MlflowException, SQLAlchemyError, OSError)  # requests' errors are OSErrors
_CLIENT_DEFAULTS: Final = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's own: 7
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # s; MLflow's own: 120
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass(frozen=True, slots=True)
class Run:
    """A handle on a run."""

    key: str
    """Path of the run in its tree, unique in the experiment."""
    model: str
    """`cnn` or `xgboost`."""
    run_id: str | None
    """MLflow's id; None: the store did not answer."""
    is_finished: bool
    """Whether the run was complete when it was opened."""


@dataclass(frozen=True, slots=True)
class FoldRecord:
    """All that is known of one finished (configuration, fold)."""

    fold: int
    metrics: Mapping[str, float]
    """`val_loss`, `val_accuracy`, `val_macro_f1` …"""
    history: Sequence[Mapping[str, float]] = ()
    """One record per epoch or boosting round; its step is the key `step`, or the position counted from 1."""
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """The test of a refitted winner."""

    fingerprint: str
    """Identifies model and test data; the same fingerprint is the same run."""
    params: Mapping[str, object]
    metrics: Mapping[str, float]
    """`test_loss`, `test_accuracy` …, `test_pixels`."""
    artifacts: Location
    """Folder whose files are stored with the run."""


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A trained model as the registry needs it."""

    folder: Location
    """Weights and `card.json`."""
    input_shape: tuple[int, ...]
    """Axes of the uint16 input, -1 where any length is accepted."""
    output_shape: tuple[int, ...]
    """Axes of the float32 probabilities."""
    requirements: tuple[str, ...]
    """Distributions that are needed to load it: `torch`, `xgboost`."""


class Tracker:
    """Writes runs and models to one experiment.

    Attributes:
        uri: tracking URI of the store.
        n_missed: writes that the store did not take.
    """

    def __init__(self, workspace: Workspace, experiment: str, tracking_uri: str | None = None) -> None:
        """Open the store, and create it and the experiment where they do not exist.

        Args:
            workspace: home of the default store, an SQLite database.
            experiment: name of the experiment; one per dataset.
            tracking_uri: another store or server, which then also says where artifacts go.
        """
        for name, value in _CLIENT_DEFAULTS.items():
            os.environ.setdefault(name, value)
        _send_logs_to_root()
        self.uri = tracking_uri or local_uri(workspace)
        self.n_missed = 0
        self._artifacts = None if tracking_uri else workspace.mlflow_artifacts.resolve().as_uri()
        self._experiment = experiment
        self._experiment_id = ""
        self._client: MlflowClient | None = None
        with self._surviving(f"open experiment '{experiment}'"):
            self._open()

    def runs_page(self) -> str:
        """Page of the UI that compares the experiment's runs; its front page shows chat traces instead."""
        return f"/#/experiments/{self._experiment_id}/runs?compareRunsMode=CHART"

    def search_run(
        self, model: str, fingerprint: str, params: Mapping[str, object], tags: Mapping[str, str] | None = None
    ) -> Run:
        """Open or find the run of a whole search.

        Args:
            model: `cnn` or `xgboost`.
            fingerprint: identifies data and settings; the same fingerprint is the same run.
            params: settings, nested or flat.
            tags: further tags (git commit, dataset hash).
        """
        run = Run(f"search/{model}/{fingerprint}", model, None, is_finished=False)
        return self._parent(run, None, f"{model} search", _Contents(params, {KIND_TAG: "search", **(tags or {})}))

    def configuration_run(self, search: Run, name: str, params: Mapping[str, object]) -> Run:
        """Open or find the run of one configuration of a search."""
        run = Run(f"{search.key}/{name}", search.model, None, is_finished=False)
        return self._parent(run, search, name, _Contents(params, {KIND_TAG: "configuration"}))

    def fold_run(self, configuration: Run, record: FoldRecord) -> Run:
        """Write one finished (configuration, fold), once."""
        run = Run(f"{configuration.key}/fold-{record.fold}", configuration.model, None, is_finished=False)
        tags = {KIND_TAG: "fold", **(record.tags or {})}
        with self._surviving(f"write '{run.key}'"):
            stored = self._find(run.key)
            if stored is not None and stored.info.status == _FINISHED:
                return _handle(run, stored)
            if stored is not None:
                self._open().delete_run(stored.info.run_id)
            stored = self._create(run, configuration, f"fold {record.fold}", _Contents({"fold": record.fold}, tags))
            self._write_metrics(stored.info.run_id, _curve(record.history) + _points(record.metrics))
            self._open().set_terminated(stored.info.run_id, _FINISHED)
            return _handle(run, stored)
        return run

    def finish(self, run: Run, metrics: Mapping[str, float], artifacts: Location | None = None) -> None:
        """Write the closing metrics and files of a search or configuration, and close it."""
        with self._surviving(f"finish '{run.key}'"):
            run_id = self._require(run)
            self._write_metrics(run_id, _points(metrics))
            if artifacts is not None:
                with local_folder(artifacts) as folder:
                    self._open().log_artifacts(run_id, str(folder))
            if self._open().get_run(run_id).info.status != _FINISHED:
                self._open().set_terminated(run_id, _FINISHED)

    def evaluate_run(self, model: str, record: EvaluationRecord) -> Run:
        """Write the test of a model, once."""
        run = Run(f"evaluate/{model}/{record.fingerprint}", model, None, is_finished=False)
        run = self._parent(run, None, f"{model} evaluate", _Contents(record.params, {KIND_TAG: "evaluate"}))
        if not run.is_finished:
            self.finish(run, record.metrics, record.artifacts)
        return run

    def add_artifacts(self, run: Run, folder: Location, subfolder: str) -> None:
        """Store the files of a folder with a run, in a subfolder; files of the same name are replaced."""
        with self._surviving(f"store the files of '{folder}'"), local_folder(folder) as files:
            self._open().log_artifacts(self._require(run), str(files), subfolder)

    def register(self, name: str, package: ModelPackage, run: Run) -> str | None:
        """Register a model as pyfunc and call it the champion; the same files are registered once.

        Args:
            name: name of the registered model, `cropray-cnn`.
            package: the model's files and the shapes it takes and gives.
            run: the evaluation that the model belongs to.

        Returns:
            The version; None where the store did not answer.
        """
        with self._surviving(f"register '{name}'"):
            digest = folder_hash(package.folder)
            version = self._version(name, digest) or self._log_model(name, package, self._require(run))
            client = self._open()
            client.set_model_version_tag(name, version, MODEL_HASH_TAG, digest)
            client.set_registered_model_alias(name, CHAMPION, version)
            return version
        return None

    def _open(self) -> MlflowClient:
        """The client; connects and finds the experiment when that has not succeeded yet."""
        if self._client is None:
            client = MlflowClient(self.uri, self.uri)
            experiment = client.get_experiment_by_name(self._experiment)
            self._experiment_id = self._open_experiment(client, experiment)
            self._client = client
        return self._client

    def _open_experiment(self, client: MlflowClient, experiment: Experiment | None) -> str:
        if experiment is None:
            return str(client.create_experiment(self._experiment, self._artifacts))
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _parent(self, run: Run, above: Run | None, name: str, contents: "_Contents") -> Run:
        """Find a run that has runs or files below it, or open it."""
        with self._surviving(f"open '{run.key}'"):
            stored = self._find(run.key)
            if stored is None:
                stored = self._create(run, above, name, contents)
            else:
                self._write_params(stored.info.run_id, contents.params, stored.data.params)
            return _handle(run, stored)
        return run

    def _find(self, key: str) -> StoredRun | None:
        client = self._open()
        found = client.search_runs(
            [self._experiment_id], f"tags.`{KEY_TAG}` = '{key}'", ViewType.ACTIVE_ONLY, max_results=1
        )
        return found[0] if found else None

    def _create(self, run: Run, above: Run | None, name: str, contents: "_Contents") -> StoredRun:
        tags = {KEY_TAG: run.key, MODEL_TAG: run.model, **contents.tags}
        if above is not None:
            tags[MLFLOW_PARENT_RUN_ID] = self._require(above)
        client = self._open()
        stored = client.create_run(self._experiment_id, tags=tags, run_name=name)
        self._write_params(stored.info.run_id, contents.params, {})
        return stored

    def _write_params(self, run_id: str, params: Mapping[str, object], held: Mapping[str, str]) -> None:
        """Write the params that the run does not hold yet; MLflow refuses to change a param."""
        new = [Param(k, str(v)[:_LONGEST_PARAM]) for k, v in flatten(params).items() if k not in held]
        for start in range(0, len(new), _PARAM_BATCH):
            self._open().log_batch(run_id, params=new[start : start + _PARAM_BATCH])

    def _write_metrics(self, run_id: str, points: Sequence[tuple[str, int, float]]) -> None:
        """Write (metric, step, value) triples; those that the run already holds are left out."""
        client = self._open()
        known = client.get_run(run_id).data.metrics.keys() & {key for key, _, _ in points}
        held = {(m.key, m.step, m.value) for key in known for m in client.get_metric_history(run_id, key)}
        now = round(time.time() * 1000)
        new = [Metric(key, value, now, step) for key, step, value in points if (key, step, value) not in held]
        for start in range(0, len(new), _BATCH):
            client.log_batch(run_id, metrics=new[start : start + _BATCH])

    def _version(self, name: str, digest: str) -> str | None:
        """The version of a registered model that was made from the same files."""
        versions = self._open().search_model_versions(f"name = '{name}'")
        return next((str(v.version) for v in versions if v.tags.get(MODEL_HASH_TAG) == digest), None)

    def _log_model(self, name: str, package: ModelPackage, run_id: str) -> str:
        """Store a new model with the run's experiment and make it a version of the registered model."""
        client = self._open()
        logged = client.create_logged_model(self._experiment_id, name, source_run_id=run_id)
        with (
            tempfile.TemporaryDirectory() as folder,
            local_folder(package.folder) as files,
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", message=".*input example")  # the signature is given in full
            mlflow.pyfunc.save_model(
                path=f"{folder}/model",
                mlflow_model=Model(
                    logged.artifact_location, run_id, model_uuid=logged.model_id, model_id=logged.model_id
                ),
                loader_module=MODEL_LOADER,
                data_path=str(files),
                signature=_signature(package),
                pip_requirements=[f"cropray=={__version__}", *_pinned(package.requirements)],
            )
            client.log_model_artifacts(logged.model_id, f"{folder}/model")
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        # Not `models:/<id>`: MLflow would look that up in the process-wide store instead of this client's.
        source = logged.artifact_location
        return str(client.create_model_version(name, source, run_id, model_id=logged.model_id).version)

    def _require(self, run: Run) -> str:
        """The id of a run; looked up again where the store did not answer when it was opened."""
        if run.run_id is not None:
            return run.run_id
        stored = self._find(run.key)
        if stored is None:
            raise OSError(f"run '{run.key}' could not be opened earlier")
        return str(stored.info.run_id)

    @contextlib.contextmanager
    def _surviving(self, action: str) -> Iterator[None]:
        """Turn an outage of the store into a warning and a count."""
        try:
            yield
        except _OUTAGES as error:
            self.n_missed += 1
            reason = str(error).partition("\n")[0]
            logger.warning(
                "MLflow store '%s' did not %s (%s); work goes on, and running the stage again writes what is missing",
                *(self.uri, action, reason),
            )


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a run is created with."""

    params: Mapping[str, object]
    tags: Mapping[str, str]


def local_uri(workspace: Workspace) -> str:
    """Tracking URI of the workspace's own store."""
    return f"sqlite:///{workspace.mlflow_database.resolve()}"


def ui_command(workspace: Workspace, tracking_uri: str | None = None, port: int = UI_PORT) -> list[str]:
    """The command that serves the MLflow UI on http://127.0.0.1:`port` (answers after about 10 s)."""
    store = tracking_uri or local_uri(workspace)
    return [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--port", str(port)]


def flatten(params: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested mappings as one level of dotted keys."""
    flat: dict[str, object] = {}
    for key, value in params.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _handle(run: Run, stored: StoredRun) -> Run:
    return Run(run.key, run.model, str(stored.info.run_id), stored.info.status == _FINISHED)


def _points(metrics: Mapping[str, float]) -> list[tuple[str, int, float]]:
    return [(key, 0, float(value)) for key, value in metrics.items() if math.isfinite(value)]


def _curve(history: Sequence[Mapping[str, float]]) -> list[tuple[str, int, float]]:
    return [
        (CURVE_PREFIX + key, int(record.get(_STEP, position)), float(value))
        for position, record in enumerate(history, start=1)
        for key, value in record.items()
        if key != _STEP and math.isfinite(value)
    ]


def _pinned(distributions: Sequence[str]) -> list[str]:
    return [f"{name}=={metadata.version(name)}" for name in distributions]


def _signature(package: ModelPackage) -> ModelSignature:
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint16), package.input_shape)]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), package.output_shape)]),
    )


def _send_logs_to_root() -> None:
    """Let the application decide where MLflow's messages go, instead of MLflow writing to standard error."""
    for name in ("mlflow", "alembic", "huey", "sqlalchemy.engine"):
        noisy = logging.getLogger(name)
        noisy.handlers.clear()
        noisy.propagate = True
