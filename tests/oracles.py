"""Slow, obvious versions of what the code does fast."""

import functools
import itertools
import math
import warnings

import numpy as np
import shapely
from pyproj import Transformer

from cropray.core.legend import IGNORE


def monthly_median(stack, scl):
    """Median of SCL 4–7 by numpy.nanmedian in float64, rounded half up; 0 without observation."""
    valid = (scl >= 4) & (scl <= 7)
    n_obs = valid.sum(axis=0).astype(np.uint8)
    if len(stack) == 0:
        return np.zeros(stack.shape[1:], np.uint16), n_obs
    values = np.where(valid[:, None], stack.astype(np.float64), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN pixels are what we ask for
        median = np.nanmedian(values, axis=0)
    return np.floor(np.nan_to_num(median, nan=0.0) + 0.5).astype(np.uint16), n_obs


def fill_gaps(x, valid):
    """Nearest valid month before and after, searched for each pixel."""
    n_months, n_bands, height, width = x.shape
    filled = np.zeros_like(x)
    for row in range(height):
        for col in range(width):
            for month in range(n_months):
                before = next((m for m in range(month, -1, -1) if valid[m, row, col]), None)
                after = next((m for m in range(month, n_months) if valid[m, row, col]), None)
                sources = [m for m in (before, after) if m is not None]
                for band in range(n_bands):
                    if sources:
                        mean = sum(int(x[m, band, row, col]) for m in sources) / len(sources)
                        filled[month, band, row, col] = math.floor(mean + 0.5)
    return filled


def fill_gaps_as_the_study(x, valid):
    """Mean of the month before and the month after; the first month takes the next, the last the previous; else 0."""
    n_months, n_bands, height, width = x.shape
    filled = np.where(valid[:, None], x, 0).astype(x.dtype)
    for row in range(height):
        for col in range(width):
            for month in range(n_months):
                if valid[month, row, col]:
                    continue
                before, after = (
                    max(month - 1, 1 - month),
                    min(month + 1, 2 * n_months - 3 - month),
                )  # mirrored at the ends
                if valid[before, row, col] and valid[after, row, col]:
                    for band in range(n_bands):
                        filled[month, band, row, col] = (
                            int(x[before, band, row, col]) + int(x[after, band, row, col]) + 1
                        ) // 2
    return filled


def study_rule_is_defined(valid):
    """[M, H, W] bool, true at gaps whose neighbours in time are valid."""
    before, after = np.roll(valid, 1, axis=0), np.roll(valid, -1, axis=0)
    before[0], after[-1] = valid[1], valid[-2]
    return ~valid & before & after


def top_parcel(parcels, grid):
    """[H, W] row of the parcel that holds each pixel's centre: the smallest, then the first id and row; or -1."""
    order = sorted(range(len(parcels)), key=lambda row: (parcels.area_ha[row], parcels.parcel_id[row], row))
    index = np.full(grid.shape, -1, np.int32)
    for row in range(grid.height):
        for col in range(grid.width):
            centre = shapely.Point(*grid.centre(row, col))
            index[row, col] = next((p for p in order if parcels.geometry[p].contains(centre)), -1)
    return index


def count_parcels(parcels, grid):
    """[H, W] number of parcels that hold each pixel's centre."""
    count = np.zeros(grid.shape, np.int32)
    for row in range(grid.height):
        for col in range(grid.width):
            centre = shapely.Point(*grid.centre(row, col))
            count[row, col] = sum(polygon.contains(centre) for polygon in parcels.geometry)
    return count


def distance_to_outline(parcels, index, grid):
    """[H, W] metres from each pixel's centre to the outline of its parcel; infinite without parcel."""
    distance = np.full(grid.shape, np.inf)
    for row, col in np.argwhere(index >= 0):
        outline = parcels.geometry[index[row, col]].boundary
        distance[row, col] = outline.distance(shapely.Point(*grid.centre(row, col)))
    return distance


def stitch_labels(tiles, shape):
    """The label raster [H, W] from which `cut_tiles` made the tiles."""
    size = tiles.labels.shape[-1]
    canvas = np.full((shape[0] + size, shape[1] + size), IGNORE, np.uint8)
    for labels, row, col in zip(tiles.labels, tiles.row, tiles.col, strict=True):
        canvas[row : row + size, col : col + size] = labels
    return canvas[: shape[0], : shape[1]]


def crossings(zones, folds, parcel_ids, buffer_m):
    """(giver, keeper, parcels of both, rectangle to keep away from or None) of each pair of zones that are not apart."""
    groups = {zone.zone_id: "test" if zone.split == "test" else folds[zone.zone_id] for zone in zones}
    for first, second in itertools.combinations(zones, 2):
        if groups[first.zone_id] == groups[second.zone_id]:
            continue
        giver, keeper = (first, second) if second.split == "test" else (second, first)
        shared = set(parcel_ids.get(giver.zone_id, ())) & set(parcel_ids.get(keeper.zone_id, ())) - {""}
        bounds = keeper.grid.bounds
        if keeper.grid.epsg != giver.grid.epsg:
            bounds = _to(keeper.grid.epsg, giver.grid.epsg).transform_bounds(*bounds)
        x_min, y_min, x_max, y_max = giver.grid.bounds
        away = (bounds[0] - buffer_m, bounds[1] - buffer_m, bounds[2] + buffer_m, bounds[3] + buffer_m)
        is_near = x_min < away[2] and away[0] < x_max and y_min < away[3] and away[1] < y_max
        if shared or is_near:
            yield giver.zone_id, keeper.zone_id, shared, away if is_near else None


@functools.cache
def _to(source, target):
    return Transformer.from_crs(source, target, always_xy=True)


def folds_one_by_one(zones, regions, n_folds):
    """Heaviest zone first, each to the best of the folds that are not full, all counted anew for each zone."""
    assigned = {}
    smallest, n_larger = divmod(len(zones), n_folds)
    for zone_id in sorted(zones, key=lambda z: (-sum(zones[z].values()), z)):
        members = [[z for z, fold in assigned.items() if fold == f] for f in range(n_folds)]
        may_grow = sum(len(some) > smallest for some in members) < n_larger
        open_folds = [fold for fold in range(n_folds) if len(members[fold]) < smallest + may_grow]
        assigned[zone_id] = min(open_folds, key=lambda fold: (*_badness(zone_id, members[fold], zones, regions), fold))
    return assigned


def _badness(zone_id, members, zones, regions):
    seen = {name for z in members for name, n in zones[z].items() if n > 0}
    lacking = [name for name, n in zones[zone_id].items() if n > 0 and name not in seen]
    gained = sum(1 / sum(table.get(name, 0) > 0 for table in zones.values()) for name in lacking)
    n_alike = sum(regions[z] == regions[zone_id] for z in members)
    return len(members) > 0, n_alike, -gained, sum(sum(zones[z].values()) for z in members)
