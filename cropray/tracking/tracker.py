"""The tracker: what stages call.

A run is identified by its tag `cropray.key`, so that writing the same result again changes nothing: a finished
run is found and reused, an unfinished parent is reopened, an unfinished fold is continued or replaced. A store that does
not answer costs a warning and never a result: its writes wait in the workspace and are replayed in order, before the next
write of this or a later process.
"""

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy.engine import make_url

from cropray.core.errors import ConfigError
from cropray.core.redaction import redact
from cropray.io.storage import Location, folder_hash
from cropray.io.workspace import Workspace
from cropray.tracking.breaker import Breaker
from cropray.tracking.operations import (
    AddFiles,
    FinishRun,
    OpenRun,
    Operation,
    RefusedError,
    RegisterModel,
    WriteFold,
    as_texts,
    curve_of,
    points_of,
)
from cropray.tracking.outages import OUTAGES, first_line, needs_a_person, remedy
from cropray.tracking.records import EvaluationRecord, FoldRecord, ModelPackage, Run
from cropray.tracking.spool import Spool
from cropray.tracking.store import KIND_TAG, Answer, Store

logger = logging.getLogger(__name__)

UI_PORT: Final = 5000
WAIT_VARIABLE: Final = "CROPRAY_TRACKING_WAIT_S"
WAIT_S: Final = 30.0  # how long a stage's end waits for a store that is away
_REPLAY_S: Final = 10.0  # most that one write gives to what waits before it
_PAUSE_S: Final = 0.2  # between looks at the breaker while a stage's end waits


class Tracker:
    """Writes runs and models to one experiment.

    Attributes:
        uri: tracking URI of the store, without its password.
        n_missed: writes that the store did not take at once.
    """

    def __init__(self, workspace: Workspace, experiment: str, tracking_uri: str | None = None) -> None:
        """Open the store, and create it and the experiment where they do not exist; write what waits for it.

        Args:
            workspace: home of the default store, an SQLite database, and of writes that wait.
            experiment: name of the experiment; one per dataset.
            tracking_uri: another store or server, which then also says where artifacts go.
        """
        uri = tracking_uri or local_uri(workspace)
        artifacts = None if tracking_uri else workspace.mlflow_artifacts.resolve().as_uri()
        self.uri = redact(uri)
        self.n_missed = 0
        self._store = Store(uri, experiment, artifacts)
        self._spool = Spool(workspace.root, f"{self.uri if tracking_uri else ''} {experiment}")
        self._breaker = Breaker()
        self._reason = ""  # why the store did not take the last write that it did not take
        self._n_lost = 0  # writes that the workspace could not keep either
        self._began = time.monotonic()  # the request that is under way
        self._last_ms = 0
        if not self._is_caught_up() and self._breaker.n_failures:
            self.n_missed += 1

    def runs_page(self) -> str:
        """Page of the UI that compares the experiment's runs; its front page shows chat traces instead."""
        return f"/#/experiments/{self._store.experiment_id}/runs?compareRunsMode=CHART"

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
        tags = {KIND_TAG: "search", **(tags or {})}
        return self._parent(f"search/{model}/{fingerprint}", model, f"{model} search", params, tags)

    def configuration_run(self, search: Run, name: str, params: Mapping[str, object]) -> Run:
        """Open or find the run of one configuration of a search."""
        tags = {KIND_TAG: "configuration"}
        return self._parent(f"{search.key}/{name}", search.model, name, params, tags, parent=search.key)

    def fold_run(self, configuration: Run, record: FoldRecord) -> Run:
        """Write one finished (configuration, fold), once."""
        operation = self._fold(configuration, record)
        self._tell_left_out(operation.key, record.metrics)
        answer = self._write(operation)
        return Run(operation.key, configuration.model, answer.run_id, answer.was_finished)

    def follow_fold(self, configuration: Run, record: FoldRecord) -> None:
        """Write steps of a fold that is not finished yet; a store that is away misses them, and gets all at the end."""
        if not self._is_caught_up():
            return
        operation = self._fold(configuration, record).model_copy(update={"is_running": True})
        try:
            self._apply(operation, self._spool.locate)
        except RefusedError as error:
            logger.info("MLflow store '%s' did not %s (%s)", self.uri, operation, error)
        except OUTAGES as error:
            self._note_outage(str(operation), error)

    def finish(self, run: Run, metrics: Mapping[str, float], artifacts: Location | None = None) -> None:
        """Write the closing metrics and files of a search or configuration, and close it."""
        self._tell_left_out(run.key, metrics)
        folder = None if artifacts is None else self._spool.address(artifacts)
        self._write(FinishRun(key=run.key, time_ms=self._now_ms(), points=points_of(metrics), folder=folder))

    def evaluate_run(self, model: str, record: EvaluationRecord) -> Run:
        """Write the test of a model, once, and link it to its search."""
        key = f"evaluate/{model}/{record.fingerprint}"
        tags = {KIND_TAG: "evaluate"}
        run = self._parent(key, model, f"{model} evaluate", record.params, tags, search=record.search)
        if not run.is_finished:
            self.finish(run, record.metrics, record.artifacts)
        return run

    def add_artifacts(self, run: Run, folder: Location, subfolder: str) -> None:
        """Store the files of a folder with a run, in a subfolder; files of the same name are replaced."""
        address = self._spool.address(folder)
        self._write(AddFiles(key=run.key, time_ms=self._now_ms(), folder=address, subfolder=subfolder))

    def register(self, name: str, package: ModelPackage, run: Run) -> str | None:
        """Register a model as pyfunc, and move the aliases to it if it is better; the same files are registered once.

        Args:
            name: name of the registered model: the dataset's.
            package: the model's files, how it is asked, and how good it is.
            run: the evaluation that the model belongs to.

        Returns:
            The version; None where the store did not answer.
        """
        operation = RegisterModel(
            key=run.key,
            time_ms=self._now_ms(),
            name=name,
            folder=self._spool.address(package.folder),
            content=folder_hash(package.folder),
            form=package.form,
            merit=package.merit,
        )
        return self._write(operation).version

    def close(self, wait_s: float | None = None) -> int:
        """Wait for a store that is away, and write what it missed.

        Args:
            wait_s: longest wait; None: `CROPRAY_TRACKING_WAIT_S` of the environment, or 30 s.

        Returns:
            How many writes still wait; a later process makes them.
        """
        deadline = time.monotonic() + (self._wait_s() if wait_s is None else wait_s)
        self._breaker.be_patient_anew()
        while not self._is_caught_up(deadline - time.monotonic()) and time.monotonic() < deadline:
            if needs_a_person(self._reason):
                break
            time.sleep(_PAUSE_S)
        n_waiting = len(self._spool.waiting())
        if n_waiting:
            logger.warning(self.trouble())
        return n_waiting

    @property
    def notes(self) -> list[str]:
        """What the user should hear of what was written and what was given up."""
        return self._store.notes

    def trouble(self) -> str:
        """How many writes wait, why, and what to do; empty: none wait and the store answers."""
        n_waiting = len(self._spool.waiting())
        if not (n_waiting or self._n_lost or self._reason):
            return ""
        what = f"{n_waiting} writes wait in '{self._spool.folder}'" if n_waiting else "no write waits"
        lost = f", {self._n_lost} could not be kept: run the stage again to write them" if self._n_lost else ""
        late = "it was away" if self._n_lost else "they are more than the time at the end of a stage allows"
        why = self._reason or late
        todo = remedy(self._reason, self.uri) if self._reason else "run `cropray doctor CONFIG.yaml`"
        return (
            f"MLflow store '{self.uri}' is behind ({why}): {what}{lost}. Results in the workspace are complete. To do: "
            f"{todo}; then the next `cropray search`, `evaluate`, `map`, `doctor` or `ui` writes what waits"
        )

    def waits_elsewhere(self) -> list[str]:
        """Writes in this workspace that another store or experiment has missed."""
        return [
            f"{n} writes for another store or experiment ({name}) wait in the workspace: run `cropray doctor` with that "
            f"tracking_uri and name to write them, or delete '{self._spool.folder.parent}' to give them up"
            for name, n in self._spool.others().items()
        ]

    def _fold(self, configuration: Run, record: FoldRecord) -> WriteFold:
        return WriteFold(
            key=f"{configuration.key}/fold-{record.fold}",
            time_ms=self._now_ms(),
            model=configuration.model,
            parent=configuration.key,
            name=f"fold {record.fold}",
            params=as_texts({"fold": record.fold}),
            tags=as_texts({KIND_TAG: "fold", **(record.tags or {})}),
            points=curve_of(record.history) + points_of(record.metrics),
        )

    def _parent(
        self,
        key: str,
        model: str,
        name: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        **links: str | None,
    ) -> Run:
        """Find a run that has runs or files below it, or open it; `links`: keys of its `parent` or `search`."""
        operation = OpenRun(
            key=key,
            time_ms=self._now_ms(),
            model=model,
            parent=links.get("parent"),
            name=name,
            params=as_texts(params),
            tags=as_texts(tags),
            search=links.get("search"),
        )
        answer = self._write(operation)
        return Run(key, model, answer.run_id, answer.was_finished)

    def _write(self, operation: Operation) -> Answer:
        """Write now, or keep the write for later where the store is away or others wait."""
        if self._is_caught_up():
            try:
                return self._apply(operation, self._spool.locate)
            except RefusedError as error:
                self._drop(operation, error)
                return Answer()
            except OUTAGES as error:
                self._note_outage(str(operation), error)
        self.n_missed += 1
        try:
            self._spool.append(operation)
        except OSError as error:
            self._n_lost += 1
            logger.warning(
                "Neither MLflow store '%s' nor workspace did %s (%s); work goes on, and running the stage again writes it",
                *(self.uri, operation, redact(str(error))),
            )
        return Answer()

    def _is_caught_up(self, patience_s: float = _REPLAY_S) -> bool:
        """Replay what waits, unless the store is to be left alone; whether it is there and nothing waits."""
        if not self._breaker.allows_try():
            return False
        waiting = self._spool.waiting()
        self._began = time.monotonic()
        deadline, n_made = self._began + patience_s, 0
        try:
            if self._breaker.n_failures:
                self._store.probe()
            self._store.open()
            for file in waiting:
                if time.monotonic() > deadline:
                    return False
                n_made += self._replay(file)
            if n_made:
                self.notes.append(f"{n_made} writes that waited for MLflow store '{self.uri}' are made")
            self._store.settle_doubts()
        except OUTAGES as error:
            self._note_outage("answer", error)
            return False
        if self._breaker.n_failures:
            logger.info("MLflow store '%s' answers again; %d writes made up for", self.uri, n_made)
            self._breaker.succeeded()
        self._reason = ""
        return True

    def _replay(self, file: Location) -> bool:
        """Make a write that waits, and forget it; whether it was made."""
        try:
            operation = self._spool.read(file)
        except FileNotFoundError:
            return False
        except ValueError as error:
            what = f"make the write in '{file}', which is damaged or of another version of cropray"
            self._drop(f"{what} and which its stage makes anew", error)
            self._spool.refuse(file)
            return False
        try:
            self._apply(operation, self._spool.kept)
        except RefusedError as error:
            self._drop(operation, error)
            self._spool.refuse(file)
            return False
        self._spool.remove(file)
        return True

    def _apply(self, operation: Operation, locate: Callable[[str], Location]) -> Answer:
        self._began = time.monotonic()
        address = getattr(operation, "folder", None)
        return self._store.apply(operation, None if address is None else locate(address))

    def _tell_left_out(self, key: str, metrics: Mapping[str, float]) -> None:
        if names := [name for name, value in metrics.items() if not math.isfinite(value)]:
            self.notes.append(f"run '{key}': {', '.join(names)} are no finite numbers and are left out")

    def _drop(self, what: object, error: Exception) -> None:
        """Give up a write that can never be made; it must not hold up those behind it."""
        self.n_missed += 1
        note = f"MLflow store '{self.uri}' will never {what} ({first_line(error)}); it is left out"
        logger.warning(note)
        self.notes.append(note)

    def _note_outage(self, action: str, error: Exception) -> None:
        """Say it once, and leave the store alone for a while."""
        self._reason = first_line(error)
        level = logging.DEBUG if self._breaker.n_failures else logging.WARNING
        logger.log(
            level,
            "MLflow store '%s' did not %s (%s); work goes on, what it misses waits in '%s' and is written when it answers",
            *(self.uri, action, self._reason, self._spool.folder),
        )
        self._breaker.failed(time.monotonic() - self._began)
        self._store.forget()

    def _wait_s(self) -> float:
        text = os.environ.get(WAIT_VARIABLE, "")
        try:
            return float(text) if text else WAIT_S
        except ValueError:
            self.notes.append(
                f"{WAIT_VARIABLE}='{text}' is no number of seconds; up to {WAIT_S:g} s are waited for MLflow"
            )
            return WAIT_S

    def _now_ms(self) -> int:
        """Milliseconds since 1970, never the same twice: of two values at one step the later one counts."""
        self._last_ms = max(self._last_ms + 1, round(time.time() * 1000))
        return self._last_ms


def local_uri(workspace: Workspace) -> str:
    """Tracking URI of the workspace's own store.

    Raises:
        ConfigError: SQLAlchemy cannot name its path.
    """
    path = str(workspace.mlflow_database.resolve())
    quoted = path.replace("%", "%25").replace("?", "%3F")
    # Named with its driver where it is quoted: MLflow would make a folder of the quoted name for a plain `sqlite:`.
    for uri in (f"sqlite:///{path}", f"sqlite+pysqlite:///{quoted}"):
        if make_url(uri).database == path:
            return uri
    raise ConfigError(
        f"'{path}' cannot be the path of a database; set 'workspace' to a folder without special characters"
    )


def outcome(*trackers: Tracker) -> list[str]:
    """What the user should hear at the end of a stage, each line once.

    Args:
        trackers: of one job, which share what waits.
    """
    lines = [note for tracker in trackers for note in tracker.notes]
    for tracker in trackers[-1:]:
        lines += [*tracker.waits_elsewhere(), *filter(None, [tracker.trouble()])]
    return list(dict.fromkeys(lines))


def ui_command(workspace: Workspace, tracking_uri: str | None = None, port: int = UI_PORT) -> list[str]:
    """The command that serves the MLflow UI on http://127.0.0.1:`port` (answers after about 10 s)."""
    store = tracking_uri or local_uri(workspace)
    return [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--port", str(port)]
