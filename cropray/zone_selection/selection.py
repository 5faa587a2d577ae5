"""Choose the zones of all regions, and say why."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from cropray.core.errors import InputError
from cropray.core.grid import Grid
from cropray.io.systems import bounds_in
from cropray.io.zones import Zone
from cropray.zone_selection.land_cover import UNKNOWN
from cropray.zone_selection.regions import Region
from cropray.zone_selection.settings import ZoneSelectionSettings
from cropray.zone_selection.windows import (
    SearchArea,
    choose_windows,
    rank_windows,
    search_area,
    window_counts,
)


@dataclass(frozen=True, slots=True)
class ChosenZone:
    """A zone, and why it was chosen."""

    zone: Zone
    rank: int
    """Place among the zones of its region by cropland, from 1."""
    cropland_share: float
    """Cells of cropland among all cells, 0–1."""
    unknown_share: float
    """Cells without a class, which count as no cropland, 0–1."""
    distance_km: float
    """From the zone's centre to the region's town."""
    n_better: int
    """Windows of the region that come before it in the order of choice."""
    reason: str

    def record(self) -> dict[str, Any]:
        """What is written of it."""
        return {
            "zone_id": self.zone.zone_id,
            "region": self.zone.region,
            "rank": self.rank,
            "split": self.zone.split,
            "cropland_share": round(self.cropland_share, 4),
            "unknown_share": round(self.unknown_share, 4),
            "distance_km": round(self.distance_km, 2),
            "n_better": self.n_better,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class RegionChoice:
    """What was chosen in a region, and from what."""

    region: Region
    area: SearchArea
    is_cropland: npt.NDArray[np.bool_]
    """[H, W] on the area's grid."""
    chosen: tuple[ChosenZone, ...]
    """In order of choice."""


def search_areas(
    regions: Sequence[Region], settings: ZoneSelectionSettings, outline: shapely.Geometry
) -> tuple[SearchArea, ...]:
    """The windows of every region; those of towns in the outline (degrees) lie in it.

    Raises:
        InputError: a region has fewer than it needs.
    """
    areas = tuple(search_area(region, settings, outline) for region in regions)
    for region, area in zip(regions, areas, strict=True):
        if len(area.row) < settings.zones_per_region:
            raise InputError(
                f"region '{region.region}': only {len(area.row)} windows of {settings.zone_size_m} m have their centre "
                f"within {settings.radius_km:g} km of {region.town} and lie in its UTM strip and country; raise "
                f"zone_selection.radius_km, give the region an epsg, or set zone_selection.outline"
            )
    return areas


def choose_zones(
    regions: Sequence[Region],
    areas: Sequence[SearchArea],
    classes: Sequence[npt.NDArray[np.uint8]],
    settings: ZoneSelectionSettings,
) -> tuple[RegionChoice, ...]:
    """Choose region by region, in table order; a later region keeps away from the zones of the earlier ones.

    Each region has an area and, on the grid of it, the classes of land cover.

    Raises:
        InputError: a region has no land cover, or too few windows with enough cropland; the message names it.
    """
    choices: list[RegionChoice] = []
    for region, area, cover in zip(regions, areas, classes, strict=True):
        taken = [chosen.zone.grid for choice in choices for chosen in choice.chosen]
        choices.append(_choose_region(region, area, cover, taken, settings))
    return tuple(choices)


def _choose_region(
    region: Region,
    area: SearchArea,
    cover: npt.NDArray[np.uint8],
    taken: Sequence[Grid],
    settings: ZoneSelectionSettings,
) -> RegionChoice:
    if not (cover != UNKNOWN).any():
        raise InputError(
            f"region '{region.region}': the land cover map has no data within {settings.radius_km:g} km of "
            f"{region.town} ({region.lon:g}, {region.lat:g}); add the map's tile, or mend the region's lon and lat"
        )
    is_cropland = np.isin(cover, settings.cropland_classes)
    counts = window_counts(is_cropland, area)
    ranked = rank_windows(counts, area)
    good = ranked[counts[ranked] >= max(settings.min_cropland_share * area.window_cells**2, 1)]
    others = [bounds_in(grid, region.epsg) for grid in taken]
    indices = choose_windows(good, area, settings.zones_per_region, settings.min_gap_m, others)
    if len(indices) < settings.zones_per_region:
        best = counts.max() / area.window_cells**2
        raise InputError(
            f"region '{region.region}': {len(indices)} zones fit and {settings.zones_per_region} are wanted; "
            f"{len(good)} of {len(counts)} windows have {settings.min_cropland_share:.0%} cropland (the best has "
            f"{best:.1%}). Raise zone_selection.radius_km, or lower zones_per_region, min_gap_m or min_cropland_share"
        )
    unknown = window_counts(cover == UNKNOWN, area)
    places = {int(index): place for place, index in enumerate(ranked)}
    test = held_out_rank(settings.zones_per_region)
    chosen = tuple(
        ChosenZone(
            zone=Zone(f"{region.slug}-{rank}", region.region, "test" if rank == test else "train", area.zone_grid(i)),
            rank=rank,
            cropland_share=float(counts[i]) / area.window_cells**2,
            unknown_share=float(unknown[i]) / area.window_cells**2,
            distance_km=float(area.distance_m[i]) / 1000,
            n_better=places[i],
            reason=_reason(region, len(ranked), rank, places[i], settings),
        )
        for rank, i in enumerate(indices, start=1)
    )
    return RegionChoice(region, area, is_cropland, chosen)


def held_out_rank(n_zones: int) -> int:
    """Which zone of a region is held out: the middle one by cropland (the better of the two middle ones)."""
    return int(statistics.median_low(range(1, n_zones + 1)))


def _reason(region: Region, n_windows: int, rank: int, n_better: int, settings: ZoneSelectionSettings) -> str:
    if n_better == 0:
        why = f"most cropland of {n_windows:,} windows within {settings.radius_km:g} km of {region.town}"
    else:
        away = "zones of other regions" if rank == 1 else "the zones before it"
        why = f"most cropland at least {settings.min_gap_m:,} m from {away} ({n_better:,} windows with more or as much are closer)"
    if rank == held_out_rank(settings.zones_per_region):
        why += f"; test: the middle of the region's {settings.zones_per_region} by cropland"
    return why
