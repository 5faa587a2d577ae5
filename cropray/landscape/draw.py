"""Draw a landscape: write the raw inputs from which every other stage starts.

Files, all a function of the settings alone:

    parcels.gpkg              the parcel register: EPSG:2154, columns as IGN ships them
    scenes/<region>/S2_<region>_<YYYYMMDDTHHMMSS>.tif    bands and SCL, uint16, UTM, 0 = no data
    worldcover.tif            land cover classes, EPSG:4326
    zones.csv                 the zone table
    landscape.json            the settings, written last
"""

import concurrent.futures
import contextlib
import functools
import json
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from cropray.core.closure import code_digest
from cropray.core.errors import InputError
from cropray.core.fingerprint import fingerprint
from cropray.io.storage import whole_folder, write_json
from cropray.io.zones import Zone, bundled_zones, write_zones
from cropray.landscape import files
from cropray.landscape.fields import Canvas, Cell, draw_cells, lay_out_canvas, mark_unknown_parcel, sow
from cropray.landscape.regions import REGION_STYLES, RegionStyle
from cropray.landscape.scenes import Land, draw_scene, grow_land
from cropray.landscape.settings import LandscapeSettings
from cropray.landscape.sky import acquisition_times
from cropray.landscape.spectra import bands_of
from cropray.landscape.worldcover import draw_worldcover

Progress = Callable[[str, int, int], None]
"""Called with what is being drawn, how many are done and how many there are."""

_RECORD: Final = "landscape.json"
_LAND, _TIMES, _SKY, _WORLDCOVER = range(4)  # independent random streams


@dataclass(frozen=True, slots=True)
class LandscapeFiles:
    """Where a landscape's raw inputs lie."""

    folder: Path

    @property
    def parcels(self) -> Path:
        """GeoPackage of the parcel register."""
        return self.folder / "parcels.gpkg"

    @property
    def scenes(self) -> Path:
        """Folder of the scenes, one subfolder a region."""
        return self.folder / "scenes"

    @property
    def worldcover(self) -> Path:
        """GeoTIFF of land cover classes."""
        return self.folder / "worldcover.tif"

    @property
    def zones(self) -> Path:
        """CSV zone table."""
        return self.folder / "zones.csv"


def draw_landscape(
    settings: LandscapeSettings, folder: Path, progress: Progress | None = None, n_processes: int = 1
) -> LandscapeFiles:
    """Write a landscape whole, or keep the one that stands when it is what the settings describe.

    `progress` is told of each region; the bytes do not depend on how many are drawn at a time (`n_processes`).

    Raises:
        InputError: the folder holds something else than a drawn landscape.
    """
    record = {
        "settings": settings.model_dump(mode="json"),
        "zones": fingerprint([asdict(zone) for zone in bundled_zones()]),
        "code": code_digest(_draw),
    }
    if _read_record(folder) == record:
        return LandscapeFiles(folder)
    report = progress or (lambda _what, _done, _total: None)
    with whole_folder(folder) as temporary:
        _draw(settings, LandscapeFiles(temporary), report, n_processes)
        write_json(temporary / _RECORD, record)
    return LandscapeFiles(folder)


def _read_record(folder: Path) -> object:
    """What the landscape in a folder was drawn from; None where there is no folder."""
    try:
        return json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        if folder.exists() and any(folder.iterdir()):
            raise InputError(
                f"'{folder}' is not empty and holds no drawn landscape ({_RECORD} is missing or damaged); "
                f"nothing was overwritten: name another folder, or remove this one"
            ) from None
        return None


def _draw(settings: LandscapeSettings, target: LandscapeFiles, report: Progress, n_processes: int) -> None:
    styles = REGION_STYLES[: settings.n_regions]
    zones: list[Zone] = []
    declared = []
    draw = functools.partial(_draw_region_scenes, settings, target)
    with contextlib.ExitStack() as stack:
        regions: Iterator[tuple[Canvas, list[Cell]]] = map(draw, range(len(styles)))
        if n_processes > 1:
            context = multiprocessing.get_context("spawn")  # a forked process may hold locks of other threads
            pool = stack.enter_context(concurrent.futures.ProcessPoolExecutor(n_processes, context))
            regions = pool.map(draw, range(len(styles)))
        for done, (canvas, cells) in enumerate(regions, start=1):
            zones += canvas.zones
            declared += [files.Declaration(c.outline, canvas.grid.epsg, c.code) for c in cells if c.code is not None]
            report("regions", done, len(styles))
    files.write_parcels(target.parcels, declared)
    rng = _random(settings, len(REGION_STYLES), _WORLDCOVER)
    files.write_worldcover(target.worldcover, draw_worldcover(zones, rng))
    write_zones(zones, target.zones)


def _draw_region_scenes(settings: LandscapeSettings, target: LandscapeFiles, index: int) -> tuple[Canvas, list[Cell]]:
    """Draw one region and write its scenes."""
    style = REGION_STYLES[index]
    canvas, cells, land = _draw_region(settings, index, style)
    bands = bands_of(settings.bands)
    for acquired in acquisition_times(settings, _random(settings, index, _TIMES)):
        scene = draw_scene(land, settings, acquired, _random(settings, index, _SKY, int(acquired.timestamp())))
        name = f"S2_{style.region}_{acquired:%Y%m%dT%H%M%S}.tif"
        files.write_scene(target.scenes / style.region / name, scene, land.grid, bands)
    return canvas, cells


def _draw_region(settings: LandscapeSettings, index: int, style: RegionStyle) -> tuple[Canvas, list[Cell], Land]:
    rng = _random(settings, index, _LAND)
    zones = tuple(zone for zone in bundled_zones() if zone.region == style.region)
    canvas = lay_out_canvas(settings, zones[: settings.zones_per_region])
    cells = sow(canvas, draw_cells(canvas, style, rng), style, rng)
    if index == 0:
        cells = mark_unknown_parcel(canvas, cells)
    return canvas, cells, grow_land(canvas, cells, style, rng)


def _random(settings: LandscapeSettings, *stream: int) -> np.random.Generator:
    """A stream of random numbers of its own: what one part draws never moves another."""
    return np.random.default_rng([settings.seed, *stream])
