"""The map of the chosen zones: where they lie in the country, and what each region looks like from near."""

import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio.errors
import shapely
from matplotlib.artist import Artist
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Rectangle
from matplotlib.patheffects import withStroke

from cropray.core.errors import InputError
from cropray.io.pictures import INK, LINE, MUTED, picture
from cropray.io.raw_files import local_table
from cropray.io.storage import Location
from cropray.io.systems import between
from cropray.report.drawing import MODEL_COLOURS
from cropray.zone_selection.selection import ChosenZone, RegionChoice

TRAIN_COLOUR: Final = MODEL_COLOURS[0]
TEST_COLOUR: Final = MODEL_COLOURS[1]
_LAND: Final = "#f4f1ea"
_CROPLAND: Final = LinearSegmentedColormap.from_list("cropland", ["#fbfaf6", "#ecdfae", "#c4b15a"])
_PANEL_ROWS: Final = 4
_PANEL_PX: Final = 150  # cells are averaged down to about this many in a panel
_DEGREE_M: Final = 111_000  # of latitude
_OUTLINE: Final = "zone_selection.outline"  # in messages
_OUTLINE_MARGIN: Final = 0.6  # degrees between the outline and the picture's edge


def read_outline(path: Location | None) -> shapely.Geometry:
    """The country's outline in longitude and latitude; None: metropolitan France.

    Source of France's: Natural Earth 1:10m, public domain.

    Raises:
        InputError: the file cannot be read.
    """
    place = Path(str(resources.files("cropray").joinpath("data/france.geojson"))) if path is None else path
    try:
        with local_table(place, _OUTLINE) as file:
            frame = geopandas.read_file(file)
    except (pyogrio.errors.DataSourceError, OSError) as error:
        raise InputError(f"outline '{place}' cannot be read ({error}); set {_OUTLINE}") from None
    if frame.crs is None or frame.empty:
        raise InputError(f"outline '{place}' has no coordinate system or no shape; set {_OUTLINE}")
    return shapely.union_all(shapely.make_valid(frame.to_crs(4326).geometry.to_numpy()))


def draw_zones(path: Location, choices: Sequence[RegionChoice], outline: shapely.Geometry, radius_km: float) -> None:
    """Write the map: the country on the left, one panel a region on the right.

    Its outline (degrees) is left out where no region lies in its bounds; regions were searched within `radius_km` of the town.
    """
    n_columns = math.ceil(len(choices) / _PANEL_ROWS)
    n_rows = min(len(choices), _PANEL_ROWS)
    with picture(path, 6.4 + 2.1 * n_columns, 7.6) as figure:
        country, panels = np.asarray(figure.subfigures(1, 2, width_ratios=[6.4, 2.1 * n_columns]))
        _draw_country(country, choices, outline, radius_km)
        grid = panels.subplots(n_rows, n_columns, squeeze=False)
        for axes in grid.flat[len(choices) :]:
            axes.set_axis_off()
        for axes, choice in zip(grid.flat, choices, strict=False):
            _draw_region(axes, choice, radius_km)


def _draw_country(figure: Any, choices: Sequence[RegionChoice], outline: shapely.Geometry, radius_km: float) -> None:
    axes = figure.subplots()
    rings = [_search_ring(choice, radius_km) for choice in choices]
    shapes = [shapely.Polygon(ring) for ring in rings]
    if shapely.box(*shapely.total_bounds(shapes)).intersects(shapely.box(*outline.bounds)):
        shapes.append(outline)
        for part in shapely.get_parts(outline):
            if isinstance(part, shapely.Polygon):
                axes.fill(*np.asarray(part.exterior.coords).T[:2], facecolor=_LAND, edgecolor=MUTED, linewidth=0.7)
    for ring in rings:
        axes.fill(*ring.T, facecolor="white", edgecolor=LINE, linewidth=0.8, alpha=0.8)
    for choice, ring in zip(choices, rings, strict=True):
        for chosen in choice.chosen:
            axes.fill(*_zone_ring(chosen).T, color=_colour(chosen), linewidth=0)
        above = ring[:, 1].max() + choice.area.window_m / 2 / _DEGREE_M  # zones reach half their size over the circle
        axes.text(choice.region.lon, above, choice.region.region, ha="center", va="bottom", fontsize=8)
    west, south, east, north = shapely.total_bounds(shapes)
    axes.set_xlim(west - _OUTLINE_MARGIN, east + _OUTLINE_MARGIN)
    axes.set_ylim(south - _OUTLINE_MARGIN, north + _OUTLINE_MARGIN)
    axes.set_aspect(1 / math.cos(math.radians((south + north) / 2)))
    axes.set_xlabel("longitude, degrees")
    axes.set_ylabel("latitude, degrees")
    zones = [chosen.zone for choice in choices for chosen in choice.chosen]
    n_test = sum(zone.split == "test" for zone in zones)
    axes.set_title(f"{len(zones)} zones in {len(choices)} regions, chosen by cropland")
    axes.legend(handles=_legend(len(zones) - n_test, n_test, radius_km), loc="lower left", fontsize=7.5)


def _draw_region(axes: Any, choice: RegionChoice, radius_km: float) -> None:
    """One region in its own system, km from the town."""
    grid = choice.area.grid
    x, y = choice.region.town_m
    share = _block_mean(choice.is_cropland)
    west, south, east, north = grid.bounds
    extent = [(west - x) / 1000, (east - x) / 1000, (south - y) / 1000, (north - y) / 1000]
    image = axes.imshow(share, cmap=_CROPLAND, vmin=0, vmax=1, extent=extent, interpolation="nearest")
    reach = radius_km + choice.area.window_m / 2000
    image.set_clip_path(Circle((0, 0), reach, transform=axes.transData))
    axes.add_patch(Circle((0, 0), radius_km, fill=False, edgecolor=MUTED, linewidth=0.6, linestyle=(0, (2, 2))))
    axes.plot(0, 0, marker="+", color=INK, markersize=6, markeredgewidth=1)
    for chosen in choice.chosen:
        x0, y0, x1, y1 = (
            (place - origin) / 1000 for place, origin in zip(chosen.zone.grid.bounds, (x, y, x, y), strict=True)
        )
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=_colour(chosen), linewidth=1.6))
        label = axes.text(x0 + 0.8, y1 - 0.8, f"{100 * chosen.cropland_share:.0f}", fontsize=6.5, ha="left", va="top")
        label.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_axis_off()
    name = choice.region.region
    axes.set_title(name if choice.region.town == name else f"{name} · {choice.region.town}", fontsize=8, loc="center")


def _block_mean(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Share of true cells in blocks, so that a panel shows all of them."""
    block = max(1, min(cells.shape) // _PANEL_PX)
    rows, cols = (n // block * block for n in cells.shape)
    blocks = cells[:rows, :cols].reshape(rows // block, block, cols // block, block)
    return np.asarray(blocks.mean(axis=(1, 3)))


def _search_ring(choice: RegionChoice, radius_km: float) -> npt.NDArray[np.float64]:
    """[N, 2] longitude and latitude of the circle in which zones' centres lie."""
    x, y = choice.region.town_m
    turn = np.linspace(0, 2 * np.pi, 73)
    return _to_degrees(choice.region.epsg, x + 1000 * radius_km * np.cos(turn), y + 1000 * radius_km * np.sin(turn))


def _zone_ring(chosen: ChosenZone) -> npt.NDArray[np.float64]:
    x_min, y_min, x_max, y_max = chosen.zone.grid.bounds
    return _to_degrees(chosen.zone.grid.epsg, [x_min, x_max, x_max, x_min], [y_min, y_min, y_max, y_max])


def _to_degrees(epsg: int, x: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.column_stack(between(epsg, 4326).transform(x, y))


def _colour(chosen: ChosenZone) -> str:
    return TEST_COLOUR if chosen.zone.split == "test" else TRAIN_COLOUR


def _legend(n_train: int, n_test: int, radius_km: float) -> list[Artist]:
    square: dict[str, Any] = {"marker": "s", "linestyle": "none", "markersize": 6}
    return [
        Line2D([], [], color=TRAIN_COLOUR, label=f"training zone ({n_train})", **square),
        Line2D([], [], color=TEST_COLOUR, label=f"test zone ({n_test})", **square),
        Line2D(
            [], [], marker="o", linestyle="none", markersize=8, markerfacecolor="white", markeredgecolor=MUTED,
            label=f"searched: {radius_km:g} km around the town (+)",
        ),
        Patch(color=_CROPLAND(1.0), label="cropland; its share of a zone in %"),
    ]  # fmt: skip
