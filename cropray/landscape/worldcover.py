"""A small raster in the manner of ESA WorldCover: where in the drawn France there is cropland."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.io.systems import between
from cropray.io.zones import Zone
from cropray.landscape.sky import smooth_noise

# Classes of ESA WorldCover v200 that are drawn.
TREES: Final = 10
GRASSLAND: Final = 30
CROPLAND: Final = 40
BUILT_UP: Final = 50

WEST_DEG: Final = -5.0
NORTH_DEG: Final = 51.2
STEP_DEG: Final = 0.02
SHAPE: Final = (455, 680)
"""Rows and columns: down to 42.1° N and across to 8.6° E."""

_REACH_DEG: Final = 0.35  # cropland thins out over this distance from a zone


def draw_worldcover(zones: Sequence[Zone], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Land cover of France on a longitude–latitude grid, [rows, cols] uint8, cropland around the zones."""
    lat = NORTH_DEG - (np.arange(SHAPE[0]) + 0.5) * STEP_DEG
    lon = WEST_DEG + (np.arange(SHAPE[1]) + 0.5) * STEP_DEG
    nearness = np.zeros(SHAPE)
    for zone in zones:
        middle = zone.grid.centre(zone.grid.height // 2, zone.grid.width // 2)
        zone_lon, zone_lat = between(zone.grid.epsg, 4326).transform(*middle)
        distance2 = (0.7 * (lon[None, :] - zone_lon)) ** 2 + (lat[:, None] - zone_lat) ** 2
        nearness = np.maximum(nearness, np.exp(-distance2 / (2 * _REACH_DEG**2)))
    relief, detail = smooth_noise(SHAPE, 14.0, rng), smooth_noise(SHAPE, 2.0, rng)
    cover = np.where(relief + 0.5 * detail > 0.4, TREES, GRASSLAND)
    cover[3.2 * nearness + 0.5 * relief + 0.4 * detail > 1.1] = CROPLAND
    cover[detail > 2.6] = BUILT_UP
    return cover.astype(np.uint8)
