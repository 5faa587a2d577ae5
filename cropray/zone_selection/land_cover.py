"""Land cover classes on a grid of cells, from GeoTIFFs on a disk or behind a STAC API, or from Earth Engine.

Every source reads the class at the centre of each cell (nearest neighbour). GeoTIFFs with overviews are read from the
coarsest one whose pixels are no larger than a cell: at cells of 100 m that is a 64th of the pixels of ESA WorldCover.
"""

import contextlib
import datetime as dt
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, assert_never

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.errors
from pyproj import CRS
from rasterio.windows import Window as RasterWindow

from cropray.core.errors import InputError
from cropray.core.grid import Grid
from cropray.core.redaction import redact
from cropray.imagery.sources.stac.doors import driver_of, require_door
from cropray.imagery.sources.stac.read import plain, signed, with_network
from cropray.imagery.sources.stac.search import Item, search_items
from cropray.io.raster_files import open_raster
from cropray.io.raw_files import in_words, is_there
from cropray.io.retry import RetryPolicy
from cropray.io.storage import Location
from cropray.io.systems import between, bounds_in
from cropray.zone_selection.settings import LandCover, LandCoverEarthEngine, LandCoverFiles, LandCoverStac

_SETTING: Final = "zone_selection.worldcover.path"  # in messages
UNKNOWN: Final = 0  # class of cells without data, as in WorldCover
_BLOCK_CELLS: Final = 2_000_000  # cells located at a time: 60 MB of coordinates
_POLICY: Final = RetryPolicy(max_attempts=6, first_wait_s=1.0, max_wait_s=30.0)
_TIMEOUT_S: Final = 60.0


class LandCoverMap(Protocol):
    """Where land cover classes come from."""

    @property
    def n_readers(self) -> int:
        """How many threads may read at a time."""
        ...

    def read(self, grid: Grid) -> npt.NDArray[np.uint8]:
        """[H, W] class of each cell's centre; 0 where the map has none.

        Raises:
            InputError: the map cannot be read.
        """
        ...


def land_cover_map(settings: LandCover) -> LandCoverMap:
    """The map that a job's settings name.

    Raises:
        InputError: files are named and there are none.
        EarthEngineError: Earth Engine cannot be reached.
    """
    match settings:
        case LandCoverFiles():
            return FileMap(input_files(settings))
        case LandCoverStac():
            return StacMap(settings)
        case LandCoverEarthEngine():
            # Loading its client takes a second, and few jobs need it.
            from cropray.imagery.sources.earth_engine.worldcover import EarthEngineMap  # noqa: PLC0415

            return EarthEngineMap(settings, settings.band)
        case _:
            assert_never(settings)


@dataclass(frozen=True, slots=True)
class FileMap:
    """A `LandCoverMap` over GeoTIFFs of one band; the first that has data counts."""

    paths: tuple[Location, ...]
    n_readers: int = 2

    def read(self, grid: Grid) -> npt.NDArray[np.uint8]:
        """See `LandCoverMap`."""
        classes = np.full(grid.shape, UNKNOWN, np.uint8)
        for path in self.paths:
            try:
                with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
                    _fill(classes, path, grid)
            except (rasterio.errors.RasterioError, ValueError) as error:
                raise InputError(
                    f"land cover '{path}' cannot be used: {error}; fetch it again, or set "
                    f"zone_selection.worldcover.pattern so that it is left out"
                ) from None
        return classes


@dataclass(frozen=True, slots=True)
class StacMap:
    """A `LandCoverMap` over the items of a STAC API, in order of their ids; the first that has data counts."""

    settings: LandCoverStac
    n_readers: int = 4  # they mostly wait for the network

    def read(self, grid: Grid) -> npt.NDArray[np.uint8]:
        """See `LandCoverMap`."""
        bbox = bounds_in(grid, 4326)
        year = self.settings.year
        span = dt.datetime(year, 1, 1, tzinfo=dt.UTC), dt.datetime(year, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
        items = search_items((self.settings.url, self.settings.collection), bbox, span, _POLICY, _TIMEOUT_S).items
        classes = np.full(grid.shape, UNKNOWN, np.uint8)
        for item in sorted(items, key=lambda item: str(item["id"])):
            self._fill_from(classes, item, grid)
        return classes

    def _fill_from(self, classes: npt.NDArray[np.uint8], item: Item, grid: Grid) -> None:
        """Cells that were filled before a connection broke stay as they are: the next attempt goes on from there."""
        if self.settings.asset not in item["assets"]:
            raise InputError(
                f"STAC item '{item['id']}' has no asset '{self.settings.asset}', only {sorted(item['assets'])}; "
                f"set zone_selection.worldcover.asset"
            )
        href = str(item["assets"][self.settings.asset]["href"])
        require_door(href, self.settings.url)

        def read() -> None:
            _fill(classes, signed(href, self.settings.sign), grid)

        try:
            with_network(href, read, _POLICY, _TIMEOUT_S)
        except (rasterio.errors.RasterioError, OSError, ValueError) as error:
            words = re.sub(r"\?\S*", "", redact(str(error)))  # a signature stands behind the question mark
            raise InputError(
                f"land cover '{plain(href)}' of STAC item '{item['id']}' cannot be used: {words}; run `cropray zones` again "
                f"later, or read the map from files"
            ) from None


def input_files(settings: LandCover) -> tuple[Location, ...]:
    """Files of a map of one's own; none of a service's.

    Raises:
        InputError: files are named and there are none.
    """
    if not isinstance(settings, LandCoverFiles):
        return ()
    path, pattern, files = settings.path, settings.pattern, []
    if is_there(path, _SETTING):
        with in_words(path, _SETTING):
            found = [path] if path.is_file() else path.glob(pattern)
            files = sorted((file for file in found if file.is_file()), key=str)
    if not files:
        raise InputError(
            f"land cover '{path}' is neither a file nor a folder with files that match '{pattern}'; mend {_SETTING}"
        )
    return tuple(files)


def _fill(classes: npt.NDArray[np.uint8], path: Location | str, grid: Grid) -> None:
    """Set the cells that are unknown so far and that a file knows; a text is a link of a service."""
    with _open(path) as dataset:
        if dataset.crs is None or (dataset.count, dataset.dtypes[0]) != (1, "uint8"):
            raise ValueError(
                f"it has {dataset.count} bands of {dataset.dtypes[0]} in '{dataset.crs}' and needs one of uint8 classes "
                f"in a coordinate system"
            )
        system, overviews = CRS.from_wkt(dataset.crs.to_wkt()), dataset.overviews(1)
        if not _overlaps(grid, system, dataset.bounds):
            return
        cell_pixels = _cell_in_pixels(grid, system, dataset.transform)
    factor = max((factor for factor in overviews if factor <= cell_pixels), default=1)  # 1: the raster itself
    level = {} if factor == 1 else {"overview_level": overviews.index(factor)}
    with _open(path, **level) as dataset:
        _sample(classes, dataset, grid, system)


def _open(path: Location | str, **options: Any) -> contextlib.AbstractContextManager[Any]:
    if isinstance(path, str):
        dataset: contextlib.AbstractContextManager[Any] = rasterio.open(path, driver=driver_of(path), **options)
        return dataset
    return open_raster(path, _SETTING, **options)


def _overlaps(grid: Grid, system: CRS, bounds: Sequence[float]) -> bool:
    west, south, east, north = bounds_in(grid, system)
    return bool(west < bounds[2] and bounds[0] < east and south < bounds[3] and bounds[1] < north)


def _cell_in_pixels(grid: Grid, system: CRS, transform: Any) -> float:
    """The smaller side of a cell in the middle of the grid, in pixels of a raster."""
    row, col = grid.height // 2, grid.width // 2
    x, y = np.array([grid.centre(row + i, col + j) for i, j in ((0, 0), (0, 1), (1, 0))]).T
    rows, cols = _to_pixels(transform, *between(grid.epsg, system).transform(x, y))
    return float(min(np.hypot(cols[side] - cols[0], rows[side] - rows[0]) for side in (1, 2)))


def _sample(classes: npt.NDArray[np.uint8], dataset: Any, grid: Grid, system: CRS) -> None:
    n_rows = max(1, _BLOCK_CELLS // grid.width)
    edges = [*range(0, grid.height, n_rows), grid.height]
    for top, bottom in itertools.pairwise(edges):
        x = grid.x_min + (np.arange(grid.width) + 0.5) * grid.resolution_m
        y = grid.y_max - (np.arange(top, bottom) + 0.5) * grid.resolution_m
        places = _to_pixels(dataset.transform, *between(grid.epsg, system).transform(*np.meshgrid(x, y)))
        rows, cols = (np.floor(place).astype(np.int64) for place in places)
        inside = (rows >= 0) & (rows < dataset.height) & (cols >= 0) & (cols < dataset.width)
        wanted = inside & (classes[top:bottom] == UNKNOWN)
        if wanted.any():
            classes[top:bottom][wanted] = _read_pixels(dataset, rows[wanted], cols[wanted])


def _to_pixels(
    transform: Any, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Rows and columns, with fractions, of places in a raster's system."""
    inverse = ~transform
    return inverse.d * x + inverse.e * y + inverse.f, inverse.a * x + inverse.b * y + inverse.c


def _read_pixels(dataset: Any, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """[N] values of single pixels, by one read of the rectangle around them; 0 where there is no data."""
    top, left = int(rows.min()), int(cols.min())
    window = RasterWindow(left, top, int(cols.max()) - left + 1, int(rows.max()) - top + 1)
    values: npt.NDArray[np.uint8] = dataset.read(1, window=window)[rows - top, cols - left]
    if dataset.nodata is not None:
        values[values == dataset.nodata] = UNKNOWN
    return values
