"""`leakage`: how much better a model looks when it is scored beside what it was trained on.

Labelled samples of the training zones are dealt to folds in three ways: one by one at random, in small blocks at random, and
by whole zones, as the dataset's folds have them. The winner's recipe is fitted and scored under each, on the same samples:
what the first two promise beyond the last one is no skill in new places. Nothing is chosen here, and test zones take no part.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cropray.config import JobConfig
from cropray.core.errors import ConfigError, SchemaError
from cropray.core.intervals import bootstrap_difference, why_no_intervals
from cropray.core.legend import IGNORE
from cropray.core.metrics import Counts, score
from cropray.core.progress import Progress
from cropray.datasets.build import band_sums
from cropray.datasets.division import divide_points
from cropray.datasets.loading import shown_until
from cropray.datasets.manifest import Manifest, load_manifest, statistics
from cropray.datasets.other_split import points_with_test
from cropray.datasets.points import read_points
from cropray.datasets.storage import read_pixels, read_tiles
from cropray.datasets.tiles import TrainingTiles
from cropray.evaluation.models import load_model
from cropray.evaluation.out_of_fold import draw_rows
from cropray.evaluation.pooled import BETTER
from cropray.io.job_file import load_settings
from cropray.io.storage import Location, write_json
from cropray.stages.out_of_fold import rows_to_score
from cropray.stages.pipeline import run_stages
from cropray.stages.results import load_search
from cropray.training.crop_model import CropModel
from cropray.training.family import Fit, FitData, family
from cropray.training.pixel_blocks import LABEL, class_indices, samples

CELL_M: Final = 1000.0
_M_PER_DEG: Final = 111_320.0  # of latitude
_TILES: Final = 64  # of a zone, at most: they are in memory together
_TILES_AT_ONCE: Final = 8
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Drawn:
    """N labelled samples of training zones, rows or tiles."""

    rows: pa.Table | TrainingTiles
    labels: npt.NDArray[np.uint8]
    """[N] class index of each row, or [N, S, S] of the pixels of each tile, IGNORE where there is none."""
    zone_ids: Sequence[str]
    zones: Numbers
    """[N] position of the zone of each."""
    blocks: Numbers
    """[N] number of the block of each."""

    def take(self, which: Numbers) -> pa.Table | TrainingTiles:
        """Some of the samples."""
        if isinstance(self.rows, TrainingTiles):
            return TrainingTiles(self.rows.x[which], self.rows.labels[which])
        return self.rows.take(pa.array(which))


def run_leakage(config: str | Location, overrides: Sequence[str], cell_m: float = CELL_M) -> None:
    """Print the scores of each winner's recipe by how samples are dealt, and write them as `leakage/<family>.json`.

    Args:
        config: job file.
        overrides: of its settings.
        cell_m: side of the cells that points are dealt by, m. Pixels are dealt by the dataset's tiles.

    Raises:
        CroprayError: the config or an input cannot be used, a search failed, or there are fewer cells than folds.
    """
    job, progress = load_settings(JobConfig, config, overrides), Progress()
    run_stages(("dataset", "search") if job.dataset_of is None else ("search",), config, overrides)
    manifest, of_kind = load_manifest(job.artefacts.manifest), dict[str, Drawn]()
    reads_rows = any(family(model).sample == "pixel" for model in job.search.in_turn()[0])
    n_most = rows_to_score(job, progress) if reads_rows else 0
    for model in job.search.models:
        found = family(model)
        if found.combine is not None:
            progress.note(f"{model} is left out, as it is built from the others: see theirs")
            continue
        progress.stage("leakage", f"{model}: {manifest.n_folds} folds, dealt in each way")
        if found.sample not in of_kind:
            drawn = draw_tiles(job, manifest) if found.sample == "tile" else draw(job, manifest, cell_m, n_most)
            of_kind[found.sample] = _as_seen(drawn, job, manifest)
        drawn, recipe, cubes = of_kind[found.sample], recipe_of(job, manifest, model), {}
        for name, folds in ways(manifest, drawn, cell_m, job.seed).items():
            cubes[name] = out_of_fold_counts(model, recipe, drawn, folds)
            progress.note(f"{name}: fitted and scored")
        record = tax(cubes, job.seed)
        of = {"recipe": job.recipe, "until_step": job.until_step, "cell_m": cell_m, "seed": job.seed}
        of |= {} if found.sample == "tile" else {"oof_rows": n_most}
        write_json(job.artefacts.leakage(model), {**of, **record})
        print("\n" + "\n".join(_lines(model, record, len(drawn.zone_ids))), flush=True)


def recipe_of(job: JobConfig, manifest: Manifest, model: str) -> Fit:
    """The fit that the winner's refit was, without samples: as many steps as that took, so that no fold stops a fit."""
    found, settings, summary = family(model), job.settings_of(model), load_search(job.artefacts, model)
    values = dict(summary["best"])
    steps = () if found.steps is None else (int(values.pop(found.steps)),)
    cpus = job.cluster.num_cpus or os.cpu_count() or 1
    return Fit(
        settings=settings.with_values(values).measurable(cpus, has_gpus=True), train=FitData({}, {}), val=None,
        classes=manifest.classes, legend_hash=manifest.legend_hash, mean=(), std=(), seed=job.seed, folder=Path(),
        steps=steps, n_steps=None if found.most_steps is None else summary["refit_steps"], cube=manifest.cube,
        is_weighted=manifest.is_weighted,
    )  # fmt: skip


def draw(job: JobConfig, manifest: Manifest, cell_m: float, n_most: int) -> Drawn:
    """At most `n_most` rows of each class and zone, all of a small table.

    Raises:
        SchemaError: the job's points are not those of the dataset.
    """
    zone_ids, lookup, tables = _trained(manifest), manifest.lookup(), []
    points = None if job.points is None else _with_places(job, manifest)
    for zone_id in zone_ids:
        is_here = None if points is None else pc.equal(points["zone_id"], zone_id)
        rows = read_pixels(job.artefacts, zone_id, manifest.cube) if points is None else points.filter(is_here)
        tables.append(rows.take(pa.array(draw_rows(class_indices(rows, lookup), zone_id, n_most, job.seed))))
    zones = np.repeat(np.arange(len(tables)), [table.num_rows for table in tables])
    rows = pa.concat_tables(tables).combine_chunks()
    if points is not None:
        blocks = cells(rows["lon"].to_numpy(), rows["lat"].to_numpy(), cell_m)
    else:
        assert manifest.tile_size is not None
        blocks = _numbered(zones, *(rows[axis].to_numpy() // manifest.tile_size for axis in ("row", "col")))
    return Drawn(rows, class_indices(rows, lookup), zone_ids, zones, blocks)


def _as_seen(drawn: Drawn, job: JobConfig, manifest: Manifest) -> Drawn:
    """With the steps of time missing that the job's fits do not see."""
    if job.until_step is None:
        return drawn
    return replace(drawn, rows=shown_until(drawn.rows, manifest.cube, job.until_step)[0])


def _with_places(job: JobConfig, manifest: Manifest) -> pa.Table:
    """The points of the dataset with their coordinates, which its tables do not hold; labels as class ids."""
    assert job.points is not None
    whole = points_with_test(read_points(job.points.path, manifest.cube, job.points.values), job.test_zones)
    table = divide_points(whole, job.dataset, by_region=job.search.leave_region_out).table
    n_rows = {row["values"]: row["counts"] for row in pc.value_counts(table["zone_id"]).to_pylist()}
    if n_rows != manifest.labelled(manifest.zone_ids):
        raise SchemaError(
            f"'{job.points.path}' gives other points than the dataset '{job.artefacts.manifest.parent}' has: give "
            f"'points' and 'dataset' as the job has them whose dataset it is"
        )
    ids = {crop.name: crop.id for crop in manifest.classes}
    labels = pa.array([ids[name] for name in table["label"].to_pylist()], pa.uint8())
    return table.set_column(table.column_names.index(LABEL), LABEL, labels)


def draw_tiles(job: JobConfig, manifest: Manifest) -> Drawn:
    """Some tiles of each zone, which are its blocks."""
    assert manifest.tile_size is not None
    zone_ids, parts = _trained(manifest), []
    for zone_id in zone_ids:
        tiles = read_tiles(job.artefacts, zone_id, manifest.tile_size, manifest.cube)
        kept = draw_rows(np.zeros(len(tiles.x), np.uint8), zone_id, _TILES, job.seed)
        parts.append(TrainingTiles(tiles.x[kept], tiles.labels[kept]))
    whole = TrainingTiles(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "labels")))
    zones = np.repeat(np.arange(len(parts)), [len(part.x) for part in parts])
    return Drawn(whole, manifest.lookup()[whole.labels], zone_ids, zones, np.arange(len(zones)))


def _trained(manifest: Manifest) -> list[str]:
    return [zone.zone_id for zone in manifest.of_split("train") if zone.n_labelled]


def cells(lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64], cell_m: float) -> Numbers:
    """[N] number of the square cell, `cell_m` metres wide, of each point; `lon` and `lat` [N] in degrees."""
    row = np.floor(lat * _M_PER_DEG / cell_m)
    of_row = np.cos(np.radians((row + 0.5) * cell_m / _M_PER_DEG))
    return _numbered(row, np.floor(lon * _M_PER_DEG * of_row / cell_m))


def _numbered(*keys: npt.NDArray[Any]) -> Numbers:
    """[N] a number for each set of keys, which are [N] each."""
    return np.unique(np.stack(keys, axis=1), axis=0, return_inverse=True)[1].ravel().astype(np.int64)


def ways(manifest: Manifest, drawn: Drawn, cell_m: float, seed: int) -> dict[str, Numbers]:
    """How samples are dealt → [N] fold of each; the honest way, by whole zones, is the last.

    Raises:
        ConfigError: there are fewer blocks than folds.
    """
    n_folds, fold_of = manifest.n_folds, {zone.zone_id: zone.fold for zone in manifest.zones}
    one, block = ("points", f"cells of {cell_m:g} m") if manifest.source == "points" else ("pixels", "tiles")
    if (n_blocks := len(np.unique(drawn.blocks))) < n_folds:
        raise ConfigError(f"{n_folds} folds need as many {block}, the samples lie in {n_blocks}: give a smaller --cell")
    single = {} if drawn.labels.ndim > 1 else {f"random {one}": deal(np.arange(len(drawn.zones)), n_folds, seed)}
    of_zone = np.array([fold_of[zone_id] for zone_id in drawn.zone_ids])
    return {**single, f"random {block}": deal(drawn.blocks, n_folds, seed), "zones": of_zone[drawn.zones]}


def deal(groups: Numbers, n_folds: int, seed: int) -> Numbers:
    """[N] fold of each sample: whole groups are dealt at random, as many to each fold as to another, or one more."""
    numbers, group = np.unique(groups, return_inverse=True)
    folds: Numbers = np.random.default_rng(seed).permutation(len(numbers))[group] % n_folds
    return folds


def out_of_fold_counts(model: str, recipe: Fit, drawn: Drawn, folds: Numbers) -> Counts:
    """[zone, true, predicted] labelled pixels, each by a fit that did not see its fold; the likeliest class decides.

    Args:
        model: the family.
        recipe: its fit, see `recipe_of`.
        drawn: N samples.
        folds: [N] fold of each.
    """
    cube = np.zeros((len(drawn.zone_ids), len(recipe.classes), len(recipe.classes)), np.int64)
    for fold in np.unique(folds):
        test = np.flatnonzero(folds == fold)
        with tempfile.TemporaryDirectory(prefix="cropray-leakage-") as folder:
            family(model).fit(_on(recipe, drawn, np.flatnonzero(folds != fold), Path(folder)))
            predicted = _predicted(load_model(Path(folder)), drawn.take(test))
        is_scored = drawn.labels[test] != IGNORE
        zones = np.repeat(drawn.zones[test], is_scored.reshape(len(test), -1).sum(1))
        np.add.at(cube, (zones, drawn.labels[test][is_scored], predicted[is_scored]), 1)
    return cube


def _on(recipe: Fit, drawn: Drawn, train: Numbers, folder: Path) -> Fit:
    """A recipe on some samples, whose statistics are theirs alone."""
    rows, cube = drawn.take(train), recipe.cube
    if isinstance(rows, TrainingTiles):
        series = rows.x.transpose(1, 2, 0, 3, 4).reshape(*cube.shape, -1, rows.x.shape[-1])
    else:
        by_band = samples(rows, cube.band_columns).reshape(-1, cube.n_bands, cube.n_steps)
        series = by_band.transpose(2, 1, 0)[..., None]
    mean, deviation = statistics(band_sums(series))  # of [T, C, …, …]
    data = FitData({"drawn": rows}, {"drawn": int((drawn.labels[train] != IGNORE).sum())})
    return replace(recipe, train=data, mean=tuple(mean.tolist()), std=tuple(deviation.tolist()), folder=folder)


def _predicted(model: CropModel, rows: pa.Table | TrainingTiles) -> Numbers:
    """Class index of each row, or of each pixel of each tile."""
    if not isinstance(rows, TrainingTiles):
        of_rows: Numbers = model.predict_samples(samples(rows, model.cube.columns)).argmax(1)
        return of_rows
    starts = range(0, len(rows.x), _TILES_AT_ONCE)
    return np.concatenate([model.predict_tiles(rows.x[start : start + _TILES_AT_ONCE]).argmax(1) for start in starts])


def tax(cubes: Mapping[str, Counts], seed: int) -> dict[str, Any]:
    """Scores by each way of dealing, and what each promises beyond the last one, as JSON.

    Args:
        cubes: way → [zone, true, predicted], all of the same labels.
        seed: of the intervals.
    """
    *_, honest = cubes.values()
    found, expected = {}, score(honest.sum(0)).as_metrics("val")
    for name, cube in cubes.items():
        values, beyond = score(cube.sum(0)).as_metrics("val"), bootstrap_difference(cube, honest, seed)
        found[name] = values | {
            f"tax_{key}": asdict(beyond[f"test_{key}"])
            if beyond
            else {"value": values[f"val_{key}"] - expected[f"val_{key}"]}
            for key in BETTER
        }
    return {"pixels": int(honest.sum()), "ways": found, "no_intervals": why_no_intervals(honest)}


def _lines(model: str, record: Mapping[str, Any], n_zones: int) -> Iterator[str]:
    yield f"{model}: {record['pixels']:,} labelled samples of {n_zones} training zones, dealt to folds as"
    width, honest = max(map(len, record["ways"])), [*record["ways"]][-1]
    for name, found in record["ways"].items():
        parts = [f"  {name:<{width}}"]
        for key in BETTER:
            more = found[f"tax_{key}"]
            beyond = f" [{more['low']:+.3f}, {more['high']:+.3f}]" if "low" in more else ""
            taxed = "" if name == honest else f", tax {more['value']:+.4f}{beyond}"
            parts.append(f"{key} {found[f'val_{key}']:.4f}{taxed}")
        yield "  ".join(parts)
    why = f"no intervals: {record['no_intervals']}" if record["no_intervals"] else "[95 %, paired, over zones]"
    yield f"The tax is what a split promises beyond new zones, {why}."
