"""`search`: every configuration on every fold, the winners, their refit on all training zones, and their runs in MLflow."""

import functools
import itertools
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from cropray.config import JobConfig
from cropray.core.closure import closure, code_digest
from cropray.core.keys import Key, first_difference, key_of
from cropray.datasets.loading import load_pixels, load_tiles
from cropray.datasets.manifest import Manifest, load_manifest
from cropray.datasets.regions import require_regions
from cropray.errors import ConfigError
from cropray.maps.models import CARD_FILE
from cropray.metrics import check_cube
from cropray.progress import Progress
from cropray.search.doubts import fold_doubts, search_warnings
from cropray.search.fit import SearchData, fit_unit
from cropray.search.placement import Placement, live_nodes, need_of, place_when_ready, share_cpus
from cropray.search.results import ConfigurationResult, FoldResult, RegionOut, group_by_configuration, winner
from cropray.search.run import NOTES_FILE, UnitJob, run_units
from cropray.search.space import Trial, Unit, title, trials
from cropray.search.store import store_line
from cropray.settings import fingerprint
from cropray.stages.cluster import ray_disk, ray_session
from cropray.stages.results import load_region_out
from cropray.stages.search_log import SearchLog
from cropray.storage import Location, local_folder, whole_folder, write_json
from cropray.tracking import outcome
from cropray.training.family import Family, FamilySettings, Sample, family
from cropray.workspace import Workspace

_LOADERS: Final[Mapping[Sample, Callable[[Workspace, Sequence[str]], Mapping[str, Any]]]] = {
    "pixel": load_pixels,
    "tile": load_tiles,
}
_NOT_IN_NAMES: Final = re.compile(r"[^\w.=-]", re.ASCII)  # regions are called as people like
_LONGEST_NAME: Final = 100  # characters of a folder's name before its key


def run(job: JobConfig, progress: Progress) -> None:
    """Search, refit and record the models of `search.models`.

    Raises:
        MissingArtefactError: there is no dataset.
        ConfigError: a model cannot be trained on this dataset or on this cluster.
        StageFailedError: some units failed.
    """
    manifest = load_manifest(job.artefacts.manifest)
    tiled = [model for model in job.search.models if family(model).sample == "tile"]
    if tiled and manifest.source == "points":
        raise ConfigError(f"a dataset of points has no tiles for {', '.join(tiled)}: take them out of search.models")
    _check_folds(manifest)
    if job.search.leave_region_out:
        require_regions(manifest)
    with ray_session(job.cluster, needs_dashboard=job.uses_worker_groups):
        samples = _Samples(job.artefacts, manifest)
        searches = [_ModelSearch(job, manifest, model, samples) for model in job.search.models]
        for search in searches:
            search.tell_what_changed(progress)
        # Models whose units take the same share of the cluster run side by side: their start-up is paid once.
        alike = itertools.groupby(searches, key=lambda search: (search.placement, search.takes_share))
        try:
            for (placement, _), group in alike:
                _run_group(list(group), placement, samples, progress)
        finally:  # also of a search that failed: its finished units are tracked, or wait to be
            for line in outcome(*(search.log.tracker for search in searches)):
                progress.note(line)
    for doubt in fold_doubts(manifest):
        progress.note(doubt)
    if not job.search.leave_region_out:
        progress.note("scores are of new zones in known regions; search.leave_region_out: true scores new regions, too")


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


def fit_key(found: Family, settings: FamilySettings, manifest: Manifest, seed: int) -> Key:
    """What every fit of a family is made from, besides its own values, what they choose by name, and its zones."""
    content = {"training zones": manifest.training_fingerprint(), "seed": seed}
    code = closure(found.fit, fit_unit, _LOADERS[found.sample], *found.entries(settings))
    return key_of(code, {found.name: settings}, content)


_entries_digest: Final = functools.cache(code_digest)
"""Of what one trial chooses by name; many units share it."""


def _run_group(
    searches: "Sequence[_ModelSearch]", placement: Placement | None, samples: "_Samples", progress: Progress
) -> None:
    """Args: placement: None where all is finished; samples: of all families, which are read when they are needed."""
    jobs = [unit for search in searches for unit in search.units]
    n_finished = sum(unit.is_finished for unit in jobs)
    already = f", {n_finished} finished before" if n_finished else ""
    models = " and ".join(search.model for search in searches)
    progress.stage("search", f"{models}: {len(jobs)} units of (configuration, fold){already}")
    if placement is not None:
        progress.note(f"placement: {placement}; {_store_line(searches, placement, samples)}")
    for search in searches:
        search.log.write(result for unit in search.units if unit.is_finished for result in unit.results())
    _run_units(searches, jobs, placement, progress)
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


def _store_line(searches: "Sequence[_ModelSearch]", placement: Placement, samples: "_Samples") -> str:
    n_workers = placement.max_concurrent * max(placement.num_workers, 1)
    kinds = {search.family.sample for search in searches}
    n_tile_workers = n_workers if "tile" in kinds else 0
    store = store_line(samples.manifest, kinds | samples.loaded, live_nodes(), ray_disk(), n_tile_workers)
    return "; ".join([store, *(search.remark for search in searches if search.remark)])


def _run_units(
    searches: "Sequence[_ModelSearch]", jobs: Sequence[UnitJob], placement: Placement | None, progress: Progress
) -> None:
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
            logs[unit.unit.model].write(unit.results())
        progress.step(next(done), n_pending, f"{unit.unit.model} {unit.unit.title}", "units")

    storage = searches[0].workspace.root / "search" / ".tune"
    n_times = searches[0].job.search.max_failures
    run_units(jobs, partial(_fit, data=data), placement, storage, on_finished, n_times, on_trouble=progress.note)


def _shared(searches: "Sequence[_ModelSearch]", placement: Placement, n_units: int, progress: Progress) -> Placement:
    """The placement with all CPUs given away. It counts finished units too: a search that goes on computes as before."""
    if not searches[0].takes_share:
        return placement
    nodes = live_nodes()
    shares = [share_cpus(nodes, search.need, placement, n_units) for search in searches]
    least = min(shares, key=lambda share: share.cpus_per_worker)
    if least != placement:
        progress.note(f"so few units share the CPUs: {least}")
    return least


def _fit(unit: Unit, folder: Path, progress: Location, data: Mapping[str, SearchData]) -> Sequence[FoldResult]:
    return fit_unit(unit, folder, data[unit.model], progress)


class _Samples:
    """Training samples in the object store: each kind is read once, for all families that train on it."""

    def __init__(self, workspace: Workspace, manifest: Manifest) -> None:
        self.workspace = workspace
        self.manifest = manifest
        self._blocks: dict[Sample, Mapping[str, Any]] = {}

    @property
    def loaded(self) -> set[Sample]:
        """Kinds that are there."""
        return set(self._blocks)

    def blocks(self, sample: Sample) -> Mapping[str, Any]:
        """Training zone → its samples."""
        if sample not in self._blocks:
            zone_ids = [zone.zone_id for zone in self.manifest.of_split("train")]
            self._blocks[sample] = _LOADERS[sample](self.workspace, zone_ids)
        return self._blocks[sample]


class _ModelSearch:
    """The search of one family."""

    def __init__(self, job: JobConfig, manifest: Manifest, model: str, samples: _Samples) -> None:
        self.job = job
        self.manifest = manifest
        self.model = model
        self.family = family(model)
        self.samples = samples
        self.workspace: Workspace = job.artefacts
        self.settings = job.settings_of(model)
        self.takes_share = self.settings.takes_share
        self.need = need_of(model, self.settings)
        # What a fit depends on besides its own values and fold.
        searched = job.search.space(model).searched()
        defaults = type(self.settings)().model_dump(include=set(searched))
        self.key = fit_key(self.family, self.settings.model_copy(update=defaults), manifest, job.seed)
        self.context = self.key.digest
        found = trials(self.family, self.settings, job.search, job.seed)
        self.units = [self._job(Unit(model, trial, fold)) for trial in found for fold in range(manifest.n_folds)]
        # A finished search asks for no nodes: it may be published by a machine that could not have made it.
        self.placement: Placement | None = None
        self.memory_bytes: float | None = None
        self.remark = ""
        """How fits are made, where a person should know."""
        if not self._is_finished():
            self._place()
        self.log = SearchLog(job, manifest, model, self.context)

    def tell_what_changed(self, progress: Progress) -> None:
        """Say why units of an earlier search do not count any more."""
        path = self.workspace.search_result(self.model)
        if not path.exists():
            return
        before = json.loads(path.read_text(encoding="utf-8")).get("key")
        why = "it was made by an earlier version" if before is None else first_difference(before, self.key.parts)
        if why is not None:
            progress.note(f"{self.model:<8} the units of the search that stands are not of this one: {why}")

    def _is_finished(self) -> bool:
        if not all(unit.is_finished for unit in self.units):
            return False
        _, best = self._configurations()
        return all(unit.is_finished for unit in (self.refit(best), *self.regions(best).values()))

    def _place(self) -> None:
        """Find room for the units.

        Raises:
            ConfigError: there will never be any, or a worker's memory is too little for the trees.
        """
        self.placement = place_when_ready(self.need, self.job.search.max_concurrent, self.job.cluster.wait_s)
        memory = self.placement.memory_bytes
        # Rows of the refit, and of each fold's two parts.
        n_rows = sum(zone.n_labelled for zone in self.manifest.of_split("train"))
        self.memory_bytes = memory if math.isfinite(memory) else None
        self.remark = self.settings.check(n_rows, self.manifest.n_classes, self.memory_bytes)

    def data(self, cpus: float) -> SearchData:
        """Training zones in the object store, read once; and the settings of fits on so many CPUs."""
        blocks, settings = self.samples.blocks(self.family.sample), self.settings.on_cpus(cpus)
        return SearchData(self.family, self.manifest, settings, blocks, self.job.seed, self.memory_bytes)

    def choose(self, progress: Progress) -> tuple[tuple[ConfigurationResult, ...], ConfigurationResult]:
        """(all configurations, the winner), which are listed as well."""
        configurations, best = self._configurations()
        for configuration in configurations:
            m = configuration.metrics
            progress.note(
                f"{self.model:<8} {title(configuration.params):<38} accuracy {m['val_accuracy_mean']:.4f}  "
                f"macro F1 {m['val_macro_f1_mean']:.4f} ± {m['val_macro_f1_std']:.4f}  "
                f"loss {m['val_loss_mean']:.4f}{'  ← best' if configuration is best else ''}"
            )
        return configurations, best

    def _configurations(self) -> tuple[tuple[ConfigurationResult, ...], ConfigurationResult]:
        configurations = group_by_configuration(result for unit in self.units for result in unit.results())
        return configurations, winner(configurations, self.job.search.objective)

    def refit(self, best: ConfigurationResult) -> UnitJob:
        """The winner's fit on all training zones."""
        values, steps = dict(best.params), self.family.steps
        if steps is not None:
            return self._job(Unit(self.model, Trial(values, (int(values.pop(steps)),)), None))
        n_steps = None if self.family.most_steps is None else best.refit_steps
        return self._job(Unit(self.model, Trial(values), None, n_steps))

    def regions(self, best: ConfigurationResult) -> dict[str, UnitJob]:
        """Region → the refit that leaves it out; none where leave-region-out is not wanted. Nothing is chosen here."""
        if not self.job.search.leave_region_out:
            return {}
        refit = self.refit(best).unit
        return {region: self._job(replace(refit, region=region)) for region in self.manifest.train_regions}

    def publish(
        self,
        refit: UnitJob,
        regions: Mapping[str, UnitJob],
        configurations: Sequence[ConfigurationResult],
        best: ConfigurationResult,
        progress: Progress,
    ) -> RegionOut | None:
        """Write the model that later stages read, then the summary of the search, and tell what is to be doubted."""
        with (
            whole_folder(self.workspace.model(self.model), last=CARD_FILE) as folder,
            local_folder(refit.folder) as fitted,
        ):
            shutil.copytree(fitted, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(NOTES_FILE))
        manifest, region_out = self.manifest, self._region_out(regions)
        warnings = search_warnings(self.family, self.settings, configurations, best)
        if region_out is not None:
            scores = region_out.scores
            progress.note(
                f"{self.model:<8} new regions ({len(regions)}): accuracy {scores.accuracy:.4f}  macro F1 "
                f"{scores.macro_f1:.4f}"
            )
        for warning in warnings:
            progress.note(f"{self.model:<8} warning: {warning}")
        summary: dict[str, Any] = {
            "model": self.model,
            "key": self.key.parts,
            "dataset": manifest.fingerprint(),
            "objective": self.job.search.objective,
            "run": self.log.search.key,
            "best": dict(best.params),
            "refit_steps": best.refit_steps,
            "units": [unit.folder.name for unit in self.units],
            "configurations": [{"params": dict(c.params), **c.metrics} for c in configurations],
            "untrained": [manifest.untrained(*manifest.fold_zones(fold)) for fold in range(manifest.n_folds)],
            "warnings": warnings,
        }
        if region_out is not None:
            summary["region_out"] = {
                "units": {region: unit.folder.name for region, unit in regions.items()},
                "metrics": region_out.metrics,
                "regions": {r: s.as_metrics("region_out") for r, s in region_out.scores_by_region.items()},
            }
        write_json(self.workspace.search_result(self.model), summary)
        return region_out

    def _region_out(self, regions: Mapping[str, UnitJob]) -> RegionOut | None:
        """Raises: AccountingError: the pixels of a region were not counted exactly once."""
        if not regions:
            return None
        region_out = load_region_out(self.workspace, self.model, {r: unit.folder.name for r, unit in regions.items()})
        zones = {region: self.manifest.region_zones(region)[1] for region in regions}
        n_labelled = {region: sum(self.manifest.labelled(zones[region]).values()) for region in regions}
        check_cube(region_out.cube, list(regions), n_labelled)
        return region_out

    def _job(self, unit: Unit) -> UnitJob:
        chosen = self.family.entries(self.settings.with_values(unit.trial.values))
        of_trial = [_entries_digest(*chosen)] if chosen else []
        key = fingerprint([self.context, asdict(unit.trial), unit.fold, unit.n_steps, unit.region, *of_trial])[:10]
        name = _NOT_IN_NAMES.sub("-", unit.title.replace(" ", "_"))[:_LONGEST_NAME]
        folder = self.workspace.unit(self.model, f"{name}-{key}")
        return UnitJob(unit, folder, self.workspace.unit_progress(self.model, f"{folder.name}.safetensors"))
