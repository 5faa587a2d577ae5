"""Fields: how a region's land is cut into parcels, and what each of them grows.

A region is a canvas, a UTM grid that holds its zones in rows with gaps between them. The canvas is cut
again and again into convex cells. A cell shrunk by a track's width is a parcel, or stays woodland or
village. What lies between the parcels is verge.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import rasterio.features
import shapely
from affine import Affine

from cropray.core.grid import Grid, Window
from cropray.io.zones import Zone
from cropray.landscape.regions import UNKNOWN_CODE, RegionStyle
from cropray.landscape.settings import MAX_PARCEL_EXTENT_M, PIXEL_M, LandscapeSettings

_ZONES_PER_ROW: Final = 3
_BACKGROUND_SHARE: Final = {"wood": 0.07, "village": 0.04}
_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_MIN_PIXELS: Final = 6  # a parcel counts as part of a zone from here on
_AREA_SPREAD: Final = 0.45  # standard deviation of log(area)

Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Canvas:
    """The land of one region."""

    grid: Grid
    zones: tuple[Zone, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One piece of land: a parcel or background."""

    outline: shapely.Polygon
    """In the canvas' UTM, m."""
    code: str | None
    """RPG code; None for land that nobody declares."""
    background: str | None = None
    zone_index: int | None = None
    """The zone of the canvas in which it mainly lies."""


def lay_out_canvas(settings: LandscapeSettings, zones: tuple[Zone, ...]) -> Canvas:
    """Place small zones, named and split as a region's bundled ones, on one canvas.

    The first of these gives the corner and the UTM zone.
    """
    step, margin = settings.zone_step_px, settings.margin_px
    n_cols = min(len(zones), _ZONES_PER_ROW)
    n_rows = math.ceil(len(zones) / n_cols)
    corner = zones[0].grid
    width, height = (2 * margin + (n - 1) * step + settings.zone_px for n in (n_cols, n_rows))
    canvas = Grid(corner.epsg, corner.x_min - margin * PIXEL_M, corner.y_max + margin * PIXEL_M, height, width)
    placed = []
    for index, zone in enumerate(zones):
        row, col = divmod(index, n_cols)
        window = Window(margin + row * step, margin + col * step, settings.zone_px, settings.zone_px)
        placed.append(replace(zone, grid=canvas.crop(window)))
    return Canvas(canvas, tuple(placed))


def draw_cells(canvas: Canvas, style: RegionStyle, rng: np.random.Generator) -> list[Cell]:
    """Cut a canvas into parcels and background, in random order; parcels carry no code yet (empty text)."""
    x_min, y_min, x_max, y_max = canvas.grid.bounds
    land = np.array([(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)])
    outlines = list(_split(land, style, rng))
    kinds = [*_BACKGROUND_SHARE, None]
    shares = [*_BACKGROUND_SHARE.values(), 1 - sum(_BACKGROUND_SHARE.values())]
    cells = []
    for index in rng.permutation(len(outlines)):
        kind = kinds[rng.choice(len(kinds), p=shares)]
        track_m = rng.uniform(4, 10)
        outline = shapely.Polygon(outlines[index]).buffer(-track_m / 2, join_style="mitre")
        if not outline.is_empty:
            cells.append(Cell(outline, None if kind else "", kind))
    return cells


def sow(canvas: Canvas, cells: list[Cell], style: RegionStyle, rng: np.random.Generator) -> list[Cell]:
    """Give every parcel a crop, in the region's shares and evenly over its zones.

    Parcels are taken in turn from one zone after the other while a golden-ratio sequence runs through
    the shares, so that every zone gets nearly the same mix and rare crops are not bunched in one.

    Returns:
        The cells with codes and zone indices; every crop of a test zone also grows in a training zone.
    """
    owners, n_pixels = _owning_zones(canvas, cells)
    order = _take_turns(owners, [index for index, cell in enumerate(cells) if cell.code is not None])
    codes, shares = zip(*style.crop_shares, strict=True)
    borders = np.cumsum(shares) / sum(shares)
    start = rng.random()
    sown = [
        replace(cell, zone_index=int(owner)) if owner >= 0 else cell for cell, owner in zip(cells, owners, strict=True)
    ]
    for turn, index in enumerate(order):
        position = (start + turn * _GOLDEN) % 1
        sown[index] = replace(sown[index], code=codes[int(np.searchsorted(borders, position, side="right"))])
    return _keep_test_crops_known(canvas, sown, n_pixels)


def mark_unknown_parcel(canvas: Canvas, cells: list[Cell]) -> list[Cell]:
    """Let one parcel of a training zone's commonest crop carry a code that no table knows."""
    in_training = [
        index
        for index, cell in enumerate(cells)
        if cell.code and cell.zone_index is not None and canvas.zones[cell.zone_index].split == "train"
    ]
    commonest = Counter(cells[index].code for index in in_training).most_common(1)[0][0]
    chosen = next(index for index in in_training if cells[index].code == commonest)
    return [replace(cell, code=UNKNOWN_CODE) if index == chosen else cell for index, cell in enumerate(cells)]


def burn(cells: list[Cell], grid: Grid, oversampling: int = 1) -> npt.NDArray[np.int32]:
    """Which cell covers each (sub)pixel centre, [H·s, W·s] int32; `len(cells)` where none does."""
    step_m = grid.resolution_m / oversampling
    fine = Affine(step_m, 0, grid.x_min, 0, -step_m, grid.y_max)
    shape = (grid.height * oversampling, grid.width * oversampling)
    shapes = ((cell.outline, index) for index, cell in enumerate(cells))
    burnt = rasterio.features.rasterize(shapes, shape, fill=len(cells), transform=fine, dtype="int32")
    return np.asarray(burnt, dtype=np.int32)


def _split(cell: Points, style: RegionStyle, rng: np.random.Generator) -> Iterator[Points]:
    """Cut a convex cell across its longer side until it is as small as a parcel."""
    rows = math.radians(style.rows_deg)
    along = np.array([math.cos(rows), math.sin(rows)])
    across = np.array([-along[1], along[0]])
    extents = [float(np.ptp(cell @ axis)) for axis in (along, across)]
    target_m2 = style.parcel_ha * 1e4 * math.exp(rng.normal(0, _AREA_SPREAD))
    if shapely.Polygon(cell).area <= target_m2 and math.hypot(*extents) <= MAX_PARCEL_EXTENT_M:
        yield cell
        return
    axis = along if extents[0] > 1.3 * extents[1] or (extents[0] > extents[1] and rng.random() < 0.7) else across
    tilt = rng.normal(0, math.radians(5))
    normal = np.array([[math.cos(tilt), -math.sin(tilt)], [math.sin(tilt), math.cos(tilt)]]) @ axis
    reach = cell @ normal
    place = reach.min() + rng.uniform(0.36, 0.64) * np.ptp(reach)
    for side in (1.0, -1.0):
        yield from _split(_clip(cell, side * normal, side * place), style, rng)


def _clip(cell: Points, normal: Points, limit: float) -> Points:
    """The part of a convex polygon with `point · normal <= limit` (Sutherland–Hodgman)."""
    kept: list[Points] = []
    reach = cell @ normal - limit
    for here, there, before, after in zip(cell, np.roll(cell, -1, 0), reach, np.roll(reach, -1), strict=True):
        if before <= 0:
            kept.append(here)
        if before * after < 0:
            kept.append(here + (there - here) * before / (before - after))
    return np.array(kept)


def _take_turns(owners: npt.NDArray[np.int64], parcels: list[int]) -> list[int]:
    """Parcels in turn: the first of every zone, then the second of every zone, and so on."""
    seen: Counter[int] = Counter()
    turn_of: dict[int, tuple[int, int]] = {}
    for index in parcels:
        owner = int(owners[index])
        turn_of[index] = (seen[owner], owner)
        seen[owner] += 1
    return sorted(parcels, key=turn_of.__getitem__)


def _owning_zones(canvas: Canvas, cells: list[Cell]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each cell the zone that holds it (-1: none, or hardly any of it), and its pixels there."""
    n_cells = len(cells)
    burnt = burn(cells, canvas.grid)
    counts = np.stack(
        [
            np.bincount(burnt[canvas.grid.window_of(zone.grid).slices].ravel(), minlength=n_cells + 1)[:n_cells]
            for zone in canvas.zones
        ]
    )
    n_pixels = counts.max(axis=0)
    return np.where(n_pixels >= _MIN_PIXELS, counts.argmax(axis=0), -1), n_pixels


def _keep_test_crops_known(canvas: Canvas, cells: list[Cell], n_pixels: npt.NDArray[np.int64]) -> list[Cell]:
    """Exchange crops between parcels until no crop of the test zone is missing from the training zones."""
    train_zones = {index for index, zone in enumerate(canvas.zones) if zone.split == "train"}
    train = [index for index, cell in enumerate(cells) if cell.code and cell.zone_index in train_zones]
    others = [index for index, cell in enumerate(cells) if cell.code and n_pixels[index] and index not in train]
    cells = list(cells)
    for index in others:
        known = Counter(cells[i].code for i in train)
        code = cells[index].code
        if code in known:
            continue
        commonest, n_parcels = known.most_common(1)[0]
        cells[index] = replace(cells[index], code=commonest)
        if n_parcels > 1:
            giver = next(i for i in train if cells[i].code == commonest)
            cells[giver] = replace(cells[giver], code=code)
    return cells
