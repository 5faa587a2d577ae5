"""Running units on Ray Tune: each finished unit is a folder, and what is finished is never repeated.

Tune schedules, bounds and retries; the folders in the workspace are the ledger. A search that was interrupted, changed
or moved to another cluster finds its finished units by their content (data, settings, point, fold, code), which
Tune's own restore does not check.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from cropray.errors import ConfigError, StageFailedError
from cropray.search.results import FoldResult, load_results, save_results
from cropray.search.space import Unit
from cropray.storage import Location, arrow_path, whole_folder

RESULT_FILE = "result.json"
DRIVER_CPUS = 0.01  # a trial that only drives a worker group must not take the CPUs its workers wait for


@dataclass(frozen=True, slots=True)
class UnitJob:
    """A unit and the folder that it becomes."""

    unit: Unit
    folder: Location

    @property
    def is_finished(self) -> bool:
        """Whether the unit's folder stands; it appears whole."""
        return (self.folder / RESULT_FILE).exists()

    def results(self) -> tuple[FoldResult, ...]:
        """Results of the finished unit."""
        return load_results(self.folder / RESULT_FILE)


@dataclass(frozen=True, slots=True)
class Placement:
    """How many CPUs and GPUs one unit takes, and how many units run at once."""

    cpus_per_unit: float
    """CPUs that a unit and its workers use."""
    gpus_per_unit: float
    trial_cpus: float
    """CPUs of the Tune trial itself."""
    trial_gpus: float
    max_concurrent: int


def place_units(
    cluster: Mapping[str, float], num_workers: int, cpus: float, gpus: float, limit: int | None
) -> Placement:
    """Compute how many units fit, from the whole cluster.

    Args:
        cluster: resources of the cluster, `CPU` and `GPU`.
        num_workers: workers of a unit; 0: it trains in its Tune trial.
        cpus: CPUs per worker.
        gpus: GPUs per worker.
        limit: largest number of concurrent units; None: no limit.

    Raises:
        ConfigError: not even one unit fits; it would wait for ever.
    """
    n = max(num_workers, 1)
    driver = DRIVER_CPUS if num_workers else 0.0
    need_cpus, need_gpus = n * cpus + driver, n * gpus
    have_cpus, have_gpus = cluster.get("CPU", 0.0), cluster.get("GPU", 0.0)
    fits = int(have_cpus / need_cpus + 1e-9)
    if need_gpus:
        fits = min(fits, int(have_gpus / need_gpus + 1e-9))
    if fits < 1:
        raise ConfigError(
            f"one unit needs {need_cpus:g} CPUs and {need_gpus:g} GPUs ({n} workers), the cluster has {have_cpus:g} and "
            f"{have_gpus:g}: it would wait for ever. Lower num_workers or cpus_per_worker, or add nodes"
        )
    in_process = num_workers == 0
    return Placement(
        cpus_per_unit=need_cpus,
        gpus_per_unit=need_gpus,
        trial_cpus=cpus if in_process else DRIVER_CPUS,
        trial_gpus=gpus if in_process else 0.0,
        max_concurrent=min(fits, limit) if limit else fits,
    )


def run_units(
    jobs: Sequence[UnitJob],
    fit: Callable[[Unit, Path], Sequence[FoldResult]],
    placement: Placement,
    storage: Location,
    on_finished: Callable[[UnitJob], None],
) -> None:
    """Fit the units that are not finished; each becomes a whole folder.

    Args:
        jobs: units and their folders.
        fit: trains a unit, writes its model into the given folder and returns its results; runs in the trial.
        placement: resources and concurrency.
        storage: folder of Tune's own state.
        on_finished: called in the driver for each unit that this call finished.

    Raises:
        StageFailedError: some units failed twice; it lists them.
    """
    pending = {job.folder.name: job for job in jobs if not job.is_finished}
    if not pending:
        return
    filesystem, storage_path = arrow_path(storage)
    trainable = tune.with_resources(
        tune.with_parameters(_trial, jobs=pending, fit=fit),
        {"CPU": placement.trial_cpus, "GPU": placement.trial_gpus},
    )
    tuner = tune.Tuner(
        trainable,
        param_space={"unit": tune.grid_search(list(pending))},
        tune_config=tune.TuneConfig(max_concurrent_trials=placement.max_concurrent, reuse_actors=True),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=storage_path,
            storage_filesystem=filesystem,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=1),
            callbacks=[_Finished(pending, on_finished)],
        ),
    )
    grid = tuner.fit()
    errors = {
        result.config["unit"]: str(result.error).strip().splitlines()[-1]
        for result in grid
        if result.error is not None and result.config is not None
    }
    # The folders decide: a trial whose process died early may have an error but no config (Trial.last_result).
    failures = {
        job.unit.title: errors.get(name, "its process died; see Ray's logs, and lower max_concurrent if memory ran out")
        for name, job in pending.items()
        if not job.is_finished
    }
    if failures:
        raise StageFailedError("search", failures, len(jobs) - len(failures))


def _trial(
    config: dict[str, Any], jobs: Mapping[str, UnitJob], fit: Callable[[Unit, Path], Sequence[FoldResult]]
) -> None:
    job = jobs[config["unit"]]
    with whole_folder(job.folder, last=RESULT_FILE) as folder:
        save_results(folder / RESULT_FILE, fit(job.unit, folder))
    tune.report({"finished": 1})


class _Finished(tune.Callback):  # type: ignore[misc]  # ray is untyped
    """Tells the driver of each finished unit."""

    def __init__(self, jobs: Mapping[str, UnitJob], on_finished: Callable[[UnitJob], None]) -> None:
        self._jobs = jobs
        self._on_finished = on_finished

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune saves its callbacks to restore them elsewhere, this one belongs to the running driver."""
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        self._on_finished(self._jobs[trial.config["unit"]])
