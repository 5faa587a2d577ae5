"""Coordinate systems: places and rectangles of one as another one sees them."""

import functools

from pyproj import CRS, Transformer

from cropray.core.grid import Grid

Bounds = tuple[float, float, float, float]
"""(x_min, y_min, x_max, y_max)."""


@functools.lru_cache(maxsize=64)
def between(source: int | CRS, target: int | CRS) -> Transformer:
    """From (x, y), or (longitude, latitude), of one system to those of another; one takes 13 ms to make."""
    return Transformer.from_crs(source, target, always_xy=True)


def bounds_in(grid: Grid, system: int | CRS) -> Bounds:
    """A grid's bounds in another system: the rectangle around its bent outline."""
    if grid.epsg == system:
        return grid.bounds
    x_min, y_min, x_max, y_max = between(grid.epsg, system).transform_bounds(*grid.bounds)
    return x_min, y_min, x_max, y_max
