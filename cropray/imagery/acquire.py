"""From scenes to one zone's composite: read month by month, take medians, fill gaps, write."""

import datetime as dt
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
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
    months = [_acquisitions(scenes, start, end) for start, end in season.months]
    composite, n_obs = _composite_months(source, months, zone.grid)
    observed = n_obs > 0
    n_pixels = zone.grid.height * zone.grid.width
    if not observed.any():
        raise InputError(
            f"zone '{zone.zone_id}': none of its {n_pixels} pixels is clear (SCL 4–7) in any of the "
            f"{sum(map(len, months))} scenes of {season.start} to {season.end}; add scenes or leave the zone out"
        )
    write_composite(workspace.composite(zone.zone_id), fill_gaps(composite, observed), zone.grid)
    write_n_obs(workspace.n_obs(zone.zone_id), n_obs, zone.grid)
    return ZoneAcquisition(
        zone_id=zone.zone_id,
        season_start=season.first_month,
        n_pixels=n_pixels,
        n_scenes=tuple(len(month) for month in months),
        n_clear=tuple(int(n) for n in observed.sum(axis=(1, 2))),
        n_never_clear=int((~observed.any(axis=0)).sum()),
    )


def check_inputs(source: SceneSource, zones: Iterable[Zone], season_start: str) -> None:
    """Refuse, before any pixel is read, what cannot be acquired.

    Raises:
        InputError: a scene cannot be used (its header says so), or zones have no scene in their season.
    """
    without: dict[Season, list[str]] = {}
    for zone in zones:
        season = Season(zone.season_start or season_start)
        if not source.find(zone.grid, season.start, season.end):
            without.setdefault(season, []).append(zone.zone_id)
    if without:
        raise InputError("; ".join(_no_scene(zone_ids, season) for season, zone_ids in without.items()))


def _no_scene(zone_ids: list[str], season: Season) -> str:
    return (
        f"no scene reaches into {', '.join(map(repr, zone_ids))} from {season.start} to {season.end}; "
        f"add scenes, or mend the zone table or the season's start"
    )


def _acquisitions(scenes: Sequence[Scene], start: dt.date, end: dt.date) -> list[tuple[Scene, ...]]:
    """The month's scenes, those of one instant together: neighbouring MGRS tiles overlap and must not count twice."""
    month = [scene for scene in scenes if start <= scene.acquired.date() < end]
    return [tuple(parts) for _, parts in itertools.groupby(month, key=lambda scene: scene.acquired)]


def _composite_months(
    source: SceneSource, months: Sequence[Sequence[tuple[Scene, ...]]], grid: Grid
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    composite = np.zeros((N_MONTHS, N_BANDS, *grid.shape), np.uint16)
    n_obs = np.zeros((N_MONTHS, *grid.shape), np.uint8)
    for position, acquisitions in enumerate(months):
        stack = np.zeros((len(acquisitions), N_BANDS, *grid.shape), np.uint16)
        scl = np.zeros((len(acquisitions), *grid.shape), np.uint8)
        for t, parts in enumerate(acquisitions):
            _read_parts(source, parts, grid, stack[t], scl[t])
        composite[position], n_obs[position] = monthly_median(stack, scl)
    return composite, n_obs


def _read_parts(
    source: SceneSource,
    parts: Sequence[Scene],
    grid: Grid,
    stack: npt.NDArray[np.uint16],
    scl: npt.NDArray[np.uint8],
) -> None:
    """Lay the parts of one acquisition side by side; where they overlap, the first with data counts."""
    for part in parts:
        bands, classes = source.read(part, grid)
        missing = scl == SCL_NODATA
        np.copyto(stack, bands, where=missing)
        np.copyto(scl, classes, where=missing)
