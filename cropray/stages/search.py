"""`search`: every configuration on every fold, the winners, their refit on all training zones, and their runs in MLflow."""

import contextlib
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from cropray.cluster.node_memory import silence
from cropray.cluster.placement import Placement, live_nodes, share_cpus
from cropray.cluster.session import ray_disk, ray_session
from cropray.config import JobConfig
from cropray.core.errors import ConfigError, StageFailedError
from cropray.core.progress import Progress
from cropray.datasets.doubts import some
from cropray.datasets.manifest import Manifest, load_manifest
from cropray.datasets.regions import require_regions
from cropray.evaluation.models import note_until
from cropray.io.artefacts import Artefact
from cropray.io.storage import Location
from cropray.search.doubts import fold_doubts
from cropray.search.fit import OnStep, SearchData, fit_unit
from cropray.search.racing import write_zone_counts
from cropray.search.results import FoldResult
from cropray.search.run import Fit, UnitJob, run_units
from cropray.search.sampling import require_optuna
from cropray.search.space import Unit
from cropray.search.store import store_line
from cropray.stages.devices import require_devices
from cropray.stages.family_search import FamilySearch
from cropray.stages.preflight import Ahead, Check, check_gpus, check_tracking_uri, checks_of_models
from cropray.stages.samples import Samples
from cropray.stages.search_log import SearchLog
from cropray.stages.search_verdict import Searched
from cropray.tracking import Tracker
from cropray.training.abilities import require_row_weights, require_static
from cropray.training.family import family

_FEW: Final = 3  # units that are named in a line
_TELL_S: Final = 60.0  # least time between two lines about steps of fits
_TRACK_S: Final = 5.0  # and between two of their records in the tracker


def run(job: JobConfig, progress: Progress) -> None:
    """Search, refit and record the models of `search.models`.

    Raises:
        MissingArtefactError: there is no dataset.
        ConfigError: a model cannot be trained on this dataset or on this cluster.
        StageFailedError: some units failed.
    """
    manifest = load_manifest(job.artefacts.manifest)
    for left_out in job.left_out_in_words:
        progress.note(left_out)
    tiled = [model for model in job.search.models if family(model).sample == "tile"]
    if tiled and manifest.source == "points":
        raise ConfigError(f"a dataset of points has no tiles for {', '.join(tiled)}: take them out of search.models")
    require_static(job.search.models, manifest.cube)
    if manifest.is_weighted:
        require_row_weights(job.search.models)
    _check_folds(manifest)
    if job.search.leave_region_out:
        require_regions(manifest)
    with ray_session(job.cluster, needs_dashboard=job.uses_worker_groups):
        samples = Samples(job.artefacts, manifest, job.until_step)
        fitted, built = job.search.in_turn()
        searches = [FamilySearch(job, manifest, model, samples) for model in fitted]
        if job.search.oof_rows and not job.cluster.wait_s and _is_open(searches):
            require_devices(job, job.search.models)  # now, and not when the winners' folds predict
        _run_searches(job, searches, samples, progress, job.search.time_budget_s)
        for model in built:
            members = _members(job, model, searches)
            names, lacks = map(", ".join, job.settings_of(model).builds_on(job.search.models))
            without = f"; {lacks} are left out: the job does not search them" if lacks else ""
            progress.note(f"{model} is built from the winners of {names}{without}")
            _run_searches(job, [FamilySearch(job, manifest, model, samples, members)], samples, progress, None)
    for doubt in fold_doubts(manifest):
        progress.note(doubt)
    if not job.search.leave_region_out:
        progress.note("scores are of new zones in known regions; search.leave_region_out: true scores new regions, too")


def _run_searches(
    job: JobConfig, searches: Sequence[FamilySearch], samples: Samples, progress: Progress, time_s: float | None
) -> None:
    tracker = Tracker(job.artefacts, job.name, job.tracking_uri)
    for search in searches:
        search.start(tracker)
        search.tell_what_changed(progress)
    # Models whose units take the same share of the cluster run side by side: their start-up is paid once.
    alike = itertools.groupby(searches, key=lambda search: (search.placement, search.takes_share))
    groups = [(placement, list(group)) for (placement, _), group in alike]
    budget = _TimeBudget(time_s, [group for _, group in groups])
    try:
        with tracker:
            for placement, group in groups:
                _run_group(group, placement, samples, progress, budget)
    finally:  # also of a search that failed: its finished units are tracked, or wait to be
        for line in tracker.outcome():
            progress.note(line)
    _write_out_of_fold(searches, progress)


def _members(job: JobConfig, model: str, searches: Iterable[FamilySearch]) -> list[FamilySearch]:
    """Searches of the families that one is built from, in the order of the job."""
    names, _ = job.settings_of(model).builds_on(job.search.models)
    return [search for search in searches if search.model in names]


def checks(job: JobConfig, ahead: Ahead) -> Iterator[Check]:
    """Looks at libraries, services, GPUs and the dataset."""
    yield from checks_of_models(job)
    if job.search.sampler == "tpe":
        yield require_optuna
    yield partial(check_tracking_uri, job)
    yield partial(check_gpus, job)
    yield from ahead.made("dataset", job.artefacts.manifest)


def artefacts(job: JobConfig) -> Iterator[Artefact]:
    """What the stage makes: each model with its search, and what its folds say of the zones that they did not see.

    Raises:
        MissingArtefactError: there is no dataset.
    """
    manifest = load_manifest(job.artefacts.manifest)
    fitted, built = job.search.in_turn()
    samples, searches = Samples(job.artefacts, manifest), list[FamilySearch]()
    for model in (*fitted, *built):
        search = FamilySearch(job, manifest, model, samples, _members(job, model, searches))
        searches.append(search)
        yield Searched(job, manifest, model, search.key, search.planned, search.is_finished, search.members)
        yield from search.out_of_fold()


def _check_folds(manifest: Manifest) -> None:
    """Raises: ConfigError: a fold cannot be scored."""
    empty = [fold for fold in range(manifest.n_folds) if not manifest.fold_zones(fold)[1]]
    if empty:
        raise ConfigError(f"folds {empty} have no zone; run `cropray dataset` with fewer dataset.n_folds")
    for fold in range(manifest.n_folds):
        train, scored = manifest.fold_zones(fold)
        n_pixels = sum(manifest.labelled(scored).values())
        if n_pixels == sum(manifest.untrained(train, scored).values()):
            raise ConfigError(
                f"the zones {list(scored)} of fold {fold} hold {n_pixels:,} labelled pixels, none of them of a class that "
                f"other folds hold: nothing can be validated. Run `cropray dataset` with fewer dataset.n_folds, or add zones"
            )


def _run_group(
    searches: Sequence[FamilySearch],
    placement: Placement | None,
    samples: Samples,
    progress: Progress,
    budget: "_TimeBudget",
) -> None:
    """Args: placement: None where all is finished; samples: of all families, which are read when they are needed."""
    _tell_units(searches, progress)
    if placement is not None:
        progress.note(f"placement: {placement}; {_store_line(searches, placement, samples)}")
    _run_batches(searches, placement, progress, budget)
    winners = [search.choose(progress) for search in searches]
    refits = [search.refit(best) for search, (_, best) in zip(searches, winners, strict=True)]
    regions = [search.regions(best) for search, (_, best) in zip(searches, winners, strict=True)]
    last = [*refits, *(unit for of_model in regions for unit in of_model.values())]
    if not all(unit.is_finished for unit in last):
        without = f", and without each of {len(regions[0])} regions" if regions[0] else ""
        progress.note(
            f"refit of the winners on all {len(searches[0].manifest.of_split('train'))} training zones{without}"
        )
    _run_units(searches, last, placement, progress)
    for search, unit, of_model, (configurations, best) in zip(searches, refits, regions, winners, strict=True):
        region_out = search.publish(unit, of_model, configurations, best, progress)
        search.log.finish(best, search.workspace, region_out)


def _write_out_of_fold(searches: Sequence[FamilySearch], progress: Progress) -> None:
    """Of every model, also where another one's fail: what was published stands.

    ConfigError where the cluster has no GPU and `map.device` asks for one; StageFailedError lists failed zones of all models.
    """
    failures: dict[str, str] = {}
    n_done = 0
    for search in searches:
        try:
            n_done += search.write_out_of_fold(progress)
        except StageFailedError as error:
            failures |= {f"{search.model} out of fold, {zone}": why for zone, why in error.failures.items()}
            n_done += error.n_done
    if failures:
        raise StageFailedError("search", failures, n_done)


def _tell_units(searches: Sequence[FamilySearch], progress: Progress) -> None:
    search = searches[0].job.search
    jobs = [unit for each in searches for unit in each.units]
    n_finished = sum(unit.is_finished for unit in jobs)
    already = f", {n_finished} finished before" if n_finished else ""
    more = f" and more as they are proposed, {search.n_trials} trials in all" if search.sampler == "tpe" else ""
    if n_ahead := sum(len(each.race.ahead) for each in searches):
        more = f", up to {n_ahead} more of those that stay in the race{more}"
    models = " and ".join(each.model for each in searches)
    progress.stage("search", f"{models}: {len(jobs)} units of (configuration, fold){more}{already}")


class _TimeBudget:
    """`search.time_budget_s`: groups of models, one after the other, get even shares of what those before have left."""

    def __init__(self, seconds: float | None, groups: Sequence[Sequence[FamilySearch]]) -> None:
        self._left_s = math.inf if seconds is None else seconds
        self._n_open = sum(map(_is_open, groups))

    @contextlib.contextmanager
    def share(self) -> Iterator[float]:
        """Until when (`time.monotonic`) the next group with units to fit may fit them, s; inf: no limit."""
        started = time.monotonic()
        yield started + max(self._left_s, 0.0) / self._n_open
        self._n_open -= 1
        self._left_s -= time.monotonic() - started


def _is_open(searches: Sequence[FamilySearch]) -> bool:
    return not all(unit.is_finished for search in searches for unit in search.batch)


def _run_batches(
    searches: Sequence[FamilySearch], placement: Placement | None, progress: Progress, budget: _TimeBudget
) -> None:
    """Fit one batch of trials after the other, until there is no other one or the time is up."""
    if not _is_open(searches):
        return
    with budget.share() as ends:
        while (now := time.monotonic()) < ends:
            # Also those of finished families: how many there are decides on how many CPUs each computes.
            jobs = [unit for search in searches for unit in search.batch]
            _run_units(searches, jobs, placement, progress, ends - now if math.isfinite(ends) else None)
            if time.monotonic() >= ends or not [search for search in searches if search.advance()]:
                break
    left_out = [f"{search.model} {title}" for search in searches for title in search.left_out]
    n_not_proposed = sum(search.n_not_proposed for search in searches)
    lacks = [f"{n_not_proposed} trials were not proposed"] if n_not_proposed else []
    if left_out:
        named = some(left_out, _FEW)
        lacks.insert(0, f"{len(left_out)} units are not finished and their trials are left out ({named})")
    if lacks:
        progress.note(
            f"the time is up (search.time_budget_s = {searches[0].job.search.time_budget_s:g}): {', '.join(lacks)}; "
            f"run the search again to go on with them"
        )


def _store_line(searches: Sequence[FamilySearch], placement: Placement, samples: Samples) -> str:
    n_workers = placement.max_concurrent * max(placement.num_workers, 1)
    kinds = {search.sample for search in searches}
    n_tile_workers = n_workers if "tile" in kinds else 0
    store = store_line(samples.manifest, kinds | samples.loaded, live_nodes(), ray_disk(), n_tile_workers)
    return "; ".join(filter(None, [store, *(search.remark for search in searches), silence()]))


def _run_units(
    searches: Sequence[FamilySearch],
    jobs: Sequence[UnitJob],
    placement: Placement | None,
    progress: Progress,
    time_s: float | None = None,
) -> None:
    for search in searches:
        search.tell_of_race(progress)
        search.log.plan(search.units)
    n_pending = sum(not unit.is_finished for unit in jobs)
    if not n_pending:
        return
    assert placement is not None
    pending = {unit.unit.model for unit in jobs if not unit.is_finished}
    placement = _shared(searches, placement, len(jobs), progress)
    cpus = placement.cpus_per_worker
    data = {search.model: search.data(cpus) for search in searches if search.model in pending}
    logs = {search.model: search.log for search in searches}
    progress.restart()
    done = itertools.count(1)

    def on_finished(unit: UnitJob) -> None:
        for said in unit.notes():
            progress.note(f"{unit.unit.model} {unit.unit.title}: {said}")
        if unit.unit.fold is not None:
            logs[unit.unit.model].keep_up()
        progress.step(next(done), n_pending, f"{unit.unit.model} {unit.unit.title}", "units")

    storage = searches[0].workspace.root / "search" / ".tune"
    n_times = searches[0].job.search.max_failures
    fit = partial(_fit, data=data, until_step=searches[0].job.until_step)
    if searches[0].is_race:
        fit = partial(_fit_in_race, data=data, fit=fit)
    follow = _Following(logs, progress)
    run_units(
        jobs, fit, placement, storage, on_finished, n_times, on_trouble=progress.note, on_step=follow, time_s=time_s
    )


class _Following:
    """Lets long fits be seen: on the terminal and in the tracker, as often as neither is flooded."""

    def __init__(self, logs: Mapping[str, SearchLog], progress: Progress) -> None:
        self._logs = logs
        self._progress = progress
        self._told = self._tracked = time.monotonic()

    def __call__(self, job: UnitJob, record: Mapping[str, float]) -> None:
        now, unit = time.monotonic(), job.unit
        if now - self._tracked >= _TRACK_S and unit.fold is not None:
            self._tracked = now
            self._logs[unit.model].follow(job, record)
        if now - self._told >= _TELL_S:
            self._told = now
            values = ", ".join(f"{name} {value:.4g}" for name, value in record.items() if name.endswith("loss"))
            step = f"{family(unit.model).step_name} {record['step']:g}"
            self._progress.note(f"{unit.model} {unit.title}: {step}, {values}")


def _shared(searches: Sequence[FamilySearch], placement: Placement, n_units: int, progress: Progress) -> Placement:
    """The placement with all CPUs given away. It counts finished units too: a search that goes on computes as before."""
    if not searches[0].takes_share:
        return placement
    nodes = live_nodes()
    shares = [share_cpus(nodes, search.need, placement, n_units) for search in searches]
    least = min(shares, key=lambda share: share.cpus_per_worker)
    if least != placement:
        progress.note(f"so few units share the CPUs: {least}")
    return least


def _fit(
    unit: Unit,
    folder: Path,
    progress: Location,
    on_step: OnStep,
    data: Mapping[str, SearchData],
    until_step: int | None = None,
) -> Sequence[FoldResult]:
    results, load = fit_unit(unit, folder, data[unit.model], progress, on_step), data[unit.model].family.load
    if until_step is not None:
        note_until(folder, until_step, load if unit.fold is None and unit.region is None else None)
    return results


def _fit_in_race(
    unit: Unit, folder: Path, progress: Location, on_step: OnStep, data: Mapping[str, SearchData], fit: Fit
) -> Sequence[FoldResult]:
    results, of_model = fit(unit, folder, progress, on_step), data[unit.model]
    if unit.fold is not None and unit.fold + 1 < of_model.manifest.n_folds:  # after the last one nothing is dropped
        write_zone_counts(unit, folder, of_model, results)
    return results
