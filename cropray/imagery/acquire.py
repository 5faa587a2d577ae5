"""From scenes to one zone's composite: read month by month, take medians, fill gaps, write."""

import datetime as dt
import itertools
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cropray.bands import N_BANDS, N_MONTHS, SCL_NODATA
from cropray.errors import InputError
from cropray.grid import Grid
from cropray.imagery.composite import monthly_median
from cropray.imagery.composites import write_composite, write_n_obs
from cropray.imagery.gapfill import fill_gaps
from cropray.imagery.scenes import Scene, SceneSource, Season
from cropray.workspace import Workspace
from cropray.zones import Zone


@dataclass(frozen=True, slots=True)
class ZoneAcquisition:
    """What one zone's composite was made from."""

    zone_id: str
    season_start: str
    """First month, `YYYY-MM`."""
    n_pixels: int
    n_scenes: tuple[int, ...]
    """Acquisitions that reach into the zone, per month."""
    n_clear: tuple[int, ...]
    """Pixels with at least one clear observation, per month."""
    n_never_clear: int
    """Pixels without a clear observation in any month: they stay no data."""

    @property
    def share_clear(self) -> float:
        """Share of the pixel-months that were observed."""
        return sum(self.n_clear) / (self.n_pixels * N_MONTHS)

    @property
    def n_filled(self) -> int:
        """Pixel-months that were filled from other months."""
        return (self.n_pixels - self.n_never_clear) * N_MONTHS - sum(self.n_clear)

    def to_record(self) -> dict[str, Any]:
        """A JSON-able record, with the derived numbers."""
        return {**asdict(self), "share_clear": self.share_clear, "n_filled": self.n_filled}


def acquire_zone(source: SceneSource, zone: Zone, season_start: str, workspace: Workspace) -> ZoneAcquisition:
    """Make and write the composite and the observation counts of one zone.

    At most one month of scenes is held in memory.

    Args:
        source: where the scenes are.
        zone: the zone; its own `season_start` comes before the job's.
        season_start: first of the twelve months, `YYYY-MM`.
        workspace: where `composite(zone_id)` and `n_obs(zone_id)` are written, each whole.

    Raises:
        InputError: no scene reaches into the zone in these months, a scene cannot be used, or no pixel is ever clear.
    """
    season = Season(zone.season_start or season_start)
    scenes = source.find(zone.grid, season.start, season.end)
    if not scenes:
        raise InputError(_no_scene([zone.zone_id], season))
    months = acquisitions_by_month(scenes, season)
    composite, n_obs = _composite_months(source, months, zone.grid)
    return finish_zone(zone, season, [len(month) for month in months], composite, n_obs, workspace)


def finish_zone(
    zone: Zone,
    season: Season,
    n_scenes: Sequence[int],
    composite: npt.NDArray[np.uint16],
    n_obs: npt.NDArray[np.uint8],
    workspace: Workspace,
) -> ZoneAcquisition:
    """Fill the gaps of a zone's monthly medians and write them; every source of imagery ends here.

    Args:
        zone: the zone.
        season: its twelve months.
        n_scenes: acquisitions of each month.
        composite: [12, 4, H, W] uint16 monthly medians; 0 where `n_obs` is.
        n_obs: [12, H, W] uint8 clear observations.
        workspace: where `composite(zone_id)` and `n_obs(zone_id)` are written, each whole.

    Raises:
        InputError: no pixel is ever clear.
    """
    observed = n_obs > 0
    n_pixels = zone.grid.height * zone.grid.width
    if not observed.any():
        raise InputError(
            f"zone '{zone.zone_id}': none of its {n_pixels} pixels is clear (SCL 4–7) in any of the "
            f"{sum(n_scenes)} scenes of {season.start} to {season.end}; add scenes or leave the zone out"
        )
    write_composite(workspace.composite(zone.zone_id), fill_gaps(composite, observed), zone.grid)
    write_n_obs(workspace.n_obs(zone.zone_id), n_obs, zone.grid)
    return ZoneAcquisition(
        zone_id=zone.zone_id,
        season_start=season.first_month,
        n_pixels=n_pixels,
        n_scenes=tuple(n_scenes),
        n_clear=tuple(int(n) for n in observed.sum(axis=(1, 2))),
        n_never_clear=int((~observed.any(axis=0)).sum()),
    )


def describe_clear(records: Collection[ZoneAcquisition]) -> str:
    """How much of some zones was observed, as a line."""
    clear = sum(record.share_clear for record in records) / len(records)
    return f"{clear:.0%} of the pixel-months were observed; the rest was filled in time"


def check_inputs(source: SceneSource, zones: Iterable[Zone], season_start: str) -> dict[str, tuple[Scene, ...]]:
    """Find every zone's scenes, and refuse before any pixel is read what cannot be acquired.

    Returns:
        zone → its scenes, in time order.

    Raises:
        InputError: a scene cannot be used (its header says so), or zones have no scene in their season.
    """
    found = {}
    without: list[Zone] = []
    for zone in zones:
        season = Season(zone.season_start or season_start)
        found[zone.zone_id] = source.find(zone.grid, season.start, season.end)
        if not found[zone.zone_id]:
            without.append(zone)
    require_scenes(without, season_start)
    return found


def require_scenes(without: Iterable[Zone], season_start: str) -> None:
    """Refuse zones that have no scene in their season.

    Raises:
        InputError: there is such a zone; all are named.
    """
    zone_ids: dict[Season, list[str]] = {}
    for zone in without:
        zone_ids.setdefault(Season(zone.season_start or season_start), []).append(zone.zone_id)
    if zone_ids:
        raise InputError("; ".join(_no_scene(ids, season) for season, ids in zone_ids.items()))


def _no_scene(zone_ids: list[str], season: Season) -> str:
    return (
        f"no scene reaches into {', '.join(map(repr, zone_ids))} from {season.start} to {season.end}; "
        f"add scenes, or mend the zone table or the season's start"
    )


def acquisitions_by_month(scenes: Sequence[Scene], season: Season) -> list[list[tuple[Scene, ...]]]:
    """Each month's scenes, those of one instant together: neighbouring MGRS tiles overlap and must not count twice."""
    return [_acquisitions(scenes, start, end) for start, end in season.months]


def _acquisitions(scenes: Sequence[Scene], start: dt.date, end: dt.date) -> list[tuple[Scene, ...]]:
    month = [scene for scene in scenes if start <= scene.acquired.date() < end]
    return [tuple(parts) for _, parts in itertools.groupby(month, key=lambda scene: scene.acquired)]


def _composite_months(
    source: SceneSource, months: Sequence[Sequence[tuple[Scene, ...]]], grid: Grid
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    composite = np.zeros((N_MONTHS, N_BANDS, *grid.shape), np.uint16)
    n_obs = np.zeros((N_MONTHS, *grid.shape), np.uint8)
    with ThreadPoolExecutor(source.scenes_at_once, thread_name_prefix="scene") as pool:
        for position, acquisitions in enumerate(months):
            stack = np.zeros((len(acquisitions), N_BANDS, *grid.shape), np.uint16)
            scl = np.zeros((len(acquisitions), *grid.shape), np.uint8)
            list(pool.map(partial(_read_parts, source, grid), acquisitions, stack, scl))
            composite[position], n_obs[position] = monthly_median(stack, scl)
    return composite, n_obs


def _read_parts(
    source: SceneSource,
    grid: Grid,
    parts: Sequence[Scene],
    stack: npt.NDArray[np.uint16],
    scl: npt.NDArray[np.uint8],
) -> None:
    """Lay the parts of one acquisition side by side; where they overlap, the first with data counts."""
    for part in parts:
        bands, classes = source.read(part, grid)
        missing = scl == SCL_NODATA
        np.copyto(stack, bands, where=missing)
        np.copyto(scl, classes, where=missing)
