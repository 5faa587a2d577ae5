"""The JPEG 2000 files of a product: which there are, whether they are whole, and their pixels on a zone's grid."""

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy.typing as npt
import rasterio
import rasterio.errors

from cropray.core.errors import InputError
from cropray.core.grid import Grid
from cropray.core.sensors import Band
from cropray.imagery.sources.safe.metadata import RESOLUTION_M
from cropray.imagery.sources.safe.packages import Package, members_below, read_ends
from cropray.imagery.sources.safe.settings import REMEDY, SETTING
from cropray.imagery.sources.stac.read import read_on_grid
from cropray.io.raster_files import open_raster
from cropray.io.raw_files import ZIP_ERRORS, FileState, as_input, is_of_macos

SCL: Final = "SCL"
_SCL_RESOLUTION_M: Final = 20  # m; the finest that ESA ships
_START_BYTES: Final = 65_536  # what stands before the codestream takes a few thousand
_CODESTREAM: Final = b"jp2c"
_END_OF_CODESTREAM: Final = b"\xff\xd9"


def image_addresses(package: Package, granule: str, bands: Sequence[Band]) -> tuple[tuple[str, str], ...]:
    """(band id, where its image is) of the bands and of SCL, each at its own resolution, of a tile's folder in a product.

    Raises:
        InputError: images are missing; all are named.
    """
    images = {inner: at for inner, at in members_below(package, f"{granule}/IMG_DATA") if not is_of_macos(inner)}
    wanted = [(band.id, round(band.resolution_m or RESOLUTION_M)) for band in bands] + [(SCL, _SCL_RESOLUTION_M)]
    found, missing = [], []
    for band_id, resolution_m in wanted:
        # `T31UFS_…_B02_10m.jp2`, `L2A_T31UFS_…_SCL_20m.jp2`, `S2A_USER_SCL_L2A_TL_…_20m_T31UFS.jp2`
        name = re.compile(rf"(?:^|_){band_id}_(?:.*_)?{resolution_m}m(?:_T\w+)?\.jp2$", re.IGNORECASE)
        match = next((address for inner, address in images.items() if name.search(inner.rpartition("/")[2])), None)
        found += [] if match is None else [(band_id, match)]
        missing += [f"{band_id} at {resolution_m} m"] if match is None else []
    if missing:
        raise InputError(f"product '{package.name}' lacks {', '.join(missing)}; {REMEDY}")
    return tuple(found)


@functools.lru_cache(maxsize=100_000)
def require_image(address: str, state: FileState, tile: Grid, name: str) -> None:  # noqa: ARG001  the state is part of the key
    """Raises: InputError: an image, which is named, is cut off, no JPEG 2000 of one band, or elsewhere than its tile."""
    what = f"product '{name}': its '{address.rpartition('/')[2]}'"
    try:
        ends = read_ends(address, _START_BYTES)
        if ends is not None and _is_cut_off(*ends):
            raise InputError(f"{what} is cut off, or no JPEG 2000; {REMEDY}")
        with open_raster(as_input(address), SETTING) as dataset:
            _require_place(dataset, tile, what)
    except (rasterio.errors.RasterioError, *ZIP_ERRORS) as error:
        raise InputError(f"{what} is no readable JPEG 2000 ({error}); {REMEDY}") from None


def read_image(address: str, grid: Grid, out: npt.NDArray[Any], name: str) -> None:
    """An image on a grid; of 20 m, each pixel becomes 2 × 2. Messages call the product by its name.

    `out`, [H, W] uint16 for a band, uint8 for scene classes, is filled; 0 outside the image and for SATURATED.

    Raises:
        InputError: it cannot be read or does not fit the grid.
    """
    what = f"product '{name}': its '{address.rpartition('/')[2]}'"
    try:
        with open_raster(as_input(address), SETTING) as dataset:
            read_on_grid(dataset, grid, out)
    except (rasterio.errors.RasterioError, OSError) as error:
        raise InputError(f"{what} cannot be read ({error}); {REMEDY}") from None
    except ValueError as error:
        raise InputError(f"{what} does not fit the zone's grid: {error}; {REMEDY}") from None


def _require_place(dataset: Any, tile: Grid, what: str) -> None:
    epsg = dataset.crs.to_epsg() if dataset.crs else None
    step = max(1, round(tile.width / dataset.width))
    shape = tile.height // step, tile.width // step
    coarse = Grid(tile.epsg, tile.x_min, tile.y_max, *shape, tile.resolution_m * step)
    if not coarse.is_of(epsg, dataset.transform, dataset.shape):
        raise InputError(
            f"{what} has {dataset.shape} pixels within {tuple(dataset.bounds)} of EPSG:{epsg or 0}, its tile {shape} "
            f"within {coarse.bounds} of EPSG:{tile.epsg} by MTD_TL.xml; {REMEDY}"
        )
    if dataset.count != 1 or dataset.dtypes[0] not in {"uint8", "uint16"}:
        raise InputError(
            f"{what} has {dataset.count} bands of {dataset.dtypes[0]}, one of whole numbers is needed; {REMEDY}"
        )


def _is_cut_off(start: bytes, end: bytes, size: int) -> bool:
    """Whether a JPEG 2000 file of so many bytes ends before its codestream does, by its first and its last two bytes.

    Where the last ones are not known, they are empty. Source: ISO/IEC 15444-1, Annex I.
    """
    boxes = dict(_boxes(start, size))
    stop = boxes.get(_CODESTREAM, size + 1)
    return stop > size or (stop == size and end not in {b"", _END_OF_CODESTREAM})


def _boxes(start: bytes, size: int) -> Iterator[tuple[bytes, int]]:
    """(kind, where it ends) of the boxes, the codestream last; a length of 0 means the end of the file."""
    place = 0
    while place + 16 <= len(start):
        length, kind = int.from_bytes(start[place : place + 4]), start[place + 4 : place + 8]
        if length == 1:
            length = int.from_bytes(start[place + 8 : place + 16])
        end = place + length if length else size
        yield kind, end
        if kind == _CODESTREAM or end <= place:
            return
        place = end
