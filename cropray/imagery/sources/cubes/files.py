"""One file of a ready cube: where it lies, which of its bands are the cube's columns, and its numbers as they are stored."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.errors
from rasterio.enums import MaskFlags

from cropray.core.cube import CubeSpec
from cropray.core.errors import InputError
from cropray.core.grid import Grid, Window
from cropray.core.sensors import LARGEST, NODATA, Band
from cropray.imagery.composites import CUBE_TAG
from cropray.imagery.sources.files.listing import SETTING
from cropray.io.raster_files import is_cut_off, open_raster, read_window
from cropray.io.raw_files import FileState
from cropray.io.storage import Location

N_OBS: Final = "n_obs"
_FEW: Final = 4  # names in a message


@dataclass(frozen=True, slots=True)
class Layer:
    """A band of a file that is a column of the cube."""

    index: int
    """1-based."""
    nodata: float | None
    scale: float
    offset: float
    """A number of the file is the value number · scale + offset."""
    is_stored: bool
    """Whether it holds stored numbers."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself."""

    grid: Grid
    layers: tuple[Layer, ...]
    """Of the cube's columns, or of its steps' counts."""
    n_obs: tuple[Layer, ...] | None
    """Bands of counts beside the cube's columns; None: there are none."""
    unused: tuple[str, ...]
    """Names of bands that are neither."""
    files: tuple[str, ...]
    """All that is read with it: a VRT's sources too."""


def some(names: Sequence[str]) -> str:
    """The first of some names."""
    return ", ".join(names[:_FEW]) + (", …" if len(names) > _FEW else "")


def grid_of(path: Location, there: FileState) -> Grid:
    """Where a file in this state, which is remembered with it, lies.

    Raises:
        InputError: it is no whole raster, or not north up with square pixels of an EPSG system.
    """
    _parts(path)  # GDAL would say in the middle of the work what a VRT lacks
    return _grid_of(path, there)


@functools.lru_cache(maxsize=100_000)
def _grid_of(path: Location, there: FileState) -> Grid:
    try:
        with open_raster(path, SETTING) as dataset:
            if is_cut_off(dataset, there.size):
                raise InputError(f"cube '{path}' is cut off: its last pixels are missing; fetch it again")
            epsg = dataset.crs.to_epsg() if dataset.crs else None
            return Grid.of_transform(epsg or 0, dataset.transform, dataset.shape)
    except rasterio.errors.RasterioError as error:
        raise InputError(f"cube '{path}' is no readable raster ({error}); fetch it again or remove it") from None
    except ValueError as error:
        raise InputError(
            f"cube '{path}' has {error}; it needs an EPSG system and square pixels, north up: warp it "
            f"(`gdalwarp -t_srs EPSG:326xx -tr 10 10 -tap -r near`)"
        ) from None


@functools.lru_cache(maxsize=100_000)
def header_of(path: Location, there: FileState, cube: CubeSpec, named: tuple[str, ...] | None) -> Header:
    """What a file in this state says of itself, for a job's cube; its bands may be `named` instead of described.

    Raises:
        InputError: it lacks bands of the cube, or has them twice or behind a mask.
    """
    grid = _grid_of(path, there)
    with open_raster(path, SETTING) as dataset:
        _require_same_numbers(path, dataset, cube)
        names = _names(path, dataset, cube, named)
        columns = [_column_names(cube, band, step) for band in cube.band_ids for step in cube.step_names]
        layers = tuple(_layer(path, dataset, index) for index in _indexes(path, names, columns))
        counts = [[f"{N_OBS}_{step}"] for step in cube.step_names]
        has_counts = any(name.lower().startswith(f"{N_OBS}_") for name in names)
        n_obs = tuple(_layer(path, dataset, index) for index in _indexes(path, names, counts)) if has_counts else None
        taken = {layer.index for layer in (*layers, *(n_obs or ()))}
        unused = tuple(name for index, name in enumerate(names, start=1) if index not in taken)
        return Header(grid, layers, n_obs, unused, _parts(path))


@functools.lru_cache(maxsize=100_000)
def counts_header_of(path: Location, there: FileState, cube: CubeSpec) -> Header:
    """What a file of counts says of itself; its layers are the cube's steps.

    Raises:
        InputError: it has other bands.
    """
    grid = _grid_of(path, there)
    with open_raster(path, SETTING) as dataset:
        names = [name or "" for name in dataset.descriptions]
        if not any(names) and len(names) == cube.n_steps:
            indexes = tuple(range(1, cube.n_steps + 1))
        else:
            indexes = _indexes(path, names, [[f"{N_OBS}_{step}"] for step in cube.step_names])
        layers = tuple(_layer(path, dataset, index) for index in indexes)
        return Header(grid, layers, None, (), _parts(path))


def read_numbers(path: Location, indexes: Sequence[int], window: Window) -> npt.NDArray[Any]:
    """[bands, H, W] of a window that lies in the file, as they stand there.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return read_window(path, SETTING, indexes, window)
    except rasterio.errors.RasterioError as error:
        raise InputError(f"cube '{path}' cannot be read ({error}); fetch it again or remove it") from None


def read_stored(path: Location, header: Header, grid: Grid, cube: CubeSpec) -> npt.NDArray[np.uint16]:
    """A cube [T, C, H, W] on a grid that lies in the file, as stored numbers; 0 is no data.

    Raises:
        InputError: it cannot be read, or values lie outside of what can be stored.
    """
    numbers = read_numbers(path, [layer.index for layer in header.layers], header.grid.window_of(grid))
    stored = np.empty((cube.n_bands, cube.n_steps, *grid.shape), np.uint16)
    wrong: dict[str, int] = {}
    for position, (layer, column) in enumerate(zip(header.layers, cube.columns, strict=True)):
        band, step = divmod(position, cube.n_steps)
        stored[band, step], n_wrong = _stored(numbers[position], layer, cube.bands[band])
        wrong |= {column: n_wrong} if n_wrong else {}
    if wrong:
        raise InputError(_out_of_range(path, wrong, cube))
    return np.ascontiguousarray(stored.swapaxes(0, 1))


def _stored(numbers: npt.NDArray[Any], layer: Layer, band: Band) -> tuple[npt.NDArray[np.uint16], int]:
    """Stored numbers of a band, and how many of its values have none."""
    is_data = ~np.isnan(numbers)
    if layer.nodata is not None:
        is_data &= numbers != layer.nodata
    if layer.is_stored:
        return np.where(is_data, numbers, NODATA).astype(np.uint16), 0
    values = numbers.astype(np.float64) * layer.scale + layer.offset
    exact = np.where(is_data, np.rint((values - band.offset) / band.scale), 1)
    fits = (exact > NODATA) & (exact <= LARGEST)
    return np.where(is_data & fits, exact, NODATA).astype(np.uint16), int((~fits).sum())


def _out_of_range(path: Location, wrong: Mapping[str, int], cube: CubeSpec) -> str:
    column, n_wrong = next(iter(wrong.items()))
    band = cube.bands[cube.columns.index(column) // cube.n_steps]
    low, high = (band.offset + number * band.scale for number in (1, LARGEST))
    others = f" (and values of {some(list(wrong)[1:])})" if len(wrong) > 1 else ""
    return (
        f"cube '{path}': {n_wrong} values of {column}{others} lie outside of {low:.6g} to {high:.6g} {band.unit}, which is "
        f"all that {band.id} can store in 16 bits; if they are no data, say so (`gdal_edit.py -a_nodata …`), if they are "
        f"numbers of another unit, tag the file (`gdal_edit.py -scale … -offset …`), else clip them or widen the scale and "
        f"offset of the band in 'cube'"
    )


def _require_same_numbers(path: Location, dataset: Any, cube: CubeSpec) -> None:
    """Refuse a composite of a workspace whose cube has other steps, or stores a band otherwise."""
    if (tag := dataset.tags().get(CUBE_TAG)) is None:
        return
    try:
        there = CubeSpec.from_record(json.loads(tag))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"cube '{path}' has a tag {CUBE_TAG} that is none ({error}); make it again") from None
    stored = {band.id: (band.unit, band.scale, band.offset) for band in there.bands}
    others = [b.id for b in cube.bands if stored.get(b.id, (b.unit, b.scale, b.offset)) != (b.unit, b.scale, b.offset)]
    if others or (there.step, there.months) != (cube.step, cube.months):
        raise InputError(
            f"cube '{path}' has {there.months} months in steps of a {there.noun}"
            + (f", and stores {some(others)} by another scale or offset" if others else "")
            + f"; the job's cube has {cube.months} months in steps of a {cube.noun}: mend 'cube'"
        )


def _names(path: Location, dataset: Any, cube: CubeSpec, named: tuple[str, ...] | None) -> list[str]:
    if named is not None:
        if len(named) != dataset.count:
            raise InputError(
                f"cube '{path}' has {dataset.count} bands and 'imagery.bands' names {len(named)}; name each"
            )
        return list(named)
    names = [name or "" for name in dataset.descriptions]
    is_in_order = 1 in cube.shape and dataset.count == cube.n_features
    return list(cube.columns) if is_in_order and not any(names) else names


def _column_names(cube: CubeSpec, band_id: str, step: str) -> list[str]:
    """What a column may be called."""
    return [f"{band_id}_{step}", *([band_id] if cube.n_steps == 1 else [])]


def _indexes(path: Location, names: Sequence[str], wanted: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """1-based band of each wanted name, of which each may have others."""
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names, start=1):
        places.setdefault(name.upper(), []).append(index)
    found = [[index for name in each for index in places.get(name.upper(), ())] for each in wanted]
    missing = [each[0] for each, there in zip(wanted, found, strict=True) if not there]
    twice = [each[0] for each, there in zip(wanted, found, strict=True) if len(there) > 1]
    if missing or twice:
        what = f"lacks {len(missing)} bands of the cube ({some(missing)})" if missing else f"has {some(twice)} twice"
        raise InputError(
            f"cube '{path}' {what}: its {len(names)} bands are described as {some([name or '-' for name in names])}; describe "
            f"them as {wanted[0][0]} … {wanted[-1][0]} (rasterio: `dataset.descriptions = (…)`), name them in "
            f"'imagery.bands', or mend 'cube'"
        )
    return tuple(there[0] for there in found)


def _layer(path: Location, dataset: Any, index: int) -> Layer:
    if MaskFlags.per_dataset in dataset.mask_flag_enums[index - 1]:
        raise InputError(
            f"cube '{path}' has a mask or alpha band; write no data into the hidden pixels instead (`gdalwarp -dstnodata …`)"
        )
    dtype, tags = str(dataset.dtypes[index - 1]), (dataset.scales[index - 1], dataset.offsets[index - 1])
    if np.dtype(dtype).kind not in "iuf":
        raise InputError(f"cube '{path}' holds {dtype}; whole or real numbers are needed")
    return Layer(index, dataset.nodatavals[index - 1], *tags, is_stored=dtype == "uint16" and tags == (1, 0))


def _parts(path: Location) -> tuple[str, ...]:
    """A file, and the files on this disk that a VRT points to, through other VRTs too."""
    return (str(path), *map(str, _sources(path))) if _is_vrt(path) else (str(path),)


def _is_vrt(path: Location) -> bool:
    return path.suffix.lower() == ".vrt"


def _sources(vrt: Location, above: tuple[Path, ...] = ()) -> list[Path]:
    if not isinstance(vrt, Path):
        raise InputError(f"'{vrt}': a VRT in object storage cannot be followed; put it on a disk, or make it one COG")
    try:
        elements = list(ET.parse(vrt).iter("SourceFilename"))  # noqa: S314  expat resolves nothing from outside
    except ET.ParseError as error:
        raise InputError(f"'{vrt}' is no VRT ({error}); make it again (`gdalbuildvrt`)") from None
    names = dict.fromkeys((each.text or "", each.get("relativeToVRT") == "1") for each in elements)
    files = [vrt.parent / name if is_relative else Path(name) for name, is_relative in names]
    files = [file for file in files if not str(file).startswith("/vsi")]
    missing = [str(file) for file in files if not file.exists()]
    if missing:
        raise InputError(
            f"'{vrt}' points to {len(missing)} files that are not there: {some(missing)}; restore them, or make it again"
        )
    if vrt in above:
        raise InputError(f"'{vrt}' points to itself; make it again (`gdalbuildvrt`)")
    inner = [source for file in files if _is_vrt(file) for source in _sources(file, (*above, vrt))]
    return list(dict.fromkeys([*files, *inner]))
