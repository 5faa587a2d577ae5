"""Small land cover rasters."""

import numpy as np
import rasterio
from affine import Affine

CLASSES = np.array([10, 20, 30, 40, 50, 60, 80], np.uint8)


def write_map(path, classes, west, north, step_deg, *, epsg=4326, nodata=0, overviews=()):
    """Write classes [H, W]; overviews keep the first pixel of each block (nearest neighbour)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = classes.shape
    place = {"crs": f"EPSG:{epsg}", "transform": Affine(step_deg, 0, west, 0, -step_deg, north), "nodata": nodata}
    shape = {"height": height, "width": width, "count": 1, "dtype": classes.dtype.name, "tiled": True}
    with rasterio.open(
        path, "w", driver="GTiff", blockxsize=64, blockysize=64, compress="deflate", **shape, **place
    ) as file:
        file.write(classes, 1)
        if overviews:
            file.build_overviews(list(overviews), rasterio.enums.Resampling.nearest)
    return path


def draw_classes(shape, seed=0, *, unknown_share=0.0):
    """Random classes in patches of 5 × 5 pixels."""
    rng = np.random.default_rng(seed)
    patches = rng.choice(CLASSES, (shape[0] // 5 + 1, shape[1] // 5 + 1)).repeat(5, 0).repeat(5, 1)
    classes = patches[: shape[0], : shape[1]].copy()
    classes[rng.random(shape) < unknown_share] = 0
    return classes
