"""A dataset of drawn numbers on disk, of any size, without the stages before it; and a unit that is fitted on it."""

from pathlib import Path

import pyarrow.parquet as pq

from cropray.cluster.placement import live_nodes, need_of, place_units
from cropray.config import JobConfig
from cropray.core.legend import IGNORE, legend_from_names
from cropray.datasets.build import band_sums
from cropray.datasets.loading import load_pixels, load_tiles
from cropray.datasets.manifest import Manifest, ZoneEntry, save_manifest
from cropray.datasets.pixels import pixel_table
from cropray.datasets.storage import write_tiles
from cropray.datasets.tiles import cut_tiles
from cropray.io.workspace import Workspace
from cropray.search.fit import SearchData, fit_unit
from cropray.search.run import UnitJob, run_units
from cropray.search.sampling import trials
from cropray.search.space import Unit
from cropray.training.family import family
from tests.synthetic import zone, zone_arrays

N_CLASSES, TILE_SIZE, N_DRAWN = 4, 32, 4


def drawn_job(root: Path, **changes) -> JobConfig:
    """A job whose dataset stands already."""
    small = {
        "search": {
            "cnn": {"learning_rate": [0.01], "kernel_size": [3]},
            "xgboost": {"n_estimators": [2], "learning_rate": [0.3]},
            "max_concurrent": 1,
        },
        "cnn": {"temporal_channels": 4, "unet_channels": [4, 4], "batch_size": 32, "epochs": 1},
        "xgboost": {"max_depth": 3},
        "dataset": {"tile_size": TILE_SIZE},
    }
    raw = {"imagery": {"folder": str(root)}, "parcels": {"path": str(root)}}
    return JobConfig.model_validate({"name": "drawn", "workspace": str(root), **raw, **small, **changes})


def write_dataset(workspace: Workspace, n_zones: int, size: int, regions: tuple[str, ...] = ("north",)) -> Manifest:
    """Training zones of size² pixels in two folds, in turn; a few are drawn and repeated under other names.

    The regions take turns as well, two zones at a time.
    """
    drawn = [zone_arrays((size, size), N_CLASSES, seed) for seed in range(min(N_DRAWN, n_zones))]
    legend = legend_from_names([f"crop {i}" for i in range(N_CLASSES)])
    entries = []
    for number in range(n_zones):
        region = regions[number // 2 % len(regions)]
        place, arrays = zone(f"z-{number:03d}", region=region, size=size), drawn[number % N_DRAWN]
        table, tiles = pixel_table(arrays, place.zone_id, place.region), cut_tiles(arrays, TILE_SIZE)
        for folder in (workspace.pixels(place.zone_id), workspace.tiles(place.zone_id)):
            folder.mkdir(parents=True)
        pq.write_table(table, workspace.pixels(place.zone_id) / "part-0.parquet")
        write_tiles(tiles, place, workspace.tiles(place.zone_id))
        labels = arrays.labels[arrays.labels != IGNORE]
        counts = {crop.name: int((labels == crop.id).sum()) for crop in legend.classes}
        n_tiles, sums = len(tiles.row), band_sums(arrays.composite)
        entries.append(ZoneEntry(place.zone_id, place.region, "train", number % 2, counts, 0, n_tiles, sums, {}))
    manifest = Manifest(
        "drawn", "parcels", legend.classes, legend.hash(), TILE_SIZE, 2, tuple(entries), region_conflict=""
    )
    save_manifest(manifest, workspace.manifest)
    return manifest


def fit_on_ray(job: JobConfig, manifest: Manifest, model: str) -> UnitJob:
    """Fit the first unit of a model in a trial of the Ray that is connected, on data in its object store."""
    found, settings = family(model), job.settings_of(model)
    placement = place_units(live_nodes(), need_of(model, settings), 1)
    blocks = (load_tiles if found.sample == "tile" else load_pixels)(job.artefacts, manifest.zone_ids)
    data = SearchData(found, manifest, settings, blocks, job.seed, placement.memory_bytes)

    def fit(unit, folder, progress, on_step):
        return fit_unit(unit, folder, data, progress)

    root = job.artefacts.root / "search"
    unit = UnitJob(first_unit(job, model), root / model, root / f"{model}-progress")
    run_units([unit], fit, placement, root / ".tune", lambda _: None, max_failures=0)
    return unit


def first_unit(job: JobConfig, model: str) -> Unit:
    """The first unit of a search."""
    return Unit(model, trials(family(model), job.settings_of(model), job.search, job.seed)[0], 0)
