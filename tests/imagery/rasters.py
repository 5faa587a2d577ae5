"""Tiny scene files drawn from a seed."""

import datetime as dt
import zlib

import numpy as np
import rasterio

from cropray.core.grid import Grid

GRID = Grid(32631, 600_000.0, 5_400_000.0, 12, 17)
BANDS = ("B2", "B3", "B4", "B8", "SCL")


def draw_pixels(shape=GRID.shape, seed=0, scl=None):
    """[5, H, W] uint16: four bands of 1–10000, and scene classes 0–11 (or one class everywhere)."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 10_001, (5, *shape)).astype(np.uint16)
    pixels[4] = rng.integers(0, 12, shape) if scl is None else scl
    return pixels


def write_scene(folder, date, pixels=None, grid=GRID, bands=BANDS, *, tags=(1e-4, 0.0), **profile):
    """Write `S2_here_<date>.tif`; `date` is YYYY-MM-DD or with a time, `pixels` in the order of `bands`.

    `tags` are scale and offset of the bands, of all or of each.
    """
    pixels = draw_pixels(grid.shape, seed=zlib.crc32(date.encode())) if pixels is None else pixels
    stamp = dt.datetime.fromisoformat(date).strftime("%Y%m%dT%H%M%S")
    path = folder / profile.pop("name", f"S2_here_{stamp}.tif")
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff", "dtype": pixels.dtype, "count": len(pixels), "height": grid.height, "width": grid.width,
        "crs": f"EPSG:{grid.epsg}", "transform": rasterio.Affine(*grid.transform), "nodata": 0, "compress": "deflate",
    } | profile  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(pixels)
        dataset.descriptions = bands
        each = np.broadcast_to(tags, (len(pixels), 2))
        dataset.scales, dataset.offsets = each[:, 0], each[:, 1]
    return path
