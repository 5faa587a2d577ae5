"""Unit costs of training and mapping: small fits of the job's own families on the sampled zones, through their interface.

Each kind of trial is fitted with few steps and with more, on two numbers of samples, and once with validation; the costs are the
non-negative numbers that explain the times best. Families are told apart by nothing but what they say of themselves.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray
from scipy.optimize import nnls

from cropray.cluster.placement import Placement
from cropray.cluster.zone_jobs import task_bytes
from cropray.commands.plan.measure_maps import SampledModel
from cropray.commands.plan.measure_zones import peak_memory, weigh
from cropray.config import JobConfig
from cropray.core.legend import IGNORE, CropClass, Legend
from cropray.datasets.build import band_sums, read_zone_arrays
from cropray.datasets.manifest import BandSums, statistics
from cropray.datasets.storage import read_pixels, read_tiles
from cropray.datasets.tiles import TrainingTiles
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.maps.zone import MapJob, map_zone
from cropray.planning.costs import FitCosts, Kind
from cropray.planning.estimate import kinds
from cropray.search.store import data_bytes
from cropray.training.family import CropModel, Family, FamilySettings, Fit, FitData, Sample, family

MOST_BYTES: Final = 4e6  # training samples of a measured fit; the costs of more are extended in a line
FEW, MORE = 1, 3  # steps; more of them where they are quick
ENOUGH_S: Final = 1.0  # a fit that takes so long is not lost in the noise of the machine
MOST_KINDS: Final = 4  # kinds of trials that are measured of a family; the others take the dearest one's costs
MOST_MAP_S: Final = 10.0  # of predicting; a full-size network takes a zone of 10 km half a minute on a CPU
MOST_COPIES: Final = 8  # fits measured side by side
_QUICK_S: Final = 3.0  # what takes longer is not done a second time
_SCORED: Final = 2  # scored samples of a measured fit, per training sample
_TIMES: Final = ("start_s", "sample_s", "step_s", "step_sample_s", "score_s")
_ZONE: Final = "sample"


@dataclass(frozen=True, slots=True)
class FitSample:
    """What is fitted, and how large the real fits are."""

    job: JobConfig
    scratch: Workspace
    zones: tuple[Zone, ...]
    """Sampled zones, whose dataset stands in `scratch`; empty where `table` is given."""
    classes: tuple[CropClass, ...]
    """Classes of the dataset."""
    legend: Legend
    """That the classes belong to."""
    n_train: Mapping[Sample, float]
    """Training samples of a real fold."""
    table: pa.Table | None = None
    """Labelled points instead of zones."""
    sums: BandSums | None = None
    """Of these points."""


def measure_fits(sample: FitSample, placements: Mapping[str, Placement], n_cpus: float) -> dict[Kind, FitCosts]:
    """Fit beside each other as many copies as a search would, and take the mean."""
    costs: dict[Kind, FitCosts] = {}
    for model, placement in placements.items():
        fits_here = int(n_cpus / placement.cpus_per_unit)
        n = max(1, min(placement.max_concurrent, fits_here, MOST_COPIES))
        # What one worker takes: a whole unit's may be more than any node has.
        task = _measure.options(num_cpus=placement.cpus_per_worker, num_gpus=placement.gpus_per_worker)
        copies = ray.get([task.remote(sample, model, placement.cpus_per_worker, number) for number in range(n)])
        costs |= {kind: _mean([copy[kind] for copy in copies]) for kind in copies[0]}
    return costs


def _mean(costs: Sequence[FitCosts]) -> FitCosts:
    return FitCosts(**{each.name: fmean(getattr(cost, each.name) for cost in costs) for each in fields(FitCosts)})


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]  # ray is untyped
def _measure(sample: FitSample, model: str, cpus: float, number: int) -> dict[Kind, FitCosts]:
    return measure_family(sample, model, cpus, f"{model}-{number}")  # copies must not write the same files


def measure_family(sample: FitSample, model: str, cpus: float, name: str) -> dict[Kind, FitCosts]:
    """Measure a family's kinds of trials in this process.

    Args:
        sample: what is fitted.
        model: the family.
        cpus: of a fit.
        name: of the files that the maps are.
    """
    chosen = list(kinds(sample.job, model).items())[:MOST_KINDS]
    fits = _Fits(sample, family(model), name)
    return {kind: fits.measure(settings.measurable(cpus, has_gpus=True)) for kind, settings in chosen}


@dataclass(frozen=True, slots=True)
class _Run:
    """One measured fit."""

    n: int
    """Training samples."""
    steps: int
    n_scored: int
    n_times: int
    """How often they were scored."""
    seconds: float
    folder: Path
    peak_bytes: int
    """Most memory of the process so far."""

    def terms(self) -> tuple[float, ...]:
        """What each of `_TIMES` is multiplied by."""
        return 1, self.n + self.n_scored, self.steps, self.steps * self.n, self.n_times * self.n_scored


class _Fits:
    """Fits of one family on the sample."""

    def __init__(self, sample: FitSample, found: Family, name: str) -> None:
        self.sample = sample
        self.family = found
        self.name = name
        self.samples = _rows(sample) if found.sample == "pixel" else _tiles(sample)
        sums = sample.sums or band_sums(
            read_zone_arrays(sample.zones[0], sample.scratch, sample.job.cube_spec).composite
        )
        self.mean, self.std = (tuple(values.tolist()) for values in statistics(sums))

    def measure(self, settings: FamilySettings) -> FitCosts:
        """Costs of one kind of trial."""
        batch = getattr(settings, self.family.batch) if self.family.batch else float("inf")
        with tempfile.TemporaryDirectory(prefix="cropray-") as root:
            first, *runs = self._runs(settings, batch, Path(root))
            few, more = runs[-3:-1]
            few_s, more_s, map_s, map_bytes = self._predictions(few.folder, more.folder)
            per_step = 1 / (more.steps - few.steps) if more.steps > few.steps else 0.0
            step_bytes = max(weigh([more.folder]) - weigh([few.folder]), 0) * per_step
            model_bytes = weigh([more.folder]) - more.steps * step_bytes
        pixel_step_s = (more_s - few_s) * per_step
        if self.family.steps and pixel_step_s <= 0:  # lost in the noise of the machine: then all of it is the steps'
            pixel_step_s = more_s / more.steps
        fit_s, _ = nnls(np.array([run.terms() for run in runs]), np.array([run.seconds for run in runs]))
        held, held_first = min(more.n, batch), min(first.n, batch)
        grown = more.peak_bytes - first.peak_bytes
        sample_bytes = grown / (held - held_first) if held > held_first else 0.0
        return FitCosts(
            **dict(zip(_TIMES, fit_s.tolist(), strict=True)),
            model_bytes=model_bytes,
            step_bytes=step_bytes,
            process_bytes=more.peak_bytes - held * sample_bytes,
            sample_bytes=sample_bytes,
            batch=batch,
            pixel_s=max(more_s - more.steps * pixel_step_s, 0.0),
            pixel_step_s=pixel_step_s,
            map_s=map_s,
            map_bytes=map_bytes,
        )

    def _runs(self, settings: FamilySettings, batch: float, root: Path) -> list[_Run]:
        """A first one, which pays for imports, then those that count; few and more steps without validation before the last."""
        # On a GPU a tile costs less in a full batch; on CPUs the same in a batch of any size.
        least = int(batch) if settings.need().gpus and batch < float("inf") else 1
        of_kind = self.sample.n_train[self.family.sample]
        most_n = max(int(min(MOST_BYTES / self._sample_bytes(), of_kind)), 2 * least)
        most_steps = self._most_steps(settings)
        n, steps = max(most_n // 4, 2 * least), min(MORE, most_steps)

        def run(n: int, steps: int, n_scored: int = 0) -> _Run:
            return self._run(settings, n, steps, n_scored, root)

        first = run(n // 2, FEW)
        while (more := run(n, steps)).seconds < ENOUGH_S and (n < most_n or steps < most_steps):
            n, steps = min(2 * n, most_n), min(2 * steps, most_steps)
        halves = [run(n // 2, FEW), run(n // 2, steps)]
        return [first, *halves, run(n, FEW), more, run(n, steps, _SCORED * n)]

    def _run(self, settings: FamilySettings, n: int, steps: int, n_scored: int, root: Path) -> _Run:
        found, folder = self.family, Path(tempfile.mkdtemp(dir=root))
        job = Fit(
            settings=settings,
            train=self._data(n),
            val=self._data(n_scored) if n_scored else None,
            classes=self.sample.classes,
            legend_hash=self.sample.legend.hash(),
            mean=self.mean,
            std=self.std,
            seed=self.sample.job.seed,
            folder=folder,
            steps=(steps,) if found.steps else (),
            n_steps=steps if found.most_steps else None,
            cube=self.sample.job.cube_spec,
        )
        started = time.perf_counter()
        found.fit(job)
        seconds = time.perf_counter() - started
        return _Run(n, steps, n_scored, 1 if found.most_steps else steps, seconds, folder, peak_memory())

    def _most_steps(self, settings: FamilySettings) -> int:
        field = self.family.steps or self.family.most_steps
        return int(getattr(settings, field)) if field else FEW

    def _sample_bytes(self) -> float:
        return data_bytes(self.family.sample, 1, 1, self.sample.job.dataset.tile_size, self.sample.job.cube_spec)

    def _data(self, n: int) -> FitData:
        """Samples drawn from the sampled zones, more than once where these have fewer."""
        samples = self.samples
        if isinstance(samples, TrainingTiles):
            picked = np.arange(n) % len(samples.x)
            tiles = TrainingTiles(samples.x[picked], samples.labels[picked])
            return FitData({_ZONE: tiles}, {_ZONE: int((tiles.labels != IGNORE).sum())})
        picked = np.sort(np.random.default_rng(n).integers(0, len(samples), n))
        return FitData({_ZONE: samples.take(pa.array(picked))}, {_ZONE: n})

    def _predictions(self, few: Path, more: Path) -> tuple[float, float, float, float]:
        """(seconds of a pixel with few steps, the same with more, seconds of a zone's map beside them, its bytes)."""
        folders = (more, few) if self.family.steps else (more,)  # other families' steps do not stay in the model
        models = [self.family.load(folder, "cpu") for folder in folders]
        if self.sample.table is not None:
            seconds = [_row_s(model, self.sample.table) for model in models]
            return seconds[-1], seconds[0], 0.0, 0.0
        mapped = [self._map(model) for model in models]
        return mapped[-1][0], mapped[0][0], mapped[0][1], mapped[0][2]

    def _map(self, model: CropModel) -> tuple[float, float, float]:
        """(seconds of a pixel, seconds of a zone's map beside them, its bytes); the first time may pay for imports."""
        zone, scratch = self.sample.zones[0], self.sample.scratch
        job = MapJob(self.name, self.sample.legend, self.sample.job.map, scratch, task_bytes())

        def mapped() -> tuple[float, float]:
            started = time.perf_counter()
            sampled = SampledModel(model, MOST_MAP_S)
            map_zone(sampled, zone, job)
            return sampled.predicted_s, time.perf_counter() - started - sampled.spent_s

        seconds = mapped()
        if sum(seconds) < _QUICK_S:
            seconds = min(seconds, mapped())
        paths = [f(self.name, zone.zone_id) for f in (scratch.map, scratch.map_preview, scratch.mapped_parcels)]
        return seconds[0] / (zone.grid.height * zone.grid.width), seconds[1], weigh(paths)


def _rows(sample: FitSample) -> pa.Table:
    if sample.table is not None:
        return sample.table
    return pa.concat_tables([read_pixels(sample.scratch, zone.zone_id, sample.job.cube_spec) for zone in sample.zones])


def _tiles(sample: FitSample) -> TrainingTiles:
    size, cube = sample.job.dataset.tile_size, sample.job.cube_spec
    tiles = [read_tiles(sample.scratch, zone.zone_id, size, cube) for zone in sample.zones]
    return TrainingTiles(np.concatenate([each.x for each in tiles]), np.concatenate([each.labels for each in tiles]))


def _row_s(model: CropModel, table: pa.Table) -> float:
    """Seconds of a row."""
    some = table.slice(0, int(MOST_BYTES // 100))
    x: Any = np.stack([some[name].to_numpy() for name in model.columns], axis=1)
    model.predict_samples(x)
    started = time.perf_counter()
    model.predict_samples(x)
    return (time.perf_counter() - started) / len(x)
