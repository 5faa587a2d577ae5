"""Seven scenes of one May, two of them parts of one acquisition, and what Earth Engine has of them."""

import os

from cropray.core.cube import Season
from cropray.core.grid import Grid, Window
from cropray.imagery.sources.earth_engine.months import month_units, scenes_of
from cropray.io.zones import Zone
from tests.imagery.rasters import draw_pixels, write_scene
from tests.servers.earth_engine_catalogue import COLLECTION

GRID = Grid(32631, 600_000.0, 5_400_000.0, 50, 37)
MAY = Zone("may", "north", "train", GRID)

os.environ.setdefault("NO_PROXY", "127.0.0.1")


def write_may(folder):
    """Scenes with pixels that lack a band, and two overlapping parts; their folder."""
    for day in (1, 6, 11, 16, 21):
        pixels = draw_pixels(GRID.shape, seed=day)
        pixels[day % 4, day : day + 9, 3:9] = 0
        write_scene(folder, f"2023-05-{day:02d}", pixels, GRID)
    for name, window in (("a", Window(0, 0, 50, 20)), ("b", Window(0, 12, 50, 25))):
        part = draw_pixels((window.height, window.width), seed=window.width)
        write_scene(folder, "2023-05-26", part, GRID.crop(window), name=f"{name}_20230526T105031.tif")
    return folder


def units_of(client, zone, first_month="2023-01"):
    """The zone's months, by a request."""
    season = Season(first_month)
    found = scenes_of(client.list_assets(zone.grid, season), COLLECTION, zone.grid, season)
    return month_units(zone, season, found)


def may(client):
    """The one month that has scenes."""
    (unit,) = units_of(client, MAY)
    return unit
