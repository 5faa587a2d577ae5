"""Unit costs of training and mapping: a few boosting rounds and epochs of the job's own models on the sampled zones."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray

from cropray.config import JobConfig
from cropray.datasets.build import band_sums, read_zone_arrays
from cropray.datasets.manifest import statistics
from cropray.datasets.storage import read_pixels, read_tiles
from cropray.datasets.tiles import Tiles
from cropray.legend import CropClass, Legend
from cropray.maps.models import load_model
from cropray.maps.zone import MapJob, map_zone
from cropray.planning.costs import CnnCosts, TreeCosts
from cropray.planning.estimate import kernel_sizes
from cropray.search.placement import Placement
from cropray.stages.measure_maps import SampledModel
from cropray.stages.measure_zones import peak_memory, weigh
from cropray.stages.zone_jobs import task_bytes
from cropray.storage import whole_folder
from cropray.training.cnn.fit import CnnData, train_cnn
from cropray.training.deep.tiles import ChannelStats
from cropray.training.pixel_blocks import PixelBlock, TreeData, features
from cropray.training.xgboost.fit import train_xgboost
from cropray.training.xgboost.memory import resident_bytes, row_bytes
from cropray.training.xgboost.tree_file import CARD_FILE, MODEL_FILE, load_booster, predict_proba
from cropray.workspace import Workspace
from cropray.zones import Zone

MOST_ROWS: Final = 40_000  # training rows of a measured fit; the costs of more are extended in a line
FEW_ROUNDS: Final = 2
MORE_ROUNDS: Final = 12
MOST_TILES: Final = 8  # of a measured step on CPUs, where a tile costs the same in a batch of any size
MOST_MAP_S: Final = 10.0  # of predicting; a full-size CNN takes a zone of 10 km half a minute on a CPU
MOST_COPIES: Final = 8  # fits measured side by side
_QUICK_S: Final = 3.0  # what takes longer is not done a second time


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
    train_rows: float
    """Training rows of a real fold."""
    table: pa.Table | None = None
    """Labelled points instead of zones."""


@dataclass(frozen=True, slots=True)
class FitCosts:
    """What one copy measured."""

    trees: TreeCosts | None
    cnn: Mapping[int, CnnCosts]


def measure_fits(sample: FitSample, placements: Mapping[str, Placement], n_cpus: float) -> FitCosts:
    """Fit beside each other as many copies as a search would, and take the mean."""
    trees = [r.trees for r in _copies(sample, "xgboost", placements, n_cpus) if r.trees is not None]
    cnn = [r.cnn for r in _copies(sample, "cnn", placements, n_cpus)]
    kernels = cnn[0] if cnn else {}
    return FitCosts(_mean(trees) if trees else None, {size: _mean([copy[size] for copy in cnn]) for size in kernels})


def _copies(sample: FitSample, model: str, placements: Mapping[str, Placement], n_cpus: float) -> list[FitCosts]:
    if model not in placements:
        return []
    placement = placements[model]
    fits_here = int(n_cpus / placement.cpus_per_unit)
    n = max(1, min(placement.max_concurrent, fits_here, MOST_COPIES))
    # What one worker takes: a whole unit's may be more than any node has.
    task = _measure.options(num_cpus=placement.cpus_per_worker, num_gpus=placement.gpus_per_worker)
    costs: list[FitCosts] = ray.get([task.remote(sample, model, number) for number in range(n)])
    return costs


def _mean(costs: Sequence[Any]) -> Any:
    fields = costs[0].__dataclass_fields__
    return replace(costs[0], **{name: fmean(getattr(cost, name) for cost in costs) for name in fields})


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]  # ray is untyped
def _measure(sample: FitSample, model: str, number: int) -> FitCosts:
    own = Workspace(sample.scratch.root / f"copy-{number}")  # copies must not write the same files
    if model == "xgboost":
        return FitCosts(measure_trees(sample, own), {})
    return FitCosts(None, {size: measure_cnn(sample, own, size) for size in kernel_sizes(sample.job)})


def measure_trees(sample: FitSample, own: Workspace) -> TreeCosts:
    """Fit trees on as many rows as a real fold has, or on two smaller numbers of rows."""
    with whole_folder(own.model("xgboost"), last=CARD_FILE) as folder:
        costs = _measure_trees(sample, folder)
    map_s, map_bytes = (0.0, 0.0) if sample.table is not None else _map(sample, own, "xgboost")
    n_pixels = 0 if sample.table is not None else sample.zones[0].grid.height * sample.zones[0].grid.width
    predict_s = n_pixels * costs.predict_row_s * MORE_ROUNDS
    return replace(costs, map_s=max(map_s - predict_s, 0.0), map_bytes=map_bytes)


def _measure_trees(sample: FitSample, folder: Path) -> TreeCosts:
    job = sample.job
    table = sample.table if sample.table is not None else _rows(sample)
    n = int(min(max(sample.train_rows, 100), MOST_ROWS))
    settings: Any = job.settings_of("xgboost").model_copy(update={"num_workers": 0, "engine": "ray_train"})

    def seconds(n_rows: int, rounds: int) -> float:
        train = _tree_data(sample, table, n_rows)
        val = _tree_data(sample, table, max(n_rows // (job.dataset.n_folds - 1), 2))
        started = time.perf_counter()
        train_xgboost(settings, (rounds,), train, val, job.seed, folder)
        return time.perf_counter() - started

    seconds(n // 10, 1)  # starts threads and fills caches
    few_s, more_s = seconds(n, FEW_ROUNDS), seconds(n, MORE_ROUNDS)
    model_bytes = (folder / MODEL_FILE).stat().st_size
    round_s = max(more_s - few_s, 0.0) / (MORE_ROUNDS - FEW_ROUNDS)
    setup_s = max(few_s - FEW_ROUNDS * round_s, 0.0)
    fixed_s, round_row_s = 0.0, round_s / n
    if n < sample.train_rows:
        half_s = max(seconds(n // 2, MORE_ROUNDS) - setup_s / 2, 0.0) / MORE_ROUNDS
        round_row_s = max(round_s - half_s, 0.0) / (n - n // 2)
        fixed_s = max(round_s - n * round_row_s, 0.0)
        seconds(n, MORE_ROUNDS)  # the model that is mapped below
    predict_row_s = _predict_row_s(folder, table, job.cube_spec.columns)
    return TreeCosts(
        setup_row_s=setup_s / n,
        round_s=fixed_s,
        round_row_s=round_row_s,
        predict_row_s=predict_row_s,
        round_bytes=model_bytes / MORE_ROUNDS,
        map_s=0.0,  # comes with the zone that is mapped
        map_bytes=0.0,
        worker_bytes=peak_memory(),
        row_bytes=row_bytes(settings, len(sample.classes), job.cube_spec.n_features),
        resident_row_bytes=resident_bytes(len(sample.classes)),
    )


def _rows(sample: FitSample) -> pa.Table:
    return pa.concat_tables([read_pixels(sample.scratch, zone.zone_id, sample.job.cube_spec) for zone in sample.zones])


def _tree_data(sample: FitSample, table: pa.Table, n_rows: int) -> TreeData:
    """Rows drawn from the sample, more than once where it has fewer."""
    picked = np.random.default_rng(n_rows).integers(0, len(table), max(n_rows, 2))
    block = PixelBlock(table.take(pa.array(np.sort(picked))), len(picked))
    return TreeData({"sample": block}, sample.classes, sample.legend.hash(), sample.job.cube_spec)


def _predict_row_s(folder: Path, table: pa.Table, columns: Sequence[str]) -> float:
    booster, x = load_booster(folder), features(table.slice(0, MOST_ROWS), columns=columns)
    predict_proba(booster, x)
    started = time.perf_counter()
    predict_proba(booster, x)
    return (time.perf_counter() - started) / (len(x) * int(booster.num_boosted_rounds()))


def measure_cnn(sample: FitSample, own: Workspace, kernel_size: Any) -> CnnCosts:
    """Train the CNN for a few epochs of two steps, with and without validation."""
    with whole_folder(own.model("cnn"), last=CARD_FILE) as folder:
        costs = _measure_cnn(sample, folder, kernel_size)
    map_s, map_bytes = _map(sample, own, "cnn")
    return replace(costs, map_s=map_s, map_bytes=map_bytes)


def _measure_cnn(sample: FitSample, folder: Path, kernel_size: Any) -> CnnCosts:
    job = sample.job
    cnn: Any = job.settings_of("cnn")
    step = cnn.batch_size if cnn.use_gpu else min(cnn.batch_size, MOST_TILES)
    tiles, data = _cnn_data(sample, 2 * step), None
    few = {"num_workers": 0, "epochs": 3, "patience": 9, "batch_size": step, "kernel_size": kernel_size}
    settings = cnn.model_copy(update=few)
    before = peak_memory()

    def epochs(data: CnnData) -> tuple[float, float]:
        """(seconds of one epoch after the first, seconds outside the epochs)."""
        ends: list[float] = []
        started = time.perf_counter()
        train_cnn(settings, data, job.seed, folder, lambda _: ends.append(time.perf_counter()))
        epoch_s = (ends[-1] - ends[0]) / (len(ends) - 1)
        return epoch_s, max(time.perf_counter() - started - len(ends) * epoch_s, 0.0)

    train_s, start_s = epochs(tiles)
    data = replace(tiles, val={"sample": _some(tiles.train["sample"], step)})
    both_s, _ = epochs(data)
    return CnnCosts(
        start_s=start_s,
        train_tile_s=train_s / (2 * step),
        eval_tile_s=max(both_s - train_s, 0.0) / step,
        model_bytes=weigh([folder]),
        map_s=0.0,  # comes with the zone that is mapped
        map_bytes=0.0,
        peak_bytes=before + (peak_memory() - before) * cnn.batch_size / step,
    )


def _cnn_data(sample: FitSample, n_tiles: int) -> CnnData:
    """Tiles of the sampled zones, repeated where there are too few."""
    size, cube = sample.job.dataset.tile_size, sample.job.cube_spec
    blocks = [read_tiles(sample.scratch, zone.zone_id, size, cube) for zone in sample.zones]
    names = Tiles.__dataclass_fields__
    together = Tiles(**{name: np.concatenate([getattr(block, name) for block in blocks]) for name in names})
    first = sample.zones[0]
    mean, deviation = statistics(band_sums(read_zone_arrays(first, sample.scratch, cube).composite))
    lookup = np.full(256, 255, np.uint8)
    for index, crop in enumerate(sample.classes):
        lookup[crop.id] = index
    return CnnData(
        train={"sample": _some(together, n_tiles)},
        val=None,
        stats=ChannelStats(tuple(mean.tolist()), tuple(deviation.tolist())),
        lookup=lookup,
        classes=sample.classes,
        legend_hash=sample.legend.hash(),
        cube=cube,
    )


def _some(tiles: Any, n: int) -> Tiles:
    picked = np.arange(n) % len(tiles.row)
    return Tiles(**{name: getattr(tiles, name)[picked] for name in Tiles.__dataclass_fields__})


def _map(sample: FitSample, own: Workspace, model: str) -> tuple[float, float]:
    """(seconds, bytes) of mapping one zone; the first time may pay for imports."""
    zone, scratch = sample.zones[0], sample.scratch
    job = MapJob(f"{model}-{own.root.name}", sample.legend, sample.job.map, scratch, task_bytes())

    def seconds() -> float:
        started = time.perf_counter()
        sampled = SampledModel(load_model(own.model(model)), MOST_MAP_S)
        map_zone(sampled, zone, job)
        return time.perf_counter() - started + sampled.left_out_s

    taken = seconds()
    if taken < _QUICK_S:
        taken = seconds()
    name = job.model_name
    paths = [f(name, zone.zone_id) for f in (scratch.map, scratch.map_preview, scratch.mapped_parcels)]
    return taken, weigh(paths)
