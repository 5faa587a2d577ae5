"""Small things drawn from a seed: arrays of a zone, a zone on a UTM grid, a dataset on disk."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio

from cropray.core.grid import Grid
from cropray.core.keys import Key
from cropray.core.legend import IGNORE, legend_from_names
from cropray.datasets.manifest import BandSums, Manifest, ZoneEntry
from cropray.datasets.tiles import ZoneArrays
from cropray.imagery.composites import write_composite, write_n_obs
from cropray.io.zones import Zone
from tests.study import N_BANDS, N_MONTHS


def account(said="1", **parts):
    """What something was made from: a text; `parts` are names of a `Key` and what stands there."""
    return Key({"content": {"input": said}, "settings": {}, "libraries": {}, "code": {}, **parts})


def grid(size=64, x_min=600_000.0, y_max=5_400_000.0, epsg=32631):
    """A square grid of 10 m pixels."""
    return Grid(epsg, x_min, y_max, size, size)


def zone(zone_id="z-1", split="train", region="north", **kwargs):
    """A zone on `grid(**kwargs)`."""
    return Zone(zone_id, region, split, grid(**kwargs))


def zone_arrays(shape=(40, 56), n_classes=4, seed=0):
    """Composite, flags, labels and parcels; the reflectance of a pixel depends on its class."""
    rng = np.random.default_rng(seed)
    height, width = shape
    parcels = (np.arange(height)[:, None] // 10 * 10 + np.arange(width)[None, :] // 10).astype(np.int32)
    classes = rng.integers(0, n_classes, parcels.max() + 1).astype(np.uint8)
    labels = classes[parcels]
    labels[rng.random(shape) < 0.2] = IGNORE
    level = 500 + 400 * classes[parcels][None, None].astype(float)
    season = 1 + 0.5 * np.sin(np.arange(N_MONTHS) / 2)[:, None, None, None]
    noise = rng.normal(1, 0.05, (N_MONTHS, N_BANDS, height, width))
    composite = np.clip(level * season * noise, 1, 10_000).astype(np.uint16)
    clear = rng.random((N_MONTHS, height, width)) < 0.8
    return ZoneArrays(composite, clear, labels, parcels)


def write_artefacts(workspace, zone, arrays, parcel_ids=None):
    """What the stages `acquire` and `labels` leave behind for a zone."""
    ids = [f"{zone.zone_id}/{i}" for i in range(arrays.parcels.max() + 1)] if parcel_ids is None else parcel_ids
    write_composite(workspace.composite(zone.zone_id), arrays.composite, zone.grid)
    write_n_obs(workspace.n_obs(zone.zone_id), arrays.clear.astype(np.uint8), zone.grid)
    for path, values in (
        (workspace.labels(zone.zone_id), arrays.labels),
        (workspace.parcel_index(zone.zone_id), arrays.parcels),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        profile = {"count": 1, "dtype": values.dtype, "crs": f"EPSG:{zone.grid.epsg}"}
        height, width = values.shape
        place = {"height": height, "width": width, "transform": rasterio.Affine(*zone.grid.transform)}
        with rasterio.open(path, "w", driver="GTiff", **profile, **place) as dataset:
            dataset.write(values, 1)
    table = workspace.parcels(zone.zone_id)
    table.parent.mkdir(parents=True, exist_ok=True)
    areas = [0.3 * (1 + i % 9) ** 2 for i in range(len(ids))]
    pq.write_table(pa.table({"parcel_id": pa.array(ids, pa.string()), "area_ha": pa.array(areas, pa.float64())}), table)


def entry(zone_id, fold=0, counts=None, **changes):
    """A manifest's zone: training in a fold, or test where the fold is None."""
    values = {
        "zone_id": zone_id,
        "region": "north",
        "split": "test" if fold is None else "train",
        "fold": fold,
        "counts": {"wheat": 6, "maize": 4} if counts is None else counts,
        "n_trimmed": 0,
        "n_tiles": 1,
        "sums": BandSums((1,) * N_BANDS, (2.0,) * N_BANDS, (4.0,) * N_BANDS),
        "files": {f"pixels/zone_id={zone_id}/part-0.parquet": "0" * 64},
    }
    return ZoneEntry(**{**values, **changes})


def manifest(*zones, names=("wheat", "maize"), **changes):
    """A manifest of some entries."""
    legend = legend_from_names(names)
    values = {"name": "small", "source": "parcels", "classes": legend.classes, "legend_hash": legend.hash()}
    return Manifest(**{**values, "tile_size": 8, "n_folds": 2, "zones": zones, **changes})
