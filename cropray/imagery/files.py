"""Scenes from local files: one GeoTIFF per scene with the bands B2 B3 B4 B8 and SCL.

A file name must hold the start of sensing as `YYYYMMDDTHHMMSS` (as ESA's product names do). Bands are found by their
descriptions, in any order, `B2` or `B02`. Files must lie in the UTM system of the zones that they cover, with their
pixels in line with the zones'.
"""

import datetime as dt
import functools
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.errors
import rasterio.warp
import rasterio.windows
import shapely

from cropray.bands import BANDS, N_BANDS, NODATA, SCL_NODATA
from cropray.errors import InputError
from cropray.grid import Grid, Window
from cropray.imagery.scenes import Scene
from cropray.settings import Settings, fingerprint

_SENSING_START: Final = re.compile(r"\d{8}T\d{6}")
_SCL: Final = "SCL"
# Without this GDAL lists the whole folder at each opening: seconds in a folder of thousands of scenes.
_GDAL_OPTIONS: Final = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}


class FilesSettings(Settings):
    """Where the scene files are."""

    source: Literal["files"] = "files"
    """Scenes are local files."""
    folder: Path
    """Folder of the scene files."""
    pattern: str = "**/*.tif"
    """Which files below the folder are scenes; `**` stands for any number of folders."""


@dataclass(frozen=True, slots=True)
class FileScenes:
    """A `SceneSource` over local files."""

    settings: FilesSettings

    @property
    def scenes_at_once(self) -> int:
        """One: the zones side by side keep a disk busy."""
        return 1

    def find(self, grid: Grid, start: dt.date, end: dt.date) -> tuple[Scene, ...]:
        """Scenes that reach into the grid, acquired in [start, end), in time order.

        Raises:
            InputError: the folder or a file of these dates cannot be used; the message names it.
        """
        scenes = []
        for path, acquired in self._dated_files():
            if start <= acquired.date() < end:
                header = _header(path)
                if _overlap(header.grid, grid):
                    _require_fit(path, header.grid, grid)
                    scenes.append(Scene(path.stem, acquired, str(path)))
        return tuple(sorted(scenes, key=lambda scene: (scene.acquired, scene.href)))

    def read(self, scene: Scene, grid: Grid) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
        """Digital numbers [4, H, W] uint16 and scene classes [H, W] uint8 on the grid; 0 outside the scene.

        Raises:
            InputError: the file cannot be read or does not fit the grid.
        """
        path = Path(scene.href)
        header = _header(path)
        _require_fit(path, header.grid, grid)
        pixels = _read_window(path, header, header.grid.window_of(grid))
        bands = pixels[:N_BANDS]
        bands[bands == header.nodata] = NODATA
        scl = np.minimum(pixels[N_BANDS], np.iinfo(np.uint8).max).astype(np.uint8)
        scl[(bands == NODATA).any(axis=0)] = SCL_NODATA
        return bands, scl

    def fingerprint(self, scenes: Sequence[Scene]) -> str:
        """Names, sizes and times of change: many gigabytes are not read only to find that nothing changed.

        Raises:
            InputError: a file is not there any more.
        """
        return fingerprint([[scene.href, *_size_and_time(Path(scene.href))] for scene in scenes])

    def _dated_files(self) -> Iterator[tuple[Path, dt.datetime]]:
        folder, pattern = self.settings.folder, self.settings.pattern
        if not folder.is_dir():
            raise InputError(f"scene folder '{folder}' does not exist; set 'folder' to the folder of the scene files")
        paths = sorted(path for path in folder.glob(pattern) if path.is_file())
        if not paths:
            raise InputError(
                f"scene folder '{folder}' has no file that matches '{pattern}'; mend 'folder' or 'pattern'"
            )
        for path in paths:
            yield path, _sensing_start(path)


@dataclass(frozen=True, slots=True)
class _Header:
    """What a scene file says of itself."""

    grid: Grid
    indexes: tuple[int, ...]
    """1-based file bands of `BANDS`, then SCL."""
    nodata: float | None


def _sensing_start(path: Path) -> dt.datetime:
    match = _SENSING_START.search(path.name)
    try:
        return dt.datetime.strptime(match[0] if match else "", "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
    except ValueError:
        raise InputError(
            f"file '{path}' has no date in its name; a scene is named like 'S2_area_20230714T105031.tif': "
            f"rename it, or narrow 'pattern' so that it is left out"
        ) from None


def _header(path: Path) -> _Header:
    return _cached_header(path, *_size_and_time(path))


def _size_and_time(path: Path) -> tuple[int, int]:
    """Bytes, and time of the last change in nanoseconds."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"scene '{path}' cannot be read ({error.strerror}); restore it") from None
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=100_000)
def _cached_header(path: Path, size: int, changed_ns: int) -> _Header:  # noqa: ARG001  # the time is part of the key
    try:
        with rasterio.Env(**_GDAL_OPTIONS), warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # refused below, in our words
            with rasterio.open(path) as dataset:
                if _is_cut_off(dataset, size):
                    raise InputError(f"scene '{path}' is cut off: its last pixels are missing; fetch it again")
                _require_integers(path, dataset)
                return _Header(_grid_of(path, dataset), _indexes_of(path, dataset), dataset.nodata)
    except rasterio.errors.RasterioError as error:
        raise InputError(f"scene '{path}' is no readable GeoTIFF ({error}); fetch it again or remove it") from None


def _grid_of(path: Path, dataset: Any) -> Grid:
    if dataset.crs is None:
        raise InputError(
            f"scene '{path}' has no coordinate system; assign its UTM zone (`gdal_edit.py -a_srs EPSG:326xx`)"
        )
    epsg = _epsg_of(dataset.crs.to_wkt())
    a, b, c, d, e, f = dataset.transform[:6]
    if epsg is None or b or d or a <= 0 or e != -a:
        raise InputError(
            f"scene '{path}' is in '{epsg or dataset.crs}' with transform {(a, b, c, d, e, f)}; it needs an EPSG "
            f"system and square pixels, north up: warp it (`gdalwarp -t_srs EPSG:326xx -tr 10 10 -tap`)"
        )
    return Grid(epsg, c, f, dataset.height, dataset.width, a)


@functools.lru_cache(maxsize=1000)
def _epsg_of(wkt: str) -> int | None:
    epsg: int | None = rasterio.CRS.from_wkt(wkt).to_epsg()
    return epsg


def _indexes_of(path: Path, dataset: Any) -> tuple[int, ...]:
    found = {str(name).upper(): index for index, name in enumerate(dataset.descriptions, start=1)}
    wanted = [(band.id, band.earth_engine_id) for band in BANDS] + [(_SCL, _SCL)]
    indexes = [next((found[name] for name in names if name in found), None) for names in wanted]
    missing = [names[0] for names, index in zip(wanted, indexes, strict=True) if index is None]
    if missing:
        raise InputError(
            f"scene '{path}' lacks {missing}: its bands are described as {list(dataset.descriptions)}; "
            f"describe them as B02 B03 B04 B08 SCL (rasterio: `dataset.descriptions = (…)`)"
        )
    return tuple(index for index in indexes if index is not None)


def _require_integers(path: Path, dataset: Any) -> None:
    if not set(dataset.dtypes) <= {"uint8", "uint16"}:
        raise InputError(
            f"scene '{path}' holds {dataset.dtypes[0]} values; it needs uint16 digital numbers (reflectance × 10000)"
        )


def _is_cut_off(dataset: Any, size: int) -> bool:
    """Whether the last block of a TIFF lies beyond the end of the file."""
    rows, cols = dataset.block_shapes[-1]
    block = f"{(dataset.width - 1) // cols}_{(dataset.height - 1) // rows}"
    offset, length = (dataset.get_tag_item(f"BLOCK_{key}_{block}", "TIFF", dataset.count) for key in ("OFFSET", "SIZE"))
    return offset is not None and length is not None and int(offset) + int(length) > size


def _overlap(scene: Grid, zone: Grid) -> bool:
    if scene.epsg != zone.epsg:
        return bool(_outline(scene).intersects(_outline(zone)))
    west, south, east, north = scene.bounds
    x_min, y_min, x_max, y_max = zone.bounds
    return west < x_max and x_min < east and south < y_max and y_min < north


@functools.lru_cache(maxsize=100_000)
def _outline(grid: Grid) -> shapely.Polygon:
    """The grid's outline in longitude and latitude; edges bend, so they are followed in 16 steps."""
    x_min, y_min, x_max, y_max = grid.bounds
    ring = shapely.segmentize(shapely.box(x_min, y_min, x_max, y_max), max(x_max - x_min, y_max - y_min) / 16)
    xs, ys = shapely.get_coordinates(ring).T
    return shapely.Polygon(np.column_stack(rasterio.warp.transform(f"EPSG:{grid.epsg}", "EPSG:4326", xs, ys)))


def _require_fit(path: Path, scene: Grid, zone: Grid) -> None:
    try:
        scene.window_of(zone)
    except ValueError as error:
        raise InputError(
            f"scene '{path}' does not fit the zone's grid (EPSG:{zone.epsg}, {zone.resolution_m:g} m, corner "
            f"{zone.x_min:g}, {zone.y_max:g}): {error}; warp the scene to it, or leave it out of 'pattern'"
        ) from None


def _read_window(path: Path, header: _Header, window: Window) -> npt.NDArray[np.uint16]:
    """[5, H, W] uint16: bands, then SCL; 0 where the window reaches beyond the scene."""
    pixels = np.zeros((len(header.indexes), window.height, window.width), np.uint16)
    top, left = max(window.row, 0), max(window.col, 0)
    bottom = min(window.row + window.height, header.grid.height)
    right = min(window.col + window.width, header.grid.width)
    if top < bottom and left < right:
        inside = rasterio.windows.Window(left, top, right - left, bottom - top)
        rows = slice(top - window.row, bottom - window.row)
        cols = slice(left - window.col, right - window.col)
        try:
            with rasterio.Env(**_GDAL_OPTIONS), rasterio.open(path) as dataset:
                pixels[:, rows, cols] = dataset.read(header.indexes, window=inside)
        except rasterio.errors.RasterioError as error:
            raise InputError(f"scene '{path}' cannot be read ({error}); fetch it again or remove it") from None
    return pixels
