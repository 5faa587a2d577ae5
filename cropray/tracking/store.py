"""An MLflow store that is brought up to date with runs, as often as one likes: a second time changes nothing.

A server may take a write and its answer be lost, and a process may die before it knows. So every write looks first for what
is there: runs by the tag of their key, metrics by (metric, step, value), models by the hash of their files. A run is closed
after the runs below it, and its tags then say with what content: of a closed one nothing is looked at again.

Source: measured behaviour of MLflow 3.17 with SQLite, directly and behind `mlflow server`.
"""

import contextlib
import logging
import math
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
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
from cropray.io.storage import Location, copy_file, files_below, local_folder
from cropray.tracking.outages import OUTAGES, RefusedError, first_line
from cropray.tracking.records import Candidate, Point, Run
from cropray.tracking.registry import Registry

logger = logging.getLogger(__name__)

KEY_TAG: Final = "cropray.key"
KIND_TAG: Final = "cropray.kind"
MODEL_TAG: Final = "cropray.model"
SEARCH_TAG: Final = "cropray.search"  # of an evaluation: key of its search
EVALUATION_TAG: Final = "cropray.evaluation"  # of a search: id of the run that tested its winner last
CONTENT_TAG: Final = "cropray.content"  # what a run was closed with; of a fold, what it was begun with
REGISTERED_TAG: Final = "cropray.registered"  # of an evaluation: the candidate whose version and aliases are settled

_BATCH: Final = 1000  # most metrics in one request, MLflow REST API
_PARAM_BATCH: Final = 100  # most params in one request, MLflow REST API
_FINISHED: Final = "FINISHED"
_RUNNING: Final = "running"  # content of a fold that is still fitted
_NOT_LINKED: Final = "not linked"  # content of an evaluation whose search is not there yet
_PROBE_S: Final = 2.0  # patience with a server that did not answer before
_PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_REFUSALS: Final = frozenset({"INVALID_PARAMETER_VALUE", "INVALID_STATE"})  # the same write will be refused again
# MLflow repeats requests itself, also those that create a run: a lost answer would make two.
_CLIENT_SETTINGS: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
_CLIENT_DEFAULTS: Final = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # s; MLflow's own: 120
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # a model would take the project files of the current folder with it
}


class OutOfTimeError(Exception):
    """The time that a caller gives to the store is over."""


class Store:
    """One experiment of an MLflow store.

    Attributes:
        experiment_id: MLflow's id; empty before the store has answered.
        n_made: runs and versions that were not there, or not as they should be.
        deadline: when to stop (`time.monotonic`).
    """

    def __init__(self, uri: str, experiment: str, artifacts: str | None, notes: list[str]) -> None:
        """Connect to nothing yet.

        Args:
            uri: tracking URI.
            experiment: name of the experiment, and of its registered model.
            artifacts: where a new experiment keeps files; None: the store decides.
            notes: takes what the user should hear of.
        """
        os.environ.update(_CLIENT_SETTINGS)
        for name, value in _CLIENT_DEFAULTS.items():
            os.environ.setdefault(name, value)
        _send_logs_to_root()
        self.experiment_id = ""
        self.n_made = 0
        self.deadline = math.inf
        self._notes = notes
        self._uri = uri
        self._experiment = experiment
        self._artifacts = artifacts
        self._client: MlflowClient | None = None
        self._ids: dict[str, str] = {}
        self._found: dict[str, StoredRun] = {}
        self._listed: set[str] = set()  # keys of searches below which all is found
        self._done: dict[str, str] = {}  # key → content that the store holds
        self._doubtful: set[str] = set()
        self._last_ms = 0

    def _probe(self) -> None:
        """Ask for a sign of life with little patience, where a request could wait long; raises one of `OUTAGES`."""
        if self._uri.startswith(("http://", "https://")):
            creds = get_default_host_creds(self._uri)
            answer = http_request(creds, "/health", "GET", max_retries=0, timeout=_PROBE_S, raise_on_status=False)
            if answer.status_code >= 500:
                raise OSError(f"it answers {answer.status_code}")
        elif (address := _database_address(self._uri)) is not None:
            # Without this MLflow would try to connect to a database for 100 s.
            socket.create_connection(address, _PROBE_S).close()

    @property
    def client(self) -> MlflowClient:
        """Connects, and finds or creates the experiment, when that has not succeeded yet."""
        if self._client is None:
            self._probe()
            client = MlflowClient(self._uri, self._uri)
            self.experiment_id = self._open_experiment(client, client.get_experiment_by_name(self._experiment))
            self._client = client
        return self._client

    def forget(self) -> None:
        """Look everything up again: the store may be another one when it comes back."""
        self._client = None
        for known in (self._ids, self._found, self._listed, self._done):
            known.clear()

    def put(self, run: Run, parent: str | None = None) -> None:
        """Bring a run, and all below it, up to date.

        Args:
            run: as it shall be.
            parent: id of the run above it.

        Raises:
            OutOfTimeError: it is not done, and the deadline is over.
            MlflowException: the store does not answer; so do the other `OUTAGES`.
        """
        if run.kind == "fold" and self._done.get(run.key) == _FINISHED:
            return
        content = run.content()
        if self._done.get(run.key) != content:
            self._attempt(f"open '{run.key}'", lambda: self._open(run, parent, content))
        if (run_id := self._ids.get(run.key)) is not None:
            if not (run.is_finished and self._done.get(run.key) == content):
                for child in run.below():
                    self.put(child, run_id)
            if self._done.get(run.key) != content:
                self._attempt(f"finish '{run.key}'", lambda: self._write(run, content))
            if run.candidate is not None:
                self._settle(run, run.candidate)
        if run.search is not None and run.search not in self._ids:
            content = _NOT_LINKED
        self._done[run.key] = _FINISHED if run.kind == "fold" and run.is_finished else content

    def give_up(self, what: str, error: Exception) -> None:
        """Say what can never be written; it must not hold up what comes behind it."""
        note = f"MLflow store '{self._uri}' will never {what} ({first_line(error)}); it is left out"
        logger.warning(note)
        self._notes.append(note)

    def settle_doubts(self) -> None:
        """Look again for runs whose creation was not answered: a slow server may have made one after it was made again."""
        for key in sorted(self._doubtful):
            self._look(f"tags.`{KEY_TAG}` = '{key}'")
            self._doubtful.discard(key)

    def _open_experiment(self, client: MlflowClient, experiment: Experiment | None) -> str:
        if experiment is None:
            return str(client.create_experiment(self._experiment, self._artifacts))
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
            self._notes.append(f"experiment '{self._experiment}' had been deleted in MLflow and is restored")
        return str(experiment.experiment_id)

    def _open(self, run: Run, parent: str | None, content: str) -> None:
        """Find the run or create it; one that was closed with this content is done."""
        if time.monotonic() > self.deadline:
            raise OutOfTimeError
        stored = self._find(run.key)
        if stored is not None:
            was_begun_with, above = stored.data.tags.get(CONTENT_TAG), stored.data.tags.get(MLFLOW_PARENT_RUN_ID)
            if parent not in (None, above):  # a person has deleted the one above it
                self.client.set_tag(stored.info.run_id, MLFLOW_PARENT_RUN_ID, parent)
            is_linked = run.search is None or self._ids.get(run.search, above) == above
            if stored.info.status == _FINISHED and is_linked and (run.kind == "fold" or was_begun_with == content):
                self._done[run.key] = content
                return
            if run.kind == "fold" and was_begun_with not in {content, _RUNNING}:
                self.client.delete_run(stored.info.run_id)  # by a process that died, with other results
                stored = None
        if stored is None:
            stored = self._create(run, parent, content if run.is_finished else _RUNNING)
        new = [Param(key, value) for key, value in run.params.items() if key not in stored.data.params]
        for start in range(0, len(new), _PARAM_BATCH):  # MLflow refuses to change a param
            self.client.log_batch(stored.info.run_id, params=new[start : start + _PARAM_BATCH])

    def _write(self, run: Run, content: str) -> None:
        """Write what the run holds itself, and close it if it is finished."""
        run_id, stored = self._ids[run.key], self._found[run.key]
        if run.is_finished and run.kind == "fold" and stored.data.tags.get(CONTENT_TAG) == _RUNNING:
            self.client.set_tag(run_id, CONTENT_TAG, content)
        self._write_points(run_id, run.points)
        if run.files:
            self._upload(run_id, run.files)
        is_whole = run.search is None or self._link(run_id, run.search)
        if run.is_finished:
            if names := [name for name, value in run.metrics.items() if not math.isfinite(value)]:
                self._notes.append(f"run '{run.key}': {', '.join(names)} are no finite numbers and are left out")
            if stored.info.status != _FINISHED:
                self.client.set_terminated(run_id, _FINISHED, self._now_ms())
            if run.kind != "fold":
                self.client.set_tag(run_id, CONTENT_TAG, content if is_whole else _NOT_LINKED)
            self.n_made += is_whole  # without its search it is looked at again, and is no news then

    def _settle(self, run: Run, candidate: Candidate) -> None:
        """Make the model a version and move the aliases, once for each time that it was asked for."""
        asked, mark = fingerprint(asdict(candidate))[:16], f"{run.key}@model"
        if asked in (self._done.get(mark), self._found[run.key].data.tags.get(REGISTERED_TAG)):
            return
        registry, run_id = Registry(self.client, self.experiment_id, self._experiment), self._ids[run.key]

        def register() -> None:
            self._notes.extend(registry.register(candidate, run.key, run_id, lambda: _files_of(run.folder)))
            self.client.set_tag(run_id, REGISTERED_TAG, asked)
            self.n_made += 1

        self._attempt(f"register '{self._experiment}'", register)
        self._done[mark] = asked

    def _attempt(self, what: str, write: Callable[[], None]) -> None:
        try:
            write()
        except (RefusedError, MlflowException) as error:
            if isinstance(error, MlflowException) and error.error_code not in _REFUSALS:
                raise
            self.give_up(what, error)

    def _link(self, run_id: str, search: str) -> bool:
        """Put an evaluation below its search; each names the other. Whether the search is there."""
        found = self._find(search)
        if found is None:
            self._notes.append(f"run '{search}' is not in the store: the evaluation of its winner is not linked to it")
            return False
        search_id = str(found.info.run_id)
        tags = {
            MLFLOW_PARENT_RUN_ID: search_id,
            SEARCH_TAG: search,
            MLFLOW_RUN_NOTE: f"Test of the winner of search run {search_id} ({search}).",
        }
        for tag, value in tags.items():
            self.client.set_tag(run_id, tag, value)
        self.client.set_tag(search_id, EVALUATION_TAG, run_id)
        return True

    def _find(self, key: str) -> StoredRun | None:
        """The run of a key; one request finds all that is below a search."""
        tree = "/".join(key.split("/")[:3])
        if key == tree and key not in self._found:
            self._look(f"tags.`{KEY_TAG}` = '{key}'")
        elif key != tree and tree not in self._listed:
            self._look(f"tags.`{KEY_TAG}` LIKE '{tree}/%'")
            self._listed.add(tree)
        return self._found.get(key)

    def _look(self, query: str) -> None:
        """Find runs. Of several of a key, which lost answers can leave, the fullest is kept and the others are deleted."""
        found: dict[str, list[StoredRun]] = {}
        token = None
        while token is None or token:
            page = self.client.search_runs(
                [self.experiment_id], query, ViewType.ACTIVE_ONLY, order_by=["start_time ASC"], page_token=token
            )
            for run in page:
                found.setdefault(run.data.tags.get(KEY_TAG, ""), []).append(run)
            token = page.token or ""
        for key, runs in found.items():
            kept = max(runs, key=_fullness)  # the oldest of equals
            for other in runs:
                if other is not kept and key:
                    logger.info("run '%s' was there twice; the emptier one is deleted", key)
                    self.client.delete_run(other.info.run_id)
            self._found[key], self._ids[key] = kept, str(kept.info.run_id)

    def _create(self, run: Run, parent: str | None, content: str) -> StoredRun:
        tags = {KEY_TAG: run.key, MODEL_TAG: run.model, KIND_TAG: run.kind, **run.tags}
        tags |= {CONTENT_TAG: content} if run.kind == "fold" else {}
        tags |= {} if parent is None else {MLFLOW_PARENT_RUN_ID: parent}
        was_asked_before = run.key in self._doubtful
        self._doubtful.add(run.key)
        stored = self.client.create_run(self.experiment_id, run.time_ms or self._now_ms(), tags, run.name)
        if not was_asked_before:
            self._doubtful.discard(run.key)
        self._found[run.key], self._ids[run.key] = stored, str(stored.info.run_id)
        self.n_made += 1
        return stored

    def _write_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Write (metric, step, value) triples; those that the run already holds are left out."""
        if not points:
            return
        known = self.client.get_run(run_id).data.metrics.keys() & {key for key, _, _ in points}
        held = {(m.key, m.step, m.value) for key in known for m in self.client.get_metric_history(run_id, key)}
        now = self._now_ms()
        new = [Metric(key, value, now, step) for key, step, value in points if (key, step, value) not in held]
        for start in range(0, len(new), _BATCH):
            self.client.log_batch(run_id, metrics=new[start : start + _BATCH])

    def _upload(self, run_id: str, files: Mapping[str, Location]) -> None:
        with _as_outages(), tempfile.TemporaryDirectory() as folder:
            for name, file in files.items():
                Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
                copy_file(file, Path(folder, name))
            self.client.log_artifacts(run_id, folder)

    def _now_ms(self) -> int:
        """Milliseconds since 1970, never the same twice: of two values at one step the later one counts."""
        self._last_ms = max(self._last_ms + 1, round(time.time() * 1000))
        return self._last_ms


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
    """A model's files for an upload."""
    if folder is None or not files_below(folder):
        raise RefusedError(f"folder '{folder}' has no files any more")
    with _as_outages(), local_folder(folder) as files:
        yield files


@contextlib.contextmanager
def _as_outages() -> Iterator[None]:
    """Errors of an upload become outages: boto3, google and azure each have their own."""
    try:
        yield
    except (RefusedError, *OUTAGES):
        raise
    except Exception as error:
        raise OSError(f"files were not taken: {error}") from error


def _fullness(run: StoredRun) -> tuple[bool, int]:
    return run.info.status == _FINISHED, len(run.data.params) + len(run.data.metrics)


def _send_logs_to_root() -> None:
    """Let the application decide where MLflow's messages go, instead of MLflow writing to standard error."""
    for name in ("mlflow", "alembic", "huey", "sqlalchemy.engine"):
        noisy = logging.getLogger(name)
        noisy.handlers.clear()
        noisy.propagate = True
