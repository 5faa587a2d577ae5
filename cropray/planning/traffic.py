"""What a remote source of imagery is asked for: requests, bytes, time at the configured rates, quota."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cropray.bands import N_BANDS, N_MONTHS
from cropray.grid import Grid
from cropray.imagery.earth_engine_settings import MONTH_DTYPE, EarthEngineSettings, fits_one_request

# Earth Engine.
LISTING_BYTES: Final = 150 * 40  # a year of asset ids
CLIENT_REQUESTS: Final = 3  # by each client when it connects: the service's description, twice, and its algorithms
CLIENT_BYTES: Final = 824_418  # which are so long; measured with earthengine-api 1.7.50
COMMUNITY_EECU_HOURS: Final = 150  # source: Earth Engine documentation, non-commercial quota per month, 2026
CONTRIBUTOR_EECU_HOURS: Final = 1_000
# Assumptions: the service does not tell beforehand, and caches change both by an order of magnitude.
ASSUMED_SCENES_PER_MONTH: Final = 10
ASSUMED_EECU_S_PER_BAND_PIXEL: Final = 1e-6
ASSUMED_ANSWER_S: Final = 2.0
ASSUMED_ANSWER_S_PER_PIXEL: Final = 20e-6

# STAC. Files are tiled in blocks, which are read whole; sizes of Sentinel-2 bands as deflated COGs over cropland.
BLOCK_PX: Final = 1024  # Earth Search; Planetary Computer's are 512
BAND_PIXEL_BYTES: Final = 1.8
SCL_PIXEL_BYTES: Final = 0.1
HEADER_BYTES: Final = 32_768  # read when a file is opened
SCL_STEP: Final = 2  # 20 m pixels


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one acquisition asks for, and how long that takes."""

    requests: int
    bytes: float
    seconds: float
    """At least, whatever the workers do meanwhile."""
    eecu_hours: float | None = None
    """None: the source has no such quota."""


def earth_engine_traffic(
    settings: EarthEngineSettings, grids: Sequence[Grid], measured_unit_s: float | None = None
) -> Traffic:
    """Listings and months of some zones.

    Args:
        settings: rate and concurrency.
        grids: the zones'; each has twelve months, all with scenes.
        measured_unit_s: seconds per request in an earlier run; None: assumed.
    """
    windows = [n_windows(grid.height * grid.width) for grid in grids]
    units = len(grids) * (1 + N_MONTHS)
    clients = min(settings.max_concurrent, units)
    # A window that is too large is refused by the client itself, before it is sent: only its quarters are requests.
    answers = len(grids) + N_MONTHS * sum(windows)
    n_pixels = sum(grid.height * grid.width for grid in grids)
    n_bytes = clients * CLIENT_BYTES + len(grids) * LISTING_BYTES + N_MONTHS * n_pixels * MONTH_DTYPE.itemsize
    requests = answers + clients * CLIENT_REQUESTS
    if measured_unit_s is None:
        busy_s = answers * ASSUMED_ANSWER_S + N_MONTHS * n_pixels * ASSUMED_ANSWER_S_PER_PIXEL
    else:
        busy_s = units * measured_unit_s
    seconds = max(requests / settings.max_requests_per_s, busy_s / clients)
    read = N_MONTHS * n_pixels * ASSUMED_SCENES_PER_MONTH * (N_BANDS + 1)
    return Traffic(requests, n_bytes, seconds, read * ASSUMED_EECU_S_PER_BAND_PIXEL / 3600)


def n_windows(n_pixels: int) -> int:
    """Requests for one month of one zone: quarters, and quarters of quarters, until each is small enough."""
    windows = 1
    while not fits_one_request(n_pixels / windows, MONTH_DTYPE):
        windows *= 4
    return windows


def stac_traffic(grids: Sequence[Grid], n_items: Sequence[int]) -> Traffic:
    """Searches and windows of some zones, with the number of items of each; their time counts with the zones'."""
    n_bytes = sum(n * item_bytes(grid) for grid, n in zip(grids, n_items, strict=True))
    requests = len(grids) + sum(n_items) * (N_BANDS + 1) * 2  # a header and, merged, its blocks
    return Traffic(requests, n_bytes, 0.0)


def item_bytes(grid: Grid) -> float:
    """Bytes of one item's windows on a grid; blocks that it touches are read whole, wherever it lies in them."""
    bands = _touched(grid.height) * _touched(grid.width) * BAND_PIXEL_BYTES
    scl = _touched(math.ceil(grid.height / SCL_STEP)) * _touched(math.ceil(grid.width / SCL_STEP)) * SCL_PIXEL_BYTES
    return N_BANDS * bands + scl + (N_BANDS + 1) * HEADER_BYTES


def _touched(length: int) -> int:
    """Pixels of the blocks that a stretch of pixels touches, on average over where it begins."""
    return length - 1 + BLOCK_PX
