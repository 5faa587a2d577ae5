"""Running units on Ray Tune: each finished unit is a folder, and what is finished is never repeated.

Tune schedules, bounds and retries; the folders in the workspace are the ledger. A search that was interrupted, changed
or moved to another cluster finds its finished units by their content (data, settings, point, fold, code), which
Tune's own restore does not check.
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from ray import tune

from cropray.cluster.placement import Placement
from cropray.core.errors import CroprayError, StageFailedError
from cropray.io.storage import Location, arrow_path, remove, whole_folder, write_json
from cropray.search.results import RESULT_FILE, FoldResult, load_results, save_results
from cropray.search.space import Unit

NOTES_FILE = "notes.json"  # what the fit warned of, where it did
log = logging.getLogger(__name__)
_FAILED = "failed"  # what a trial reports instead of raising where the same error would come again
_FINAL = (CroprayError, FloatingPointError)


OnStep: TypeAlias = Callable[[Mapping[str, float]], None]
Fit: TypeAlias = Callable[[Unit, Path, Location, OnStep], Sequence[FoldResult]]
TELL_S: Final = 10.0  # least time between two steps that a trial tells of
_RECORD: Final = "record"


@dataclass(frozen=True, slots=True)
class UnitJob:
    """A unit and the folder that it becomes."""

    unit: Unit
    folder: Location
    progress: Location
    """File from which the unit goes on after its process was lost; it is removed once the folder stands."""

    @property
    def is_finished(self) -> bool:
        """Whether the unit's folder stands; it appears whole."""
        return (self.folder / RESULT_FILE).exists()

    def results(self) -> tuple[FoldResult, ...]:
        """Results of the finished unit."""
        return load_results(self.folder / RESULT_FILE)

    def notes(self) -> tuple[str, ...]:
        """What the finished unit's fit warned of."""
        path = self.folder / NOTES_FILE
        return tuple(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else ()


def run_units(  # noqa: PLR0913 - what to fit, where, and whom to tell
    jobs: Sequence[UnitJob],
    fit: Fit,
    placement: Placement,
    storage: Location,
    on_finished: Callable[[UnitJob], None],
    max_failures: int = 1,
    *,
    on_trouble: Callable[[str], None] = log.warning,
    on_step: Callable[[UnitJob, Mapping[str, float]], None] = lambda *_: None,
    time_s: float | None = None,
    tell_s: float = TELL_S,
) -> None:
    """Fit the units that are not finished; each becomes a whole folder.

    Args:
        jobs: units and their folders.
        fit: trains a unit, writes its model into the given folder and returns its results; runs in the trial. It is also
            given the file from which it goes on, and what to tell of its steps.
        placement: resources and concurrency.
        storage: folder of Tune's own state.
        on_finished: called in the driver for each unit that this call finished.
        max_failures: how often a unit is started again after it failed or its process was lost.
        on_trouble: called in the driver with what happened to a unit that is started again.
        on_step: called in the driver with a unit and the record of a step of its fit, every now and then.
        tell_s: least time between two of these, of one unit, s.
        time_s: units that are not finished then are stopped and left as they are, to go on another time; None: no limit.

    Raises:
        StageFailedError: some units failed more often; it lists them.
    """
    pending = {}
    for job in jobs:
        if job.is_finished:
            remove(job.progress)  # of a process that was lost just after the unit's folder stood
        else:
            pending[job.folder.name] = job
    if not pending:
        return
    finished = _Finished(pending, on_finished, on_trouble, on_step)
    started = time.monotonic()
    errors = _errors(_tuner(pending, fit, placement, storage, finished, (max_failures, time_s, tell_s)).fit())
    finished.tell_of_the_rest()
    # The folders decide: a trial whose process died early may have an error but no config (Trial.last_result).
    is_over = time_s is not None and time.monotonic() - started >= time_s
    failures = {
        job.unit.title: errors.get(name, "its process died; see Ray's logs, and lower max_concurrent if memory ran out")
        for name, job in pending.items()
        if not job.is_finished and (name in errors or not is_over)
    }
    if failures:
        raise StageFailedError("search", failures, len(jobs) - len(failures))
    remove(storage)


def _errors(grid: tune.ResultGrid) -> dict[str, str]:
    """Unit → why its trial failed."""
    errors = {}
    for result in grid:
        said = result.error or (result.metrics or {}).get(_FAILED)
        if said is not None and result.config is not None:
            errors[result.config["unit"]] = _last_line(said)
    return errors


def _last_line(error: object) -> str:
    """Of a traceback, what was wrong; of an error without words, its kind."""
    return (str(error).strip() or repr(error)).splitlines()[-1]


def _tuner(
    pending: Mapping[str, UnitJob],
    fit: Fit,
    placement: Placement,
    storage: Location,
    callback: "_Finished",
    limits: tuple[int, float | None, float],
) -> tune.Tuner:
    """One trial for each pending unit; limits: failures of each, seconds of all, seconds between steps."""
    max_failures, time_s, tell_s = limits
    filesystem, storage_path = arrow_path(storage)
    trainable = tune.with_resources(
        tune.with_parameters(_trial, jobs=pending, fit=fit, tell_s=tell_s), placement.trial_resources
    )
    return tune.Tuner(
        trainable,
        param_space={"unit": tune.grid_search(list(pending))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=placement.max_concurrent, reuse_actors=True, time_budget_s=time_s
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=storage_path,
            storage_filesystem=filesystem,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=max_failures),
            callbacks=[callback],
        ),
    )


def _trial(config: dict[str, Any], jobs: Mapping[str, UnitJob], fit: Fit, tell_s: float) -> None:
    job = jobs[config["unit"]]
    if not job.is_finished:  # else its process was lost after the folder stood, before Tune knew
        try:
            with whole_folder(job.folder, last=RESULT_FILE) as folder, _warnings() as said:
                results = fit(job.unit, folder, job.progress, _Teller(tell_s))
                if said:
                    write_json(folder / NOTES_FILE, said)
                save_results(folder / RESULT_FILE, results)
        except _FINAL as error:
            tune.report({_FAILED: str(error) or repr(error)})
            return
    remove(job.progress)
    tune.report({"finished": 1})


class _Teller:
    """Tells Tune, and by it the driver, of a step now and then: each report waits for the driver."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last = time.monotonic()

    def __call__(self, record: Mapping[str, float]) -> None:
        if time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            tune.report({_RECORD: dict(record), **record})


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """Warnings that this package logs while the block runs: nobody reads the log of a worker process."""
    said: list[str] = []
    logger, handler = logging.getLogger("cropray"), logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


class _Finished(tune.Callback):  # type: ignore[misc]  # ray is untyped
    """Tells the driver of each finished unit."""

    def __init__(
        self,
        jobs: Mapping[str, UnitJob],
        on_finished: Callable[[UnitJob], None],
        on_trouble: Callable[[str], None],
        on_step: Callable[[UnitJob, Mapping[str, float]], None],
    ) -> None:
        self._waiting = dict(jobs)
        self._on_finished = on_finished
        self._on_trouble = on_trouble
        self._on_step = on_step

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune saves its callbacks to restore them elsewhere, this one belongs to the running driver."""
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **_: Any) -> None:  # noqa: ARG002
        if _RECORD in result:
            self._on_step(self._waiting[trial.config["unit"]], result[_RECORD])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        name = trial.config["unit"]
        if _FAILED not in trial.last_result and self._waiting[name].is_finished:  # else its time was up
            self._on_finished(self._waiting.pop(name))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        title = self._waiting[trial.config["unit"]].unit.title
        # Tune keeps the traces of a trial's failures in a file of this machine; the last one is what happened now.
        file = trial.error_file
        reason = "no reason is known" if file is None else _last_line(Path(file).read_text(encoding="utf-8"))
        self._on_trouble(f"{title} failed and is started again: {reason}")

    def tell_of_the_rest(self) -> None:
        """Of units whose folders stand though their trials were lost at the very end."""
        for job in self._waiting.values():
            if job.is_finished:
                self._on_finished(job)
