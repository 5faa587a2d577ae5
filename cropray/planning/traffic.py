"""What a remote source of imagery is asked for: requests, bytes, time at the configured rates, quota."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.grid import Grid
from cropray.core.sensors import known_band
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings, fits_one_request, ids_of, step_dtype

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
    settings: EarthEngineSettings,
    grids: Sequence[Grid],
    measured_unit_s: float | None = None,
    cube: CubeSpec = STUDY_CUBE,
) -> Traffic:
    """Listings and steps of some zones.

    Args:
        settings: rate and concurrency.
        grids: the zones'; each has all steps, with scenes.
        measured_unit_s: seconds per request in an earlier run; None: assumed.
        cube: bands and steps.
    """
    windows = [n_windows(grid.height * grid.width, cube) for grid in grids]
    n_steps, pixel_bytes = cube.n_steps, step_dtype(ids_of(cube.bands)).itemsize
    units = len(grids) * (1 + n_steps)
    clients = min(settings.max_concurrent, units)
    # A window that is too large is refused by the client itself, before it is sent: only its quarters are requests.
    answers = len(grids) + n_steps * sum(windows)
    n_pixels = sum(grid.height * grid.width for grid in grids)
    n_bytes = (
        clients * CLIENT_BYTES
        + len(grids) * LISTING_BYTES * cube.months / STUDY_CUBE.months
        + n_steps * n_pixels * pixel_bytes
    )
    requests = answers + clients * CLIENT_REQUESTS
    if measured_unit_s is None:
        busy_s = answers * ASSUMED_ANSWER_S + n_steps * n_pixels * ASSUMED_ANSWER_S_PER_PIXEL
    else:
        busy_s = units * measured_unit_s
    seconds = max(requests / settings.max_requests_per_s, busy_s / clients)
    read = cube.months * n_pixels * ASSUMED_SCENES_PER_MONTH * (cube.n_bands + 1)
    return Traffic(requests, n_bytes, seconds, read * ASSUMED_EECU_S_PER_BAND_PIXEL / 3600)


def n_windows(n_pixels: int, cube: CubeSpec = STUDY_CUBE) -> int:
    """Requests for one step of one zone: quarters, and quarters of quarters, until each is small enough."""
    windows = 1
    dtype = step_dtype(ids_of(cube.bands))
    while not fits_one_request(n_pixels / windows, dtype):
        windows *= 4
    return windows


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


def quota_note(eecu_hours: float) -> str:
    """An estimate of Earth Engine's computing beside its monthly quotas."""
    shares = f"{eecu_hours / COMMUNITY_EECU_HOURS:.0%} and {eecu_hours / CONTRIBUTOR_EECU_HOURS:.1%}"
    return (
        f"computing on Earth Engine is assumed (1 EECU-second per million pixels of a band that are read), not measured: "
        f"{shares} of a month's quota of {COMMUNITY_EECU_HOURS} (Community) and {CONTRIBUTOR_EECU_HOURS:,} (Contributor); "
        f"where no earlier run was counted, so is an answer: {ASSUMED_ANSWER_S:g} s, and {ASSUMED_ANSWER_S_PER_PIXEL * 1e6:g} s "
        f"more for a million pixels"
    )
