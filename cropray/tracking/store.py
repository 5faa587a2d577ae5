"""Writes applied to an MLflow store, each as often as one likes: a second time changes nothing.

A server may take a write and its answer be lost, and a process may die before it knows. So every write looks first for what
is there: runs by the tag of their key, metrics by (metric, step, value), models by the hash of their files.

Source: measured behaviour of MLflow 3.17 with SQLite, directly and behind `mlflow server`.
"""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from mlflow.entities import Experiment, Metric, Param, ViewType
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from mlflow.utils.rest_utils import http_request

from cropray.core.fingerprint import fingerprint
from cropray.io.storage import Location, files_below, local_folder
from cropray.tracking.operations import (
    AddFiles,
    FinishRun,
    OpenRun,
    Operation,
    Point,
    RefusedError,
    RegisterModel,
    WriteFold,
)
from cropray.tracking.outages import OUTAGES
from cropray.tracking.registry import Registry

logger = logging.getLogger(__name__)

KEY_TAG: Final = "cropray.key"
KIND_TAG: Final = "cropray.kind"
MODEL_TAG: Final = "cropray.model"
SEARCH_TAG: Final = "cropray.search"  # of an evaluation: key of its search
EVALUATION_TAG: Final = "cropray.evaluation"  # of a search: id of the run that tested its winner last
CONTENT_TAG: Final = "cropray.content"  # of a fold: what an unfinished run must have been begun with to be continued

_BATCH: Final = 1000  # most metrics in one request, MLflow REST API
_PARAM_BATCH: Final = 100  # most params in one request, MLflow REST API
_FINISHED: Final = "FINISHED"
_RUNNING: Final = "running"  # content of a fold that is still fitted
_PROBE_S: Final = 2.0  # patience with a server that did not answer before
_PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_REFUSALS: Final = frozenset({"INVALID_PARAMETER_VALUE", "INVALID_STATE"})  # the same write will be refused again
# MLflow repeats requests itself, also those that create a run: a lost answer would make two. The spool repeats writes.
_CLIENT_SETTINGS: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
_CLIENT_DEFAULTS: Final = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # s; MLflow's own: 120
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # a model would take the project files of the current folder with it
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a store said to a write."""

    run_id: str | None = None
    was_finished: bool = False
    """Whether the run was complete before."""
    version: str | None = None
    """Of a registered model."""


class Store:
    """One experiment of an MLflow store.

    Attributes:
        experiment_id: MLflow's id; empty before the store has answered.
        notes: what the user should hear of.
    """

    def __init__(self, uri: str, experiment: str, artifacts: str | None) -> None:
        """Connect to nothing yet.

        Args:
            uri: tracking URI.
            experiment: name of the experiment.
            artifacts: where a new experiment keeps files; None: the store decides.
        """
        os.environ.update(_CLIENT_SETTINGS)
        for name, value in _CLIENT_DEFAULTS.items():
            os.environ.setdefault(name, value)
        _send_logs_to_root()
        self.experiment_id = ""
        self.notes: list[str] = []
        self._uri = uri
        self._experiment = experiment
        self._artifacts = artifacts
        self._client: MlflowClient | None = None
        self._run_ids: dict[str, str] = {}
        self._doubtful: set[str] = set()

    def probe(self) -> None:
        """Ask for a sign of life with little patience, where a request could wait long.

        Raises:
            OSError: there is none.
            MlflowException: there is none.
        """
        if self._uri.startswith(("http://", "https://")):
            creds = get_default_host_creds(self._uri)
            answer = http_request(creds, "/health", "GET", max_retries=0, timeout=_PROBE_S, raise_on_status=False)
            if answer.status_code >= 500:
                raise OSError(f"it answers {answer.status_code}")
        elif (address := _database_address(self._uri)) is not None:
            # Without this MLflow would try to connect to a database for 100 s.
            socket.create_connection(address, _PROBE_S).close()

    def open(self) -> MlflowClient:
        """The client; connects and finds or creates the experiment when that has not succeeded yet."""
        if self._client is None:
            self.probe()
            client = MlflowClient(self._uri, self._uri)
            self.experiment_id = self._open_experiment(client, client.get_experiment_by_name(self._experiment))
            self._client = client
        return self._client

    def forget(self) -> None:
        """Look everything up again: the store may be another one when it comes back."""
        self._client = None
        self._run_ids.clear()

    def apply(self, operation: Operation, folder: Location | None) -> Answer:
        """Write.

        Args:
            operation: what is written.
            folder: the files that the operation names.

        Raises:
            RefusedError: the store will never take it.
            MlflowException: the store does not answer; so do the other `OUTAGES`.
        """
        try:
            match operation:
                case OpenRun():
                    return self._open_run(operation)
                case WriteFold():
                    return self._write_fold(operation)
                case FinishRun():
                    return self._finish(operation, folder)
                case AddFiles():
                    return self._add_files(operation, folder)
                case RegisterModel():
                    return self._register(operation, folder)
        except MlflowException as error:
            if error.error_code in _REFUSALS:
                raise RefusedError(str(error)) from error
            raise

    def settle_doubts(self) -> None:
        """Look again for runs whose creation was not answered: a slow server may have made one after it was made again."""
        for key in sorted(self._doubtful):
            self._find(key)
            self._doubtful.discard(key)

    def _open_experiment(self, client: MlflowClient, experiment: Experiment | None) -> str:
        if experiment is None:
            return str(client.create_experiment(self._experiment, self._artifacts))
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
            self.notes.append(f"experiment '{self._experiment}' had been deleted in MLflow and is restored")
        return str(experiment.experiment_id)

    def _open_run(self, operation: OpenRun) -> Answer:
        stored = self._find(operation.key)
        was_finished = stored is not None and stored.info.status == _FINISHED
        if stored is None:
            stored = self._create(operation, {})
        self._write_params(stored, operation.params)
        run_id = str(stored.info.run_id)
        if operation.search is not None:
            self._link(run_id, operation.search)
        return Answer(run_id, was_finished)

    def _write_fold(self, operation: WriteFold) -> Answer:
        content = _RUNNING if operation.is_running else fingerprint([operation.params, operation.points])[:16]
        stored = self._find(operation.key)
        if stored is not None and stored.info.status == _FINISHED:
            return Answer(str(stored.info.run_id), was_finished=True)
        if stored is not None and stored.data.tags.get(CONTENT_TAG) not in {content, _RUNNING}:
            self.open().delete_run(stored.info.run_id)  # begun by a process that died, with other results
            stored = None
        if stored is None:
            stored = self._create(operation, {CONTENT_TAG: content})
        if stored.data.tags.get(CONTENT_TAG) == _RUNNING and not operation.is_running:
            self.open().set_tag(stored.info.run_id, CONTENT_TAG, content)
        self._write_params(stored, operation.params)
        self._write_points(stored.info.run_id, operation.points, operation.time_ms)
        if not operation.is_running:
            self.open().set_terminated(stored.info.run_id, _FINISHED, operation.time_ms)
        return Answer(str(stored.info.run_id))

    def _finish(self, operation: FinishRun, folder: Location | None) -> Answer:
        run_id = self._run_id(operation.key)
        self._write_points(run_id, operation.points, operation.time_ms)
        if folder is not None:
            with _files_of(folder) as files:
                self.open().log_artifacts(run_id, str(files))
        if self.open().get_run(run_id).info.status != _FINISHED:
            self.open().set_terminated(run_id, _FINISHED, operation.time_ms)
        return Answer(run_id)

    def _add_files(self, operation: AddFiles, folder: Location | None) -> Answer:
        run_id = self._run_id(operation.key)
        with _files_of(folder) as files:
            self.open().log_artifacts(run_id, str(files), operation.subfolder)
        return Answer(run_id)

    def _register(self, operation: RegisterModel, folder: Location | None) -> Answer:
        registry = Registry(self.open(), self.experiment_id)
        version, notes = registry.register(operation, self._run_id(operation.key), lambda: _files_of(folder))
        self.notes += notes
        return Answer(version=version)

    def _link(self, run_id: str, search: str) -> None:
        """Put an evaluation below its search; each names the other."""
        client, found = self.open(), self._find(search)
        if found is None:
            self.notes.append(f"run '{search}' is not in the store: the evaluation of its winner is not linked to it")
            return
        search_id = str(found.info.run_id)
        tags = {
            MLFLOW_PARENT_RUN_ID: search_id,
            SEARCH_TAG: search,
            MLFLOW_RUN_NOTE: f"Test of the winner of search run {search_id} ({search}).",
        }
        for tag, value in tags.items():
            client.set_tag(run_id, tag, value)
        client.set_tag(search_id, EVALUATION_TAG, run_id)

    def _find(self, key: str) -> StoredRun | None:
        """The run of a key. Of several, which lost answers can leave, the fullest is kept and the others are deleted."""
        client = self.open()
        query = f"tags.`{KEY_TAG}` = '{key}'"
        found = client.search_runs([self.experiment_id], query, ViewType.ACTIVE_ONLY, order_by=["start_time ASC"])
        if not found:
            return None
        kept: StoredRun = max(found, key=_fullness)  # the oldest of equals
        for other in found:
            if other is not kept:
                logger.info("run '%s' was there twice; the emptier one is deleted", key)
                client.delete_run(other.info.run_id)
        self._run_ids[key] = str(kept.info.run_id)
        return kept

    def _run_id(self, key: str) -> str:
        """The id of a run that was opened before."""
        if key not in self._run_ids and self._find(key) is None:
            raise RefusedError(f"run '{key}' is not there any more")
        return self._run_ids[key]

    def _create(self, operation: OpenRun | WriteFold, tags: Mapping[str, str]) -> StoredRun:
        tags = {KEY_TAG: operation.key, MODEL_TAG: operation.model, **operation.tags, **tags}
        if operation.parent is not None:
            tags[MLFLOW_PARENT_RUN_ID] = self._run_id(operation.parent)
        self._doubtful.add(operation.key)
        stored = self.open().create_run(self.experiment_id, operation.time_ms, tags, operation.name)
        self._doubtful.discard(operation.key)
        self._run_ids[operation.key] = str(stored.info.run_id)
        return stored

    def _write_params(self, stored: StoredRun, params: Mapping[str, str]) -> None:
        """Write the params that the run does not hold yet; MLflow refuses to change a param."""
        new = [Param(key, value) for key, value in params.items() if key not in stored.data.params]
        for start in range(0, len(new), _PARAM_BATCH):
            self.open().log_batch(stored.info.run_id, params=new[start : start + _PARAM_BATCH])

    def _write_points(self, run_id: str, points: Sequence[Point], time_ms: int) -> None:
        """Write (metric, step, value) triples; those that the run already holds are left out."""
        client = self.open()
        known = client.get_run(run_id).data.metrics.keys() & {key for key, _, _ in points}
        held = {(m.key, m.step, m.value) for key in known for m in client.get_metric_history(run_id, key)}
        new = [Metric(key, value, time_ms, step) for key, step, value in points if (key, step, value) not in held]
        for start in range(0, len(new), _BATCH):
            client.log_batch(run_id, metrics=new[start : start + _BATCH])


def _database_address(uri: str) -> tuple[str, int] | None:
    """(host, port); None: a file, or an address that only the database's driver understands."""
    try:
        parts = urlsplit(uri)
        port = parts.port or _PORTS.get(parts.scheme.partition("+")[0])
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port else None


@contextlib.contextmanager
def _files_of(folder: Location | None) -> Iterator[Path]:
    """The files for an upload, whose errors become outages."""
    if folder is None or not files_below(folder):
        raise RefusedError(f"folder '{folder}' has no files any more")
    try:
        with local_folder(folder) as files:
            yield files
    except (RefusedError, *OUTAGES):
        raise
    except Exception as error:  # boto3, google and azure each have errors of their own
        raise OSError(f"files were not taken: {error}") from error


def _fullness(run: StoredRun) -> tuple[bool, int]:
    return run.info.status == _FINISHED, len(run.data.params) + len(run.data.metrics)


def _send_logs_to_root() -> None:
    """Let the application decide where MLflow's messages go, instead of MLflow writing to standard error."""
    for name in ("mlflow", "alembic", "huey", "sqlalchemy.engine"):
        noisy = logging.getLogger(name)
        noisy.handlers.clear()
        noisy.propagate = True
