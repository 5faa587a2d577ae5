"""Windows of a region: where they may lie, how much cropland each holds, and which are chosen.

The rule of choice: windows in order of their cropland (more first; then nearer to the town; then farther north; then
farther west). The first is taken, then always the next one that keeps the least gap to all that were taken.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from cropray.core.grid import Grid, Window
from cropray.io.systems import Bounds, between, bounds_in
from cropray.zone_selection.regions import Region
from cropray.zone_selection.settings import PIXEL_M, ZoneSelectionSettings

_STRIP_DEG = 6  # width of a UTM strip
_COAST_DEG = 0.05  # a town this near to an outline lies in it: outlines are simplified


@dataclass(frozen=True, slots=True)
class SearchArea:
    """The cells around a region's town, and the windows that may become zones."""

    grid: Grid
    """Square cells of `cell_m` in the region's system; the corner is a multiple of `step_m`."""
    window_cells: int
    """Rows and columns of a window."""
    row: npt.NDArray[np.int64]
    """[N] first row of each window, cells."""
    col: npt.NDArray[np.int64]
    """[N] first column of each window, cells."""
    distance2: npt.NDArray[np.int64]
    """[N] squared distance from the window's centre to the town, (m/2)²: whole numbers, so that ties are ties."""

    @property
    def distance_m(self) -> npt.NDArray[np.float64]:
        """[N] distance from the window's centre to the town, m."""
        return np.sqrt(self.distance2) / 2

    def only(self, wanted: npt.NDArray[np.bool_]) -> "SearchArea":
        """The same area with some of its windows."""
        return SearchArea(self.grid, self.window_cells, self.row[wanted], self.col[wanted], self.distance2[wanted])

    @property
    def corners(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """[N] western and [N] northern edge of each window, m."""
        cell = self.grid.resolution_m
        x_min = np.asarray(self.grid.x_min + self.col * cell, np.float64)
        return x_min, np.asarray(self.grid.y_max - self.row * cell, np.float64)

    @property
    def window_m(self) -> float:
        """Side of a window, m."""
        return self.window_cells * self.grid.resolution_m

    def zone_grid(self, index: int) -> Grid:
        """The 10 m grid of a window."""
        cells = self.grid.crop(Window(int(self.row[index]), int(self.col[index]), self.window_cells, self.window_cells))
        pixels = round(self.window_m / PIXEL_M)
        return Grid(cells.epsg, cells.x_min, cells.y_max, pixels, pixels)


def search_area(region: Region, settings: ZoneSelectionSettings, outline: shapely.Geometry) -> SearchArea:
    """All windows whose centre is near enough to the town, on multiples of the step, and that lie in its country.

    The outline of a country (degrees) binds the regions whose town lies in it.
    """
    x, y = region.town_m
    size, step, cell = settings.zone_size_m, settings.step_m, settings.cell_m
    reach = round(1000 * settings.radius_km) + size / 2
    left, bottom = (int(np.floor((place - reach) / step)) * step for place in (x, y))
    right, top = (int(np.ceil((place + reach) / step)) * step for place in (x, y))
    grid = Grid(region.epsg, left, top, (top - bottom) // cell, (right - left) // cell, cell)
    rows, cols = (np.arange(0, n * cell - size + 1, step) for n in grid.shape)  # m from the corner
    dx, dy = 2 * (left + cols - x) + size, 2 * (top - rows - y) - size
    distance2 = dy[:, None] ** 2 + dx[None, :] ** 2
    i, j = np.nonzero(distance2 <= (2000 * settings.radius_km) ** 2)
    area = SearchArea(grid, size // cell, rows[i] // cell, cols[j] // cell, distance2[i, j])
    if region.stays_in_strip:
        area = area.only(_is_within_strip(area, region))
    if shapely.dwithin(outline, shapely.Point(region.lon, region.lat), _COAST_DEG):
        area = area.only(_is_within(area, outline))
    return area


def window_counts(cells: npt.NDArray[np.bool_], area: SearchArea) -> npt.NDArray[np.int64]:
    """[N] how many cells [H, W] of each window are true.

    One table of sums from the corner (an integral image) answers every window with four look-ups.
    """
    sums = np.zeros((cells.shape[0] + 1, cells.shape[1] + 1), np.int32)
    np.cumsum(cells, axis=0, out=sums[1:, 1:])
    np.cumsum(sums[1:, 1:], axis=1, out=sums[1:, 1:])
    top, left, size = area.row, area.col, area.window_cells
    inside = sums[top + size, left + size] - sums[top, left + size] - sums[top + size, left] + sums[top, left]
    return inside.astype(np.int64)


def rank_windows(counts: npt.NDArray[np.int64], area: SearchArea) -> npt.NDArray[np.int64]:
    """[N] indices of the windows in the order of choice."""
    return np.lexsort((area.col, area.row, area.distance2, -counts)).astype(np.int64)


def choose_windows(
    ranked: npt.NDArray[np.int64], area: SearchArea, n_wanted: int, min_gap_m: float, taken: Iterable[Bounds] = ()
) -> tuple[int, ...]:
    """The first windows in order that keep the least gap, in x or in y, m, to each other and to what is taken.

    `ranked` are indices of those that may be chosen, best first; `taken` rectangles (x_min, y_min, x_max, y_max) of other
    regions' zones, in the area's system. Indices come in order of choice; fewer than wanted where no more fit.
    """
    size = area.window_m
    x_min, y_max = (edge[ranked] for edge in area.corners)
    is_free = np.ones(len(ranked), bool)
    for west, south, east, north in taken:
        is_free &= _gap(x_min, y_max, size, (west, south, east, north)) >= min_gap_m
    chosen: list[int] = []
    while len(chosen) < n_wanted and is_free.any():
        first = int(np.argmax(is_free))
        chosen.append(int(ranked[first]))
        x, y = float(x_min[first]), float(y_max[first])
        is_free &= _gap(x_min, y_max, size, (x, y - size, x + size, y)) >= min_gap_m
    return tuple(chosen)


def _gap(
    x_min: npt.NDArray[np.float64], y_max: npt.NDArray[np.float64], size: float, other: Bounds
) -> npt.NDArray[np.float64]:
    """[N] gap between square windows and a rectangle, m: the larger of that in x and that in y; negative: they overlap."""
    west, south, east, north = other
    gap_x = np.maximum(x_min - east, west - (x_min + size))
    gap_y = np.maximum((y_max - size) - north, south - y_max)
    return np.maximum(gap_x, gap_y)


def _is_within_strip(area: SearchArea, region: Region) -> npt.NDArray[np.bool_]:
    """[N] whether a window stays within the UTM strip: over its edge, scenes come in two systems."""
    west = np.floor(region.lon / _STRIP_DEG) * _STRIP_DEG
    (x, y), size = area.corners, area.window_m
    xs, ys = np.stack([x, x + size, x, x + size]), np.stack([y, y, y - size, y - size])
    lon, _ = between(area.grid.epsg, 4326).transform(xs, ys)
    return np.asarray(((lon >= west) & (lon <= west + _STRIP_DEG)).all(axis=0))


def _is_within(area: SearchArea, outline: shapely.Geometry) -> npt.NDArray[np.bool_]:
    """[N] whether a window lies wholly in a country: beyond its borders there are no declared parcels."""
    near = shapely.intersection(outline, shapely.box(*bounds_in(area.grid, 4326)))
    to_metres = between(4326, area.grid.epsg).transform
    country = shapely.make_valid(shapely.transform(near, to_metres, interleaved=False))
    shapely.prepare(country)
    (x, y), size = area.corners, area.window_m
    return np.asarray(shapely.contains(country, shapely.box(x, y - size, x + size, y)))
