"""What Earth Engine is asked for: requests, bytes, time at the configured rates, quota."""

from collections.abc import Sequence
from typing import Final

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.grid import Grid
from cropray.imagery.acquisition import Traffic
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings, fits_one_request, ids_of, step_dtype

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


def earth_engine_traffic(
    settings: EarthEngineSettings,
    grids: Sequence[Grid],
    measured_unit_s: float | None = None,
    cube: CubeSpec = STUDY_CUBE,
) -> Traffic:
    """Listings and steps of some zones on these grids; each has all steps, with scenes.

    `measured_unit_s` are the seconds per request in an earlier run; None: assumed.
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
    eecu_hours = read * ASSUMED_EECU_S_PER_BAND_PIXEL / 3600
    return Traffic(requests, n_bytes, seconds, eecu_hours, note=quota_note(eecu_hours))


def n_windows(n_pixels: int, cube: CubeSpec = STUDY_CUBE) -> int:
    """Requests for one step of one zone: quarters, and quarters of quarters, until each is small enough."""
    windows = 1
    dtype = step_dtype(ids_of(cube.bands))
    while not fits_one_request(n_pixels / windows, dtype):
        windows *= 4
    return windows


def quota_note(eecu_hours: float) -> str:
    """An estimate of Earth Engine's computing beside its monthly quotas."""
    shares = f"{eecu_hours / COMMUNITY_EECU_HOURS:.0%} and {eecu_hours / CONTRIBUTOR_EECU_HOURS:.1%}"
    return (
        f"computing on Earth Engine is assumed (1 EECU-second per million pixels of a band that are read), not measured: "
        f"{shares} of a month's quota of {COMMUNITY_EECU_HOURS} (Community) and {CONTRIBUTOR_EECU_HOURS:,} (Contributor); "
        f"where no earlier run was counted, so is an answer: {ASSUMED_ANSWER_S:g} s, and {ASSUMED_ANSWER_S_PER_PIXEL * 1e6:g} s "
        f"more for a million pixels"
    )
