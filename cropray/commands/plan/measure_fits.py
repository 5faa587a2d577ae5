"""Unit costs of training and mapping: small fits of the job's own families on the sampled zones, through their interface.

Each kind of trial is fitted with few steps and with more, on two numbers of samples, and once with validation; the costs are the
non-negative numbers that explain the times best. Families are told apart by nothing but what they say of themselves.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import ray
from scipy.optimize import nnls

from cropray.cluster.placement import Placement
from cropray.cluster.zone_jobs import task_bytes
from cropray.commands.plan.measure_maps import measure_map, measure_row
from cropray.commands.plan.measure_zones import peak_memory
from cropray.config import JobConfig
from cropray.core.legend import IGNORE, CropClass, Legend
from cropray.datasets.manifest import ZoneEntry, statistics
from cropray.datasets.storage import read_pixels, read_tiles
from cropray.datasets.tiles import TrainingTiles
from cropray.io.storage import size_of
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.maps.zone import MapJob
from cropray.planning.costs import FitCosts, FitTerms, Kind, Straight
from cropray.planning.work import ZoneWork, kinds
from cropray.search.store import data_bytes
from cropray.training.family import Family, FamilySettings, Fit, FitData, family

MOST_BYTES: Final = 4e6  # training samples of a measured fit; the costs of more are extended in a line
FEW, MORE = 1, 3  # steps; more of them where they are quick
ENOUGH_S: Final = 1.0  # a fit that takes so long is not lost in the noise of the machine
MOST_KINDS: Final = 4  # kinds of trials that are measured of a family; the others take the dearest one's costs
MOST_COPIES: Final = 8  # fits measured side by side
_SCORED: Final = 2  # scored samples of a measured fit, per training sample
_ZONE: Final = "sample"


@dataclass(frozen=True, slots=True)
class FitSample:
    """What is fitted, and how large the real fits are."""

    job: JobConfig
    scratch: Workspace
    """Where the samples stand."""
    zones: Sequence[Zone]
    """Zones that were made; none where the job reads points."""
    entries: Sequence[ZoneEntry]
    """What these zones, or the points' training zones, hold."""
    classes: tuple[CropClass, ...]
    """Classes of the dataset."""
    legend: Legend
    """That the classes belong to."""
    work: ZoneWork
    """All zones of the job."""


def measure_fits(sample: FitSample, placements: Mapping[str, Placement], n_cpus: float) -> dict[Kind, FitCosts]:
    """Fit beside each other as many copies as a search would, and take the mean."""
    costs: dict[Kind, FitCosts] = {}
    for model, placement in placements.items():
        fits_here = int(n_cpus / placement.cpus_per_unit)
        n = max(1, min(placement.max_concurrent, fits_here, MOST_COPIES))
        # What one worker takes: a whole unit's may be more than any node has.
        asked = {"num_cpus": placement.cpus_per_worker, "num_gpus": placement.gpus_per_worker}
        task = ray.remote(max_retries=0, **asked)(measure_family)
        # Copies must not write the same files.
        copies = ray.get([task.remote(sample, model, placement.cpus_per_worker, f"{model}-{i}") for i in range(n)])
        costs |= {kind: mean([copy[kind] for copy in copies]) for kind in copies[0]}
    return costs


def mean(values: Sequence[Any]) -> Any:
    """Of numbers, or of each number of named tuples."""
    if isinstance(values[0], tuple):
        return type(values[0])(*map(mean, zip(*values, strict=True)))
    return fmean(values)


def measure_family(sample: FitSample, model: str, cpus: float, name: str) -> dict[Kind, FitCosts]:
    """Measure a family's kinds of trials in this process, each fit on so many CPUs; `name`: of the maps that it writes."""
    chosen = list(kinds(sample.job, model).items())[:MOST_KINDS]
    fits = _Fits(sample, family(model), name)
    return {kind: fits.measure(settings.measurable(cpus, has_gpus=True)) for kind, settings in chosen}


class _Run(NamedTuple):
    """One measured fit."""

    n: int
    """Training samples."""
    steps: int
    terms: FitTerms
    seconds: float
    folder: Path
    peak_bytes: int
    """Most memory of the process so far."""


class _Fits:
    """Fits of one family on the sample."""

    def __init__(self, sample: FitSample, found: Family, name: str) -> None:
        self.sample, self.family, self.name = sample, found, name
        self.cube, self.tile_size = sample.job.cube_spec, sample.job.dataset.tile_size
        self.samples = self._tiles() if found.sample == "tile" else self._rows()
        self.mean, self.std = (tuple(values.tolist()) for values in statistics(sample.entries[0].sums))

    def measure(self, settings: FamilySettings) -> FitCosts:
        """Costs of one kind of trial."""
        batch = getattr(settings, self.family.batch) if self.family.batch else np.inf
        with tempfile.TemporaryDirectory(prefix="cropray-") as root:
            first, *runs = self._runs(settings, batch, Path(root))
            few, more = runs[-3:-1]
            more_s, map_s, map_bytes = self._prediction(more.folder)
            # Steps of families without prefixes do not stay in the model.
            few_s = self._prediction(few.folder)[0] if self.family.steps else more_s
            model_bytes = Straight.through((few.steps, size_of(few.folder)), (more.steps, size_of(more.folder)))
        pixel_s = Straight.through((few.steps, few_s), (more.steps, more_s))
        if self.family.steps and not pixel_s.per:  # lost in the noise of the machine: then all of it is the steps'
            pixel_s = Straight(0.0, more_s / more.steps)
        fit_s, _ = nnls(np.array([run.terms for run in runs]), np.array([run.seconds for run in runs]))
        count = self.family.operations
        return FitCosts(
            seconds=FitTerms(*fit_s.tolist()),
            model_bytes=model_bytes,
            worker_bytes=Straight.through(*((min(run.n, batch), run.peak_bytes) for run in (first, more))),
            batch=batch,
            pixel_s=Straight(max(pixel_s.base, 0.0), pixel_s.per),
            map_s=map_s,
            map_bytes=map_bytes,
            operations=count(settings, self.tile_size, len(self.sample.classes), self.cube) if count else 0.0,
        )

    def _runs(self, settings: FamilySettings, batch: float, root: Path) -> list[_Run]:
        """A first one, which pays for imports, then those that count; few and more steps without validation before the last."""
        # On a GPU a tile costs less in a full batch; on CPUs the same in a batch of any size.
        least = int(batch) if settings.need().gpus and batch < np.inf else 1
        n_folds, sample = self.sample.job.dataset.n_folds, self.family.sample
        of_fold = self.sample.work.training(sample) * (n_folds - 1) / n_folds
        most_n = max(int(min(MOST_BYTES / data_bytes(sample, 1, 1, self.tile_size, self.cube), of_fold)), 2 * least)
        field = self.family.steps or self.family.most_steps
        most_steps = int(getattr(settings, field)) if field else FEW
        n, steps = max(most_n // 4, 2 * least), min(MORE, most_steps)

        def run(n: int, steps: int, n_scored: int = 0) -> _Run:
            return self._run(settings, n, steps, n_scored, Path(tempfile.mkdtemp(dir=root)))

        first = run(n // 2, FEW)
        while (more := run(n, steps)).seconds < ENOUGH_S and (n < most_n or steps < most_steps):
            n, steps = min(2 * n, most_n), min(2 * steps, most_steps)
        halves = [run(n // 2, FEW), run(n // 2, steps)]
        return [first, *halves, run(n, FEW), more, run(n, steps, _SCORED * n)]

    def _run(self, settings: FamilySettings, n: int, steps: int, n_scored: int, folder: Path) -> _Run:
        found, sample = self.family, self.sample
        job = Fit(
            settings=settings, train=self._data(n), val=self._data(n_scored) if n_scored else None,
            classes=sample.classes, legend_hash=sample.legend.hash(), mean=self.mean, std=self.std, seed=sample.job.seed,
            folder=folder, steps=(steps,) if found.steps else (), n_steps=steps if found.most_steps else None, cube=self.cube,
        )  # fmt: skip
        started = time.perf_counter()
        found.fit(job)
        seconds = time.perf_counter() - started
        terms = FitTerms.of(steps, n, n_scored, 1 if found.most_steps else steps)
        return _Run(n, steps, terms, seconds, folder, peak_memory())

    def _data(self, n: int) -> FitData:
        """Samples drawn from the sampled zones, more than once where these have fewer."""
        samples = self.samples
        if isinstance(samples, TrainingTiles):
            picked = np.arange(n) % len(samples.x)
            tiles = TrainingTiles(samples.x[picked], samples.labels[picked])
            return FitData({_ZONE: tiles}, {_ZONE: int((tiles.labels != IGNORE).sum())})
        picked = np.sort(np.random.default_rng(n).integers(0, len(samples), n))
        return FitData({_ZONE: samples.take(pa.array(picked))}, {_ZONE: n})

    def _prediction(self, folder: Path) -> tuple[float, float, float]:
        """(seconds of a pixel or row, seconds of a zone's map beside them, its bytes) with the model of a fit."""
        model, sample = self.family.load(folder, "cpu"), self.sample
        if not sample.zones:
            return measure_row(model, self.samples), 0.0, 0.0
        job = MapJob(self.name, sample.legend, sample.job.map, sample.scratch, task_bytes())
        return measure_map(model, sample.zones[0], job)

    def _rows(self) -> pa.Table:
        of = self.sample
        return pa.concat_tables([read_pixels(of.scratch, entry.zone_id, self.cube) for entry in of.entries])

    def _tiles(self) -> TrainingTiles:
        of = self.sample
        tiles = [read_tiles(of.scratch, entry.zone_id, self.tile_size, self.cube) for entry in of.entries]
        return TrainingTiles(np.concatenate([of.x for of in tiles]), np.concatenate([of.labels for of in tiles]))
