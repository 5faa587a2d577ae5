"""Small things drawn from a seed: arrays of a zone, a zone on a UTM grid, a dataset on disk."""

import numpy as np

from cropray.bands import N_BANDS, N_MONTHS
from cropray.datasets.tiles import ZoneArrays
from cropray.grid import Grid
from cropray.legend import IGNORE
from cropray.zones import Zone


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
