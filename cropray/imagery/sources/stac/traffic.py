"""What a STAC API and the files that it names are asked for: searches, windows and their bytes."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.grid import Grid
from cropray.core.sensors import known_band
from cropray.imagery.acquisition import SceneAcquisition, Traffic

# Files are tiled in blocks, which are read whole; sizes of Sentinel-2 bands as deflated COGs over cropland.
BLOCK_PX: Final = 1024  # Earth Search; Planetary Computer's are 512
BAND_PIXEL_BYTES: Final = 1.8
SCL_PIXEL_BYTES: Final = 0.1
HEADER_BYTES: Final = 32_768  # read when a file is opened
SCL_STEP: Final = 2  # 20 m pixels


def measured_traffic(work: SceneAcquisition, tell: Callable[[str], None]) -> Traffic:
    """Of an order whose items are found; one of them is read for real, which is told."""
    zones, started = work.order.zones, time.monotonic()
    work.source.read(work.found[zones[0].zone_id].scenes[0], zones[0].grid)
    item_s = time.monotonic() - started
    tell(f"one item read in {item_s:.1f} s")
    n_items = [len(work.found[zone.zone_id].scenes) for zone in zones]
    traffic = stac_traffic([zone.grid for zone in zones], n_items, work.order.cube)
    return replace(traffic, zone_s=item_s * sum(n_items) / len(n_items))


def stac_traffic(grids: Sequence[Grid], n_items: Sequence[int], cube: CubeSpec = STUDY_CUBE) -> Traffic:
    """Searches and windows of some zones, with the number of items of each; their time counts with the zones'."""
    n_bytes = sum(n * item_bytes(grid, cube) for grid, n in zip(grids, n_items, strict=True))
    requests = len(grids) + sum(n_items) * (cube.n_bands + 1) * 2  # a header and, merged, its blocks
    return Traffic(requests, n_bytes, 0.0)


def item_bytes(grid: Grid, cube: CubeSpec = STUDY_CUBE) -> float:
    """Bytes of one item's windows on a grid; blocks that it touches are read whole, wherever it lies in them."""
    resolutions = [
        (known_band(band_id) or band).resolution_m for band_id, band in zip(cube.band_ids, cube.bands, strict=True)
    ]
    steps = [max(1, round((resolution or grid.resolution_m) / grid.resolution_m)) for resolution in resolutions]
    bands = sum(_pixels(grid, step) for step in steps) * BAND_PIXEL_BYTES
    return bands + _pixels(grid, SCL_STEP) * SCL_PIXEL_BYTES + (cube.n_bands + 1) * HEADER_BYTES


def _pixels(grid: Grid, step: int) -> int:
    """Of the blocks that a grid touches in a file whose pixels are `step` of the grid's wide."""
    return _touched(math.ceil(grid.height / step)) * _touched(math.ceil(grid.width / step))


def _touched(length: int) -> int:
    """Pixels of the blocks that a stretch of pixels touches, on average over where it begins."""
    return length - 1 + BLOCK_PX
