"""The tracker: what stages call.

What MLflow holds is computed from the workspace (`projection`), at any time and as often as one likes (`store`). A store
that is away costs a warning and never a result: whatever it lacks is found and written by this or a later process.
"""

import logging
import os
import random
import sys
import time
from collections.abc import Sequence
from typing import Final, Self

from sqlalchemy.engine import make_url

from cropray.core.errors import ConfigError
from cropray.core.redaction import redact
from cropray.io.storage import remove, write_text
from cropray.io.workspace import Workspace
from cropray.io.workspace_lock import locked
from cropray.tracking.outages import OUTAGES, RefusedError, first_line, needs_a_person, remedy
from cropray.tracking.projection import NOTE_FILE, Projection
from cropray.tracking.records import EvaluationNote, Note
from cropray.tracking.store import OutOfTimeError, Store

logger = logging.getLogger(__name__)

UI_PORT: Final = 5000
WAIT_VARIABLE: Final = "CROPRAY_TRACKING_WAIT_S"
WAIT_S: Final = 30.0  # how long a stage's end waits for a store that is away
LONGEST_WAIT_S: Final = 30.0  # between two tries of a store that does not answer
_PATIENCE_S: Final = 10.0  # most that a stage gives to the store while it works
_PAUSE_S: Final = 1.0  # between two tries at a stage's end
_REST: Final = 10.0  # times what a try took: how long the store is left alone after it
_NAMED: Final = 3  # runs that a line names


class Tracker:
    """Brings one store up to date with a workspace.

    Attributes:
        uri: tracking URI of the store, without its password.
        notes: what the user should hear of what was written and what was given up.
    """

    def __init__(
        self, workspace: Workspace, experiment: str, tracking_uri: str | None = None, *, writes: bool = True
    ) -> None:
        """Open the store, and create it and the experiment where they do not exist; write what it lacks.

        Args:
            workspace: what the store shall hold, and home of the default store, an SQLite database.
            experiment: name of the experiment; one per dataset.
            tracking_uri: another store or server, which then also says where artifacts go.
            writes: False: open it only.
        """
        self._address = tracking_uri or local_uri(workspace)
        self._artifacts = None if tracking_uri else workspace.mlflow_artifacts.resolve().as_uri()
        self.uri = redact(self._address)
        self.notes: list[str] = []
        self._workspace = workspace
        self._experiment = experiment
        self._projection = Projection(workspace)
        self._stores: dict[str, Store] = {}
        self._waiting: set[str] = set()  # keys of what the store may lack
        self._reason = ""  # why it did not take what it did not take
        self._n_failures = 0  # since it answered last
        self._has_answered = False
        self._rests_until = 0.0
        if writes:
            self._give_up_spool()
        made = self._bring(self._projection.notes() if writes else (), _PATIENCE_S)
        if made:
            self.notes.append(f"{made} writes that waited for MLflow store '{self.uri}' are made")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Write what is left; only a stage that ends well waits for a store that is away."""
        self.close(None if kind is None else 0.0)

    @property
    def answers(self) -> bool:
        """Whether the store did when it was last asked."""
        return not self._reason

    def runs_page(self) -> str:
        """Page of the UI that compares the experiment's runs; its front page shows chat traces instead."""
        return f"/#/experiments/{self._store(self._experiment).experiment_id}/runs?compareRunsMode=CHART"

    def tested(self, model: str) -> EvaluationNote | None:
        """What is noted of the last test of a family's model."""
        notes = self._projection.notes()
        return next((note for note in notes if isinstance(note, EvaluationNote) and note.model == model), None)

    def note(self, note: Note) -> None:
        """Keep what a stage says of a run in the workspace, and bring the store up to date with that run.

        A store that did not answer, or took long, is left alone for a while: it gets the run another time.
        """
        self.keep(note)
        self.keep_up(note)

    def keep(self, note: Note) -> None:
        """Keep what is said of a run in the workspace, for whoever next brings the store up to date."""
        file = self._workspace.run(_folder(note)) / NOTE_FILE
        try:
            write_text(file, note.model_dump_json(indent=1) + "\n")
        except OSError as error:
            self.notes.append(
                f"'{file}' cannot be written ({redact(str(error))}): run the stage again if MLflow lacks '{note.key}'"
            )

    def keep_up(self, note: Note) -> None:
        """Bring the store up to date with one run and what is below it, unless it is to be left alone."""
        if time.monotonic() < self._rests_until:
            self._waiting.add(note.key)
        else:
            self._bring([note], _PATIENCE_S)

    def sync(self, patience_s: float = _PATIENCE_S) -> int:
        """Bring the store up to date with all of the workspace.

        Args:
            patience_s: about how long that may take.

        Returns:
            How many runs may still lack something.
        """
        self._bring(self._projection.notes(), patience_s)
        return len(self._waiting)

    def close(self, wait_s: float | None = None) -> int:
        """Bring the store up to date, and wait for one that is away.

        Args:
            wait_s: longest wait for it; None: `CROPRAY_TRACKING_WAIT_S` of the environment, or 30 s.

        Returns:
            How many runs may still lack something; a later process sees to them.
        """
        deadline = time.monotonic() + (self._wait_s() if wait_s is None else wait_s)
        while self.sync(max(deadline - time.monotonic(), _PATIENCE_S)) and not needs_a_person(self._reason):
            if (left_s := deadline - time.monotonic()) <= 0:
                break
            time.sleep(min(_PAUSE_S, left_s))
        if self._waiting:
            logger.warning(self.trouble())
        return len(self._waiting)

    def trouble(self) -> str:
        """What waits, why, and what to do; empty: nothing waits and the store answers."""
        if not (self._waiting or self._reason):
            return ""
        waiting = sorted(self._waiting)
        named = ", ".join(waiting[:_NAMED]) + (" …" if len(waiting) > _NAMED else "")
        known = "" if self._has_answered else "up to "  # it could not be asked what it has
        folder = self._workspace.run("")
        what = f"{known}{len(waiting)} writes wait in '{folder}' ({named})" if waiting else "no write waits"
        why = self._reason or "they are more than the time at the end of a stage allows"
        todo = remedy(self._reason, self.uri) if self._reason else "run `cropray doctor CONFIG.yaml`"
        return (
            f"MLflow store '{self.uri}' is behind ({why}): {what}. Results in the workspace are complete. To do: "
            f"{todo}; then the next `cropray search`, `evaluate`, `map`, `doctor` or `ui` writes what waits"
        )

    def outcome(self) -> list[str]:
        """What the user should hear at the end of a stage, each line once."""
        return list(dict.fromkeys([*self.notes, *self._projection.doubts, *filter(None, [self.trouble()])]))

    def _store(self, experiment: str) -> Store:
        if experiment not in self._stores:
            self._stores[experiment] = Store(self._address, experiment, self._artifacts, self.notes)
        return self._stores[experiment]

    def _bring(self, notes: Sequence[Note], patience_s: float) -> int:
        """Bring the store up to date with some runs; of how many it lacked something."""
        began, n_made = time.monotonic(), 0
        self._waiting |= {note.key for note in notes}
        try:
            _ = self._store(self._experiment).client
            began = time.monotonic()  # a new database takes seconds to be made, once
            for note in notes:
                n_made += self._put(note, began + patience_s)
                self._waiting.discard(note.key)
            for store in self._stores.values():
                store.settle_doubts()
            self._has_answered, self._reason, self._n_failures = True, "", 0
        except OutOfTimeError:
            self._has_answered, self._reason, self._n_failures = True, "", 0
        except OUTAGES as error:
            self._note_outage(error)
        now = time.monotonic()
        # Half is certain, so that a dead store is not asked at once; half is random, so that jobs do not ask together.
        wait = (
            random.uniform(0.5, 1.0) * min(LONGEST_WAIT_S, 2.0 ** min(self._n_failures, 10))
            if self._n_failures
            else 0.0
        )
        self._rests_until = now + max(wait, min(LONGEST_WAIT_S, _REST * (now - began)))
        return n_made

    def _put(self, note: Note, deadline: float) -> bool:
        """Whether the store lacked something."""
        store = self._store(note.experiment)
        store.deadline, before = deadline, store.n_made
        try:
            store.put(self._projection.run(note))
        except RefusedError as error:
            store.give_up(f"write '{note.key}'", error)
        return store.n_made > before

    def _note_outage(self, error: Exception) -> None:
        """Say it once, and leave the store alone for a while."""
        self._reason = first_line(error)
        level = logging.DEBUG if self._n_failures else logging.WARNING
        logger.log(
            level,
            "MLflow store '%s' did not answer (%s); work goes on, what it misses is written when it answers",
            *(self.uri, self._reason),
        )
        self._n_failures += 1
        for store in self._stores.values():
            store.forget()

    def _give_up_spool(self) -> None:
        """Earlier versions kept what a store missed as writes, of results that the workspace holds."""
        spool = self._workspace.root / "spool"
        if spool.exists():
            remove(spool)
            self.notes.append(
                f"'{spool}', in which an earlier version kept what MLflow had missed, is removed: all of it stands in the "
                f"workspace. Run `cropray search` and `cropray evaluate` again, which make nothing twice, to have it in MLflow"
            )

    def _wait_s(self) -> float:
        text = os.environ.get(WAIT_VARIABLE, "")
        try:
            return float(text) if text else WAIT_S
        except ValueError:
            self.notes.append(
                f"{WAIT_VARIABLE}='{text}' is no number of seconds; up to {WAIT_S:g} s are waited for MLflow"
            )
            return WAIT_S


def beside_stages(
    workspace: Workspace, experiment: str, tracking_uri: str | None, notes: Sequence[Note] = ()
) -> Tracker:
    """A tracker for a command that is no stage: it writes only while none is at work, as there is one writer.

    Args:
        workspace: see `Tracker`.
        experiment: see `Tracker`.
        tracking_uri: see `Tracker`.
        notes: of runs of the command, which are kept whether or not they can be written.
    """
    try:
        with locked(workspace.root):
            tracker = Tracker(workspace, experiment, tracking_uri)
            for note in notes:
                tracker.note(note)
            if tracker.answers:
                tracker.close()
            return tracker
    except (ConfigError, OSError) as error:
        tracker = Tracker(workspace, experiment, tracking_uri, writes=False)
        for note in notes:
            tracker.keep(note)
        tracker.notes.append(f"MLflow is not brought up to date with the workspace now: {error}")
        return tracker


def _folder(note: Note) -> str:
    """Of a search's note its own; of the tests of a family, and of what is made of tests, the last one's, as of its artefacts."""
    return note.key if note.kind == "search" else note.key.rpartition("/")[0]


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


def ui_command(workspace: Workspace, tracking_uri: str | None = None, port: int = UI_PORT) -> list[str]:
    """The command that serves the MLflow UI on http://127.0.0.1:`port` (answers after about 10 s)."""
    store = tracking_uri or local_uri(workspace)
    return [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--port", str(port)]
