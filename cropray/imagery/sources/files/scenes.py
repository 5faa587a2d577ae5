"""Scenes from files, on a disk or in object storage: one GeoTIFF per scene with the cube's bands and SCL.

A file name must hold the start of sensing as `YYYYMMDDTHHMMSS` (as ESA's product names do). Bands are found by their
descriptions, in any order, `B2` or `B02`. Files must lie in the UTM system of the zones that they cover, with their
pixels in line with the zones'. Of objects in a store only headers and windows are fetched: tiled files (COG) are best.

Whether numbers hold ESA's offset is said by the setting, else by a file's scale and offset tags or the processing
baseline in its name, which must not contradict each other; a scene of before the offset has none; any other is refused.
"""

import datetime as dt
import functools
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.errors
from pydantic import Field
from rasterio.enums import MaskFlags

from cropray.core.cube import STUDY_CUBE
from cropray.core.errors import InputError
from cropray.core.fingerprint import fingerprint
from cropray.core.grid import Grid, Window, in_full
from cropray.core.sensors import NODATA, SATURATED, Band
from cropray.imagery.offsets import FIRST_DAY_WITH_OFFSET, LEAST_OFFSET, offset_is_gone, offset_of_scale, shift, visible
from cropray.imagery.registry import SOURCES, SceneSettings
from cropray.imagery.scenes import Found, Remarks, Scene, older_doubles, one_instant_per_pass, overlap
from cropray.imagery.sources.files.listing import SETTING, Listing, list_scenes
from cropray.imagery.sources.files.names import FileName, offset_of_file, says_nothing_of_offset, understand_name
from cropray.io.raster_files import is_cut_off, open_raster, read_window
from cropray.io.raw_files import FileState, InputSetting, as_input, state_there, states_below
from cropray.io.storage import Location

_SCL: Final = "SCL"
_STORE_READERS: Final = 8  # files of a store that are read at a time: they mostly wait for the network
_OLDER: Final = "files of the same tile and instant as a newer one, read only where that has no data"


@SOURCES.register("files")
class FilesSettings(SceneSettings):
    """Where the scene files are."""

    source: Literal["files"] = "files"
    """Scenes are files."""
    folder: InputSetting
    """Folder of the scene files, on a disk or in object storage (`s3://…`, `gs://…`, `az://…`)."""
    pattern: str = "**/*.tif"
    """Which files below the folder are scenes; `**` stands for any number of folders, `.tif` for `.tiff` and `.TIF` too."""
    offset: Literal["auto"] | Annotated[int, Field(ge=LEAST_OFFSET, le=0)] = "auto"
    """Digital numbers to add to the bands of every scene; auto: ESA's offset of 1000 is taken out where a file's scale and
    offset tags or the processing baseline in its name say that it is there."""

    def scenes(self, bands: Sequence[Band]) -> "FileScenes":
        """See `SceneSettings.scenes`."""
        return FileScenes(self, tuple(bands))


@dataclass(frozen=True, slots=True)
class FileScenes:
    """A `SceneSource` over files."""

    settings: FilesSettings
    bands: tuple[Band, ...] = STUDY_CUBE.bands

    @property
    def scenes_at_once(self) -> int:
        """One from a disk, which the zones side by side keep busy; several from a store."""
        return self._n_readers

    def survey(self, grid: Grid, start: dt.date, end: dt.date) -> Found:
        """See `SceneSource.survey`; of several files of one tile and instant the last processing comes first."""
        names = [(name, state) for name, state in self._named() if start <= name.acquired.date() < end]
        here = []
        for (name, _), header in zip(names, self._headers(names), strict=True):
            if overlap(header.grid, grid):
                _require_fit(name.path, header.grid, grid)
                here.append((name, header))
        here.sort(key=lambda file: file[0].version, reverse=True)
        here.sort(key=lambda file: file[0].mgrs_tile)
        scenes = one_instant_per_pass([self._scene(name, header) for name, header in here])
        places = {str(name.path): (header.grid.epsg, *map(round, header.grid.bounds)) for name, header in here}
        older = tuple(Path(scene.href).name for scene in older_doubles(scenes, lambda scene: places[scene.href]))
        remarks = {_OLDER: older} if older else {}
        return Found(scenes, remarks={**remarks, **self._taken_as_plain(here)})

    def never_used(self, scenes: Sequence[Scene]) -> Remarks:
        """See `SceneSource.never_used`."""
        listing, used = self._listing(), {scene.href for scene in scenes}
        unused = tuple(path.name for path, _ in listing.scenes if str(path) not in used)
        unmatched = tuple(path.name for path in listing.unmatched)
        remarks = {
            "files that no zone needs in its season": unused,
            f"files left out by the pattern '{self.settings.pattern}'": unmatched,
        }
        return {remark: names for remark, names in remarks.items() if names}

    def read(self, scene: Scene, grid: Grid) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
        """See `SceneSource.read`."""
        path = as_input(scene.href)
        header = _header(path, state_there(path, SETTING), self.bands)
        _require_fit(path, header.grid, grid)
        pixels = _read_window(path, header, header.grid.window_of(grid))
        bands, classes = pixels[:-1], pixels[-1]
        bands[(bands == header.nodata) | (bands == SATURATED)] = NODATA
        scl = np.minimum(classes, np.iinfo(np.uint8).max).astype(np.uint8)
        if self.settings.offset == "auto" and scene.offset and offset_is_gone(bands[visible(self.bands)], scl):
            raise InputError(
                f"scene '{path}': its name or tags say that an offset of {-scene.offset} is in its numbers, and its "
                f"land is so dark that it cannot be; set 'imagery.offset' to 0 if it was taken out, or mend the file"
            )
        shift(bands, scl, scene.offset)
        return bands, scl

    def fingerprint(self, scenes: Sequence[Scene]) -> str:
        """See `SceneSource.fingerprint`: names, sizes and times of change, or what a store says instead, and offsets.

        Gigabytes are not read to find nothing new.
        """
        folder = self.settings.folder
        listed = {} if isinstance(folder, Path) else {str(p): s for p, s in states_below(folder, SETTING).items()}
        states = [listed.get(scene.href) or state_there(as_input(scene.href), SETTING) for scene in scenes]
        pairs = zip(scenes, states, strict=True)
        return fingerprint([[scene.href, scene.offset, state.size, state.stamp] for scene, state in pairs])

    @property
    def _n_readers(self) -> int:
        return 1 if isinstance(self.settings.folder, Path) else _STORE_READERS

    def _listing(self) -> Listing:
        return list_scenes(self.settings.folder, self.settings.pattern)

    def _named(self) -> list[tuple[FileName, FileState | None]]:
        folder = self.settings.folder
        return [(understand_name(path, folder), state) for path, state in self._listing().scenes]

    def _headers(self, files: Sequence[tuple[FileName, FileState | None]]) -> list["_Header"]:
        """The headers of some files; each is read once in a process."""
        with ThreadPoolExecutor(self._n_readers, thread_name_prefix="header") as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # refused in our words
            return list(
                pool.map(
                    lambda file: _header(file[0].path, file[1] or state_there(file[0].path, SETTING), self.bands), files
                )
            )

    def _taken_as_plain(self, files: Sequence[tuple[FileName, "_Header"]]) -> Remarks:
        """Files of before ESA's offset: processed again, they hold it, and nothing in them might say so."""
        is_guessed = self.settings.offset == "auto"
        names = [name.path.name for name, header in files if is_guessed and says_nothing_of_offset(name, header.offset)]
        remark = f"files of before {FIRST_DAY_WITH_OFFSET} that say nothing of ESA's offset, taken to be without it"
        return {remark: tuple(names)} if names else {}

    def _scene(self, name: FileName, header: "_Header") -> Scene:
        offset = self.settings.offset
        offset = offset_of_file(name, header.offset) if offset == "auto" else offset
        return Scene(name.path.stem, name.acquired, str(name.path), offset=offset)


@dataclass(frozen=True, slots=True)
class _Header:
    """What a scene file says of itself."""

    grid: Grid
    indexes: tuple[int, ...]
    """1-based file bands of the wanted ones, then SCL."""
    nodata: float | None
    offset: int | None
    """Digital numbers to add to the bands, as their scale and offset tags say; None: there are none."""


@functools.lru_cache(maxsize=100_000)
def _header(path: Location, state: FileState, bands: tuple[Band, ...]) -> _Header:
    try:
        with open_raster(path, SETTING) as dataset:
            if is_cut_off(dataset, state.size):
                raise InputError(f"scene '{path}' is cut off: its last pixels are missing; fetch it again")
            indexes = _indexes_of(path, dataset, bands)
            _require_integers(path, dataset, indexes, bands)
            _require_no_mask(path, dataset, indexes)
            return _Header(_grid_of(path, dataset), indexes, dataset.nodata, _tagged_offset(path, dataset, indexes))
    except rasterio.errors.RasterioError as error:
        raise InputError(f"scene '{path}' is no readable GeoTIFF ({error}); fetch it again or remove it") from None


def _grid_of(path: Location, dataset: Any) -> Grid:
    if dataset.crs is None:
        raise InputError(
            f"scene '{path}' has no coordinate system; assign its UTM zone (`gdal_edit.py -a_srs EPSG:326xx`)"
        )
    epsg = _epsg_of(dataset.crs.to_wkt())
    try:
        return Grid.of_transform(epsg or 0, dataset.transform, dataset.shape)
    except ValueError as error:
        raise InputError(
            f"scene '{path}' is in '{epsg or dataset.crs}' with {error}; it needs an EPSG system and square pixels, "
            f"north up: warp it (`gdalwarp -t_srs EPSG:326xx -tr 10 10 -tap`)"
        ) from None


@functools.lru_cache(maxsize=1000)
def _epsg_of(wkt: str) -> int | None:
    epsg: int | None = rasterio.CRS.from_wkt(wkt).to_epsg()
    return epsg


def _indexes_of(path: Location, dataset: Any, bands: Sequence[Band]) -> tuple[int, ...]:
    described = [str(name).upper() for name in dataset.descriptions]
    found = {name: index for index, name in enumerate(described, start=1)}
    wanted = [_spellings(band) for band in bands] + [(_SCL,)]
    indexes = [next((found[name] for name in names if name in found), None) for names in wanted]
    missing = [names[0] for names, index in zip(wanted, indexes, strict=True) if index is None]
    if missing:
        raise InputError(
            f"scene '{path}' lacks {missing}: its bands are described as {list(dataset.descriptions)}; "
            f"describe them as {' '.join(names[0] for names in wanted)} (rasterio: `dataset.descriptions = (…)`)"
        )
    several = [names[0] for names in wanted if sum(described.count(name) for name in set(names)) > 1]
    if several:
        raise InputError(
            f"scene '{path}' has {several} more than once: its bands are described as {list(dataset.descriptions)}; write "
            f"each date into a file of its own, and describe other bands otherwise"
        )
    return tuple(index for index in indexes if index is not None)


def _spellings(band: Band) -> tuple[str, ...]:
    """As descriptions of bands may have it, in capitals."""
    return tuple(name.upper() for name in (band.id, band.earth_engine_id) if name)


def _require_integers(path: Location, dataset: Any, indexes: Sequence[int], bands: Sequence[Band]) -> None:
    types = [str(dataset.dtypes[index - 1]) for index in indexes]
    if set(types[:-1]) != {"uint16"} or types[-1] not in {"uint8", "uint16"}:
        raise InputError(
            f"scene '{path}' holds {', '.join(types)} in {', '.join((*(band.id for band in bands), _SCL))}; the bands must be uint16 digital numbers "
            f"(reflectance × 10000), SCL uint8 or uint16: convert it (`gdal_translate -ot UInt16`, with `-scale` where it "
            f"is another unit)"
        )


def _require_no_mask(path: Location, dataset: Any, indexes: Sequence[int]) -> None:
    """Refuse pixels that are hidden by a mask of their own: what stands beneath it would count."""
    flags = {flag for index in indexes for flag in dataset.mask_flag_enums[index - 1]}
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        raise InputError(
            f"scene '{path}' has a mask band; write 0 into the hidden pixels instead (`gdalwarp -dstnodata 0`, or "
            f"`gdal_translate -mask none -a_nodata 0` where they are 0 already)"
        )


def _tagged_offset(path: Location, dataset: Any, indexes: Sequence[int]) -> int | None:
    tags = {(dataset.scales[index - 1], dataset.offsets[index - 1]) for index in indexes[:-1]}
    try:
        offsets = {offset_of_scale(*tag) for tag in tags}
    except ValueError as error:
        raise InputError(f"scene '{path}' has bands of {error}; convert its numbers, or mend the tags") from None
    if len(offsets) > 1:
        raise InputError(
            f"scene '{path}' has bands with different scale and offset tags, {sorted(tags)}; mend the tags "
            f"(`gdal_edit.py -scale 0.0001 -offset 0`, or -0.1)"
        )
    return offsets.pop()


def _require_fit(path: Location, scene: Grid, zone: Grid) -> None:
    try:
        scene.window_of(zone)
    except ValueError as error:
        raise InputError(
            f"scene '{path}' does not fit the zone's grid (EPSG:{zone.epsg}, {in_full(zone.resolution_m)} m, corner "
            f"{in_full(zone.x_min)}, {in_full(zone.y_max)}): {error}; warp the scene to it, or leave it out of 'pattern'"
        ) from None


def _read_window(path: Location, header: _Header, window: Window) -> npt.NDArray[np.uint16]:
    """[C + 1, H, W] uint16: bands, then SCL; 0 where the window reaches beyond the scene."""
    pixels = np.zeros((len(header.indexes), window.height, window.width), np.uint16)
    top, left = max(window.row, 0), max(window.col, 0)
    bottom = min(window.row + window.height, header.grid.height)
    right = min(window.col + window.width, header.grid.width)
    if top < bottom and left < right:
        inside = Window(top, left, bottom - top, right - left)
        rows = slice(top - window.row, bottom - window.row)
        cols = slice(left - window.col, right - window.col)
        try:
            pixels[:, rows, cols] = read_window(path, SETTING, header.indexes, inside)
        except rasterio.errors.RasterioError as error:
            raise InputError(f"scene '{path}' cannot be read ({error}); fetch it again or remove it") from None
    return pixels
