"""How much there is to do: zones, pixels, rows, tiles, fits; and where it is done."""

import heapq
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from cropray.cluster.placement import Node, Placement, need_of, place_units
from cropray.config import JobConfig
from cropray.imagery.acquisition import Traffic
from cropray.planning.costs import Kind
from cropray.search.sampling import trials
from cropray.search.space import title
from cropray.training.family import FamilySettings, Sample, family


@dataclass(frozen=True, slots=True)
class ZoneWork:
    """Zones of a job, with what they hold: counted, or scaled up from a sample."""

    n_zones: int
    n_test: int
    n_mapped: int
    """Zones that each model maps."""
    n_films: int
    """Zones that the report shows through the year."""
    n_pixels: int
    """Of all zones."""
    train_rows: float
    """Labelled pixels."""
    test_rows: float
    train_tiles: float
    n_classes: int
    n_regions: int = 0
    """Regions that have training zones."""

    @property
    def zone_pixels(self) -> float:
        """Of a zone, on average."""
        return self.n_pixels / max(self.n_zones, 1)

    def training(self, sample: Sample) -> float:
        """Samples of a kind in all training zones."""
        return self.train_rows if sample == "pixel" else self.train_tiles


@dataclass(frozen=True, slots=True)
class Fit:
    """One unit of a search, as far as its cost goes."""

    kind: Kind
    steps: int
    """At most; 1 where the family has none."""
    role: Literal["fold", "refit", "region_out"] = "fold"
    """A refit trains on all training zones and is not scored; one for a region trains on all other regions, and is scored
    on that one, once."""

    @property
    def model(self) -> str:
        """Its family."""
        return self.kind[0]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the work is done."""

    nodes: tuple[Node, ...]
    """At least one."""
    network_bytes_s: float = 10e9 / 8
    """Of one node; assumed where nothing is said."""

    @property
    def n_cpus(self) -> float:
        """Of all nodes."""
        return sum(node.cpus for node in self.nodes)

    @property
    def node_cpus(self) -> float:
        """Of one node, on average."""
        return self.n_cpus / len(self.nodes)

    @property
    def at_once(self) -> int:
        """Tasks of one CPU that it holds at the same time, at least one."""
        return max(1, int(self.n_cpus))

    @property
    def object_store_bytes(self) -> float:
        """Of one node: what a fit reads must lie in its own node's store."""
        return sum(node.object_store_bytes for node in self.nodes) / len(self.nodes)


@dataclass(frozen=True)
class JobWork:
    """A job's work and where it is done; the fits and their places follow from these."""

    job: JobConfig
    zones: ZoneWork
    cluster: Cluster
    traffic: Traffic | None = None

    @cached_property
    def placements(self) -> dict[str, Placement]:
        """See `place`."""
        return place(self.job, self.cluster)

    @property
    def n_left_out(self) -> int:
        """Regions each of which a fit leaves out; 0: leave-region-out is not scored."""
        return self.zones.n_regions if self.job.search.leave_region_out else 0

    @cached_property
    def groups(self) -> tuple[tuple[Fit, ...], ...]:
        """All fits in the order in which they are begun; models whose units take the same share run side by side."""
        job, groups = self.job, list[tuple[Fit, ...]]()
        shares = {model: (placed, job.settings_of(model).takes_share) for model, placed in self.placements.items()}
        for _, group in itertools.groupby(job.search.models, shares.get):
            fits = {model: [fit for fit, _ in _trials(job, model)] for model in group}
            most_trials = max(map(len, fits.values()))
            size = job.search.batch if job.search.sampler == "tpe" else most_trials
            for first in range(0, most_trials, size):
                batch = [fit for of_model in fits.values() for fit in of_model[first : first + size]]
                n_folds = job.dataset.n_folds
                rounds, at_once = (n_folds, 1) if job.search.racing else (1, n_folds)
                groups += [tuple(fit for fit in batch for _ in range(at_once))] * rounds
            # The winner is not known: the dearest is assumed, with most steps.
            most = {model: max(fit.steps for fit in of_model) for model, of_model in fits.items()}
            refits = [Fit((model, ""), steps, "refit") for model, steps in most.items()]
            without = [replace(fit, role="region_out") for fit in refits for _ in range(self.n_left_out)]
            groups.append((*refits, *without))
        return tuple(groups)

    @property
    def fits(self) -> list[Fit]:
        """All of them."""
        return [fit for group in self.groups for fit in group]

    def refit(self, model: str) -> Fit:
        """A family's."""
        return next(fit for fit in self.fits if fit.model == model and fit.role == "refit")


def place(job: JobConfig, cluster: Cluster) -> dict[str, Placement]:
    """Model → how its units are placed, as `search` places them.

    Raises:
        ConfigError: not even one unit fits.
    """
    return {
        model: place_units(cluster.nodes, need_of(model, job.settings_of(model)), job.search.max_concurrent)
        for model in job.search.models
    }


def kinds(job: JobConfig, model: str) -> dict[Kind, FamilySettings]:
    """Kinds of a family's trials, which differ in what a fit costs → settings of the first trial of each."""
    found: dict[Kind, FamilySettings] = {}
    for fit, settings in _trials(job, model):
        found.setdefault(fit.kind, settings)
    return found


def _trials(job: JobConfig, model: str) -> list[tuple[Fit, FamilySettings]]:
    """One fit of each trial, with its settings."""
    found, settings = family(model), job.settings_of(model)
    result = []
    for trial in trials(found, settings, job.search, job.seed):
        own = settings.with_values(trial.values)
        most = getattr(own, found.most_steps) if found.most_steps else 1
        costly = {k: v for k, v in trial.values.items() if k not in found.free and k != found.most_steps}
        result.append((Fit((model, title(costly)), trial.steps[-1] if trial.steps else most), own))
    return result


def makespan(durations_s: Iterable[float], n_slots: int) -> float:
    """Seconds until the last of some tasks ends, which start in order, each in the first slot that is free."""
    if n_slots < 1:
        raise ValueError(f"tasks need at least one slot, got {n_slots}")
    slots = [0.0] * n_slots
    for duration in durations_s:
        heapq.heapreplace(slots, slots[0] + duration)
    return max(slots)
