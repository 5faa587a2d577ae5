"""The search of one family: its units, its winner, the refits, and the model that later stages read."""

import functools
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

import numpy as np

from cropray.cluster.placement import Placement, need_of, place_when_ready
from cropray.cluster.resources import FitSize
from cropray.config import JobConfig
from cropray.core.closure import Root, closure, code_digest
from cropray.core.errors import StageFailedError
from cropray.core.fingerprint import fingerprint
from cropray.core.keys import Key, differences, key_of
from cropray.core.metrics import STUDY, check_cube, metric_of
from cropray.core.progress import Progress
from cropray.datasets.loading import show_until
from cropray.datasets.manifest import Manifest
from cropray.evaluation.out_of_fold import read_out_of_fold_of_zone
from cropray.io.artefacts import Stamped, first_of
from cropray.io.storage import content_id, local_folder, whole_folder, write_json
from cropray.io.workspace import EARLIER, Workspace
from cropray.search.doubts import search_warnings
from cropray.search.fit import Place, SearchData, fit_unit, unit_zones
from cropray.search.racing import Race, worth
from cropray.search.results import ConfigurationResult, RegionOut, group_by_configuration, winner
from cropray.search.run import NOTES_FILE, UnitJob
from cropray.search.sampling import batches
from cropray.search.space import Trial, Unit, title
from cropray.stages.decision import learn_of_winner
from cropray.stages.out_of_fold import Folds, artefacts_of_winner, write_of_winner
from cropray.stages.results import load_region_out
from cropray.stages.samples import LOADERS, Samples
from cropray.stages.search_log import SearchLog, means_in_words, scores_in_words
from cropray.tracking import Tracker
from cropray.training.card import CARD_FILE
from cropray.training.family import Family, FamilySettings, Sample, family
from cropray.training.members import Member

_NOT_IN_NAMES: Final = re.compile(r"[^\w.=-]", re.ASCII)  # regions are called as people like
_LONGEST_NAME: Final = 100  # characters of a folder's name before its key


def fit_key(
    found: Family,
    settings: FamilySettings,
    manifest: Manifest,
    seed: int,
    members: Sequence[Family] = (),
    until_step: int | None = None,
) -> Key:
    """What every fit of a family is made from, besides its own values, what they choose by name, its zones and members."""
    content = {"training zones": manifest.training_fingerprint(), "seed": seed}
    rules = [metric.of for metric in (*STUDY, *map(metric_of, settings.stopped_by()))]
    read: list[Root] = [each for member in members for each in (member.load, member.prefix) if each is not None]
    if until_step is not None:
        content, read = {**content, "last step of time": until_step}, [*read, show_until]
    code = closure(found.fit, fit_unit, LOADERS[sample_of(found, members)], *found.entries(settings), *rules, *read)
    return key_of(code, {found.name: settings}, content)


def sample_of(found: Family, members: Sequence[Family]) -> Sample:
    """What a family is scored on; one that is built from others by tiles where one of them is, which all can predict."""
    return "tile" if any(member.sample == "tile" for member in members) else found.sample


_entries_digest: Final = functools.cache(code_digest)
"""Of what one trial chooses by name; many units share it."""


class FamilySearch:
    """The search of one family, or what stands for it of one that is built from others' winners."""

    def __init__(
        self,
        job: JobConfig,
        manifest: Manifest,
        model: str,
        samples: Samples,
        members: "Sequence[FamilySearch]" = (),
    ) -> None:
        """Args: members: searches of the families that it is built from, which have winners; else it has no units yet."""
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
        kinds = [member.family for member in members]
        settings = self.settings.model_copy(update=defaults)
        self.key = fit_key(self.family, settings, manifest, job.seed, kinds, job.until_step)
        self.context = self.key.digest
        self.sample = sample_of(self.family, kinds)
        self.members = tuple(member.model for member in members)
        self.is_waiting = not all(member.has_winner() for member in members)
        fitted = [] if self.is_waiting else [member.winning_fits() for member in members]
        self._built_from: dict[Place, tuple[Member, ...]] = {
            place: tuple(of_member[place] for of_member in fitted) for place in (fitted[0] if fitted else ())
        }
        # Identity of an out-of-fold file, which many units read.
        self._content = functools.cache(lambda name, zone_id: content_id(self.workspace.out_of_fold(name, zone_id)))
        self._rounds = iter(()) if self.is_waiting else self._in_rounds()
        self.race = Race(job.search.objective, manifest.n_folds, self._of_fold, job.seed, is_on=self.is_race)
        self._n_proposed = 0  # trials, of a sampler that learns
        self.units: list[UnitJob] = []
        """Of all trials so far; of a race on the folds that they came to."""
        self.batch: list[UnitJob] = []
        """Of the last trials, which may wait for more, or for their next fold."""
        self.advance()
        # A finished search asks for no nodes: it may be published by a machine that could not have made it.
        self.placement: Placement | None = None
        self.memory_bytes: float | None = None
        self.remark = ""
        """How fits are made, where a person should know."""

    def start(self, tracker: Tracker) -> None:
        """Find room for the units, where any is left, and a run of the tracker for them."""
        if not self.is_finished():
            self._place()
        self.log = SearchLog(self.job, self.manifest, self.model, self.context, tracker)

    def advance(self) -> bool:
        """Go on to the next batch that has a unit to fit; whether there is one."""
        for units in self._rounds:
            self.batch = list({unit.folder: unit for unit in units}.values())  # a trial may be proposed twice
            known = {unit.folder for unit in self.units}
            self.units += [unit for unit in self.batch if unit.folder not in known]
            if not all(unit.is_finished for unit in self.batch):
                return True
        return False

    def _in_rounds(self) -> Iterator[list[UnitJob]]:
        for proposed in batches(self.family, self.settings, self.job.search, self.job.seed, self._score):
            self._n_proposed += len(proposed)
            yield from self.race.rounds(proposed)

    def _of_fold(self, trial: Trial, fold: int) -> UnitJob:
        return self._job(Unit(self.model, trial, fold))

    @property
    def is_race(self) -> bool:
        """Whether trials are dropped on the way; what is built from other families takes next to no time."""
        return self.job.search.racing and self.family.combine is None

    def _score(self, trial: Trial) -> float:
        """Mean of the objective over the folds, more is better; see `racing.worth`."""
        (configuration,) = group_by_configuration(r for u in self.units if u.unit.trial == trial for r in u.results())
        is_whole = len(configuration.folds) == self.manifest.n_folds
        return worth(configuration, configuration if is_whole else self._configurations()[1], self.job.search.objective)

    @property
    def left_out(self) -> list[str]:
        """Titles of units that are not finished, though the search is: its time was up."""
        return [unit.unit.title for unit in self.planned if not unit.is_finished]

    @property
    def planned(self) -> list[UnitJob]:
        """Units of all trials so far, those that a race may come to as well."""
        return [*self.units, *self.race.ahead]

    @property
    def n_not_proposed(self) -> int:
        """Trials that a sampler that learns has not come to."""
        search = self.job.search
        return search.n_trials - self._n_proposed if search.sampler == "tpe" else 0

    @property
    def n_repeated(self) -> int:
        """Draws and proposals of values that others had drawn or proposed; such trials are one."""
        if self.job.search.sampler == "grid":
            return 0
        n_unlike = sum(max(len(unit.unit.trial.steps), 1) for unit in self.units if unit.unit.fold == 0)
        return self.job.search.n_trials - self.n_not_proposed - n_unlike

    def tell_what_changed(self, progress: Progress) -> None:
        """Say why units of an earlier search do not count any more."""
        path = self.workspace.search_result(self.model)
        if not path.exists():
            return
        before = json.loads(path.read_text(encoding="utf-8")).get("key")
        why = [EARLIER] if before is None else list(differences(before, self.key.parts))
        if why:
            progress.note(f"{self.model:<8} the units of the search that stands are not of this one: {first_of(why)}")

    def is_finished(self) -> bool:
        """Whether no unit is left, refits included."""
        return all(unit.is_finished for unit in self.units) and self.has_winner()

    def has_winner(self) -> bool:
        """Whether a winner is refitted; units may be left, whose time was up."""
        if not any(len(configuration.folds) == self.manifest.n_folds for configuration in self._finished()):
            return False
        _, best = self._configurations()
        return all(unit.is_finished for unit in (self.refit(best), *self.regions(best).values()))

    def _place(self) -> None:
        """Find room for the units; ConfigError where none will ever be, or a worker's memory is too little for the trees."""
        self.placement = place_when_ready(self.need, self.job.search.max_concurrent, self.job.cluster.wait_s)
        memory, manifest = self.placement.memory_bytes, self.manifest
        # Rows of the refit, and of each fold's two parts.
        n_rows = sum(zone.n_labelled for zone in manifest.of_split("train"))
        self.memory_bytes = memory if math.isfinite(memory) else None
        size = FitSize(n_rows, manifest.n_classes, self.settings.n_features(manifest.cube), self.memory_bytes)
        self.remark = self.settings.check(size)

    def data(self, cpus: float) -> SearchData:
        """Training zones in the object store, read once; and the settings of fits on so many CPUs."""
        (blocks, manifest), settings = self.samples.blocks(self.sample), self.settings.on_cpus(cpus)
        return SearchData(self.family, manifest, settings, blocks, self.job.seed, self.memory_bytes, self._built_from)

    def choose(self, progress: Progress) -> tuple[tuple[ConfigurationResult, ...], ConfigurationResult]:
        """(all configurations, the winner), which are listed as well."""
        configurations, best = self._configurations()
        self.tell_of_race(progress)
        for configuration in configurations:
            scores = means_in_words(configuration.metrics, self.job.search.objective)
            mark = "  ← best" if configuration is best else ""
            progress.note(f"{self.model:<8} {title(configuration.params):<38} {scores}{mark}")
        if n := self.n_repeated:
            progress.note(
                f"{self.model:<8} {n} of {self.job.search.n_trials} trials repeat the values of others and count once"
            )
        return configurations, best

    def tell_of_race(self, progress: Progress) -> None:
        """Say which trials were dropped since this was last said, and why."""
        while self.race.news:
            progress.note(f"{self.model:<8} {self.race.news.pop(0)}")

    def _configurations(self) -> tuple[tuple[ConfigurationResult, ...], ConfigurationResult]:
        configurations = tuple(c for c in self._finished() if len(c.folds) == self.manifest.n_folds)
        if not configurations:
            raise StageFailedError("search", dict.fromkeys(self.left_out, "its time was up (search.time_budget_s)"), 0)
        return configurations, winner(configurations, self.job.search.objective)

    def _finished(self) -> tuple[ConfigurationResult, ...]:
        return group_by_configuration(r for unit in self.units if unit.is_finished for r in unit.results())

    def _judged(self, whole: Sequence[ConfigurationResult]) -> Sequence[ConfigurationResult]:
        return self._finished() if self.is_race else whole  # what was dropped was searched as well

    def refit(self, best: ConfigurationResult) -> UnitJob:
        """The winner's fit on all training zones."""
        n_steps = None if self.family.most_steps is None else best.refit_steps
        return self._job(Unit(self.model, self._trial(best), None, n_steps))

    def _trial(self, best: ConfigurationResult) -> Trial:
        values, steps = dict(best.params), self.family.steps
        return Trial(values) if steps is None else Trial(values, (int(values.pop(steps)),))

    def regions(self, best: ConfigurationResult) -> dict[str, UnitJob]:
        """Region → the refit that leaves it out; none where leave-region-out is not wanted. Nothing is chosen here."""
        if not self.job.search.leave_region_out:
            return {}
        refit = self.refit(best).unit
        return {region: self._job(replace(refit, region=region)) for region in self.manifest.train_regions}

    def write_out_of_fold(self, progress: Progress) -> int:
        """Write what the winner's folds say of the zones that they did not see, of how many zones, and learn from it."""
        folds = self._folds_of_winner()
        n_zones = write_of_winner(self.job, self.manifest, self.model, folds, progress, self.members)
        learn_of_winner(self.job, self.manifest, self.model, progress)
        return n_zones

    def out_of_fold(self) -> Iterator[Stamped]:
        """The files of `write_out_of_fold`; none as long as no configuration is finished."""
        if any(len(configuration.folds) == self.manifest.n_folds for configuration in self._finished()):
            yield from artefacts_of_winner(self.job, self.manifest, self.model, self._folds_of_winner(), self.members)

    def winning_fits(self) -> dict[Place, Member]:
        """The winner's fits by where they were made, of a finished search: what a family is built from."""
        _, best = self._configurations()
        fits: dict[Place, tuple[UnitJob, int]] = {(fold, None): fit for fold, fit in self._folds_of_winner().items()}
        fits |= {(None, region): (unit, best.refit_steps) for region, unit in self.regions(best).items()}
        fits[None, None] = self.refit(best), best.refit_steps
        return {place: self._member(*fit) for place, fit in fits.items()}

    def _member(self, unit: UnitJob, step: int) -> Member:
        untrained = next((result.untrained for result in unit.results()), ())
        zones, _ = unit_zones(unit.unit, self.manifest)
        files = {zone_id: self.workspace.out_of_fold(self.model, zone_id) for zone_id in zones}
        readers = {zone_id: partial(read_out_of_fold_of_zone, file) for zone_id, file in files.items() if file.exists()}
        of_folds = [self.manifest.fold_zones(fold)[0] for fold in range(self.manifest.n_folds)]
        lacks = [self.manifest.class_counts(train) == 0 for train in of_folds]
        unlearnt = {
            zone.zone_id: tuple(np.flatnonzero(lacks[zone.fold]).tolist())
            for zone in self.manifest.of_split("train")
            if zone.fold is not None
        }
        return Member(self.model, self.family.load, self.family.prefix, unit.folder, step, untrained, readers, unlearnt)

    def _folds_of_winner(self) -> Folds:
        _, best = self._configurations()
        trial, steps = self._trial(best), {result.fold: result.best_step for result in best.folds}
        return {
            unit.unit.fold: (unit, steps[unit.unit.fold])
            for unit in self.units
            if unit.is_finished
            and unit.unit.fold is not None
            and title(unit.unit.trial.values) == title(trial.values)
            and set(trial.steps) <= set(unit.unit.trial.steps)
        }

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
        warnings = search_warnings(
            self.family, self.settings, self._judged(configurations), best, self.job.search.space(self.model).ranges()
        )
        if region_out is not None:
            progress.note(f"{self.model:<8} new regions ({len(regions)}): {scores_in_words(region_out.scores)}")
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
            "units": [unit.folder.name for unit in self.units if unit.is_finished],
            "left_out": self.left_out,
            "not_proposed": self.n_not_proposed,
            "repeated": self.n_repeated,
            "racing": self.job.search.racing,
            "dropped": self.race.dropped,
            "configurations": [{"params": dict(c.params), **c.metrics} for c in configurations],
            "without": dict(self.job.left_out),
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
        own = self.settings.with_values(unit.trial.values)
        chosen = self.family.entries(own)
        of_trial = [_entries_digest(*chosen)] if chosen else []
        members = self._built_from.get((unit.fold, unit.region), ())
        of_members: list[Any] = [[member.name, member.folder.name, member.step] for member in members]
        if own.heeds_out_of_fold:
            of_members += [self._content(member.name, zone_id) for member in members for zone_id in member.out_of_fold]
        parts = [self.context, asdict(unit.trial), unit.fold, unit.n_steps, unit.region, *of_trial, *of_members]
        key = fingerprint(parts)[:10]
        name = _NOT_IN_NAMES.sub("-", unit.title.replace(" ", "_"))[:_LONGEST_NAME]
        folder = self.workspace.unit(self.model, f"{name}-{key}")
        return UnitJob(unit, folder, self.workspace.unit_progress(self.model, f"{folder.name}.safetensors"))
