"""GeoTIFFs on a disk or in object storage, of which only what is asked for is fetched.

GDAL reads objects through the same driver, with the same credentials and the same patience, as everything else here does:
it gets a file whose bytes come in chunks. The blocks of a window are fetched at once, before GDAL asks for them one by one.
"""

import contextlib
import io
import itertools
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt
import rasterio
import rasterio.errors
import rasterio.windows
from upath import UPath

from cropray.core.grid import Window
from cropray.io.raw_files import in_words, unreadable
from cropray.io.storage import Location

_CHUNK_BYTES: Final = 16_384
_FIRST_CHUNKS: Final = 2  # the whole directory of most cloud-optimised files
# No listing of a whole folder at each opening: seconds in one of thousands of scenes. In a store not even a look for files
# beside it: each would be a request.
_ON_DISK: Final = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}
_IN_STORE: Final = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}


@contextlib.contextmanager
def open_raster(path: Location, name: str, **options: Any) -> Iterator[Any]:
    """A GeoTIFF, called `name` in messages, as rasterio's dataset, opened with options of its.

    Raises:
        InputError: the store fails.
        RasterioError: it is no readable GeoTIFF.
    """
    with _opened(path, name, **options) as (dataset, _):
        yield dataset


def read_window(path: Location, name: str, indexes: Sequence[int], window: Window) -> npt.NDArray[Any]:
    """[bands, H, W] values of a window that lies in the file; raises as `open_raster`."""
    wanted = rasterio.windows.Window(window.col, window.row, window.width, window.height)
    with _opened(path, name) as (dataset, source):
        if source is not None:
            with in_words(path, name):
                source.fetch(_blocks(dataset, indexes, window))
        values: npt.NDArray[Any] = dataset.read(indexes, window=wanted)
        return values


def is_cut_off(dataset: Any, size: int) -> bool:
    """Whether the last block of a TIFF lies beyond the end of the file."""
    rows, cols = dataset.block_shapes[-1]
    block = f"{(dataset.width - 1) // cols}_{(dataset.height - 1) // rows}"
    offset, length = (dataset.get_tag_item(f"BLOCK_{key}_{block}", "TIFF", dataset.count) for key in ("OFFSET", "SIZE"))
    return offset is not None and length is not None and int(offset) + int(length) > size


@contextlib.contextmanager
def _opened(path: Location, name: str, **options: Any) -> Iterator[tuple[Any, "_Chunks | None"]]:
    """The dataset and, of a file in a store, its bytes."""
    if isinstance(path, Path):
        with rasterio.Env(**_ON_DISK), rasterio.open(path, **options) as dataset:
            yield dataset, None
        return
    with in_words(path, name):
        source = _Chunks(path)
    unique = f"{uuid.uuid4().hex}/{path.name}"  # rasterio tells openers apart by folder, and there are threads

    def open_file(path: str, mode: str = "rb", **_: Any) -> "_ChunkFile":  # noqa: ARG001  as rasterio calls it
        if path not in {unique, "test"}:  # rasterio tries an opener with this name
            raise FileNotFoundError(path)
        return _ChunkFile(source)

    try:
        with rasterio.Env(**_IN_STORE), rasterio.open(unique, opener=open_file, **options) as dataset:
            yield dataset, source
    except rasterio.errors.RasterioError:
        if source.error is None:
            raise
    if source.error is not None:  # GDAL may have taken what it did not get for a file that ends there
        raise unreadable(source.path, name, source.error) from None


def _blocks(dataset: Any, indexes: Sequence[int], window: Window) -> Iterator[tuple[int, int]]:
    """(start, stop) bytes of the blocks of a window; none of what was never written."""
    height, width = dataset.block_shapes[0]
    rows = range(window.row // height, (window.row + window.height - 1) // height + 1)
    cols = range(window.col // width, (window.col + window.width - 1) // width + 1)
    for row, col, index in itertools.product(rows, cols, indexes):
        place = [dataset.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", index) for what in ("OFFSET", "SIZE")]
        if all(place):
            start, size = map(int, place)
            yield start, start + size


class _Chunks:
    """The bytes of an object, fetched in chunks and kept.

    Attributes:
        error: what the store failed with while GDAL read, which cannot pass an exception on.
    """

    def __init__(self, path: UPath) -> None:
        self.path = path
        self.size = int(path.fs.info(path.path)["size"])
        self.error: Exception | None = None
        self._chunks: dict[int, bytes] = {}

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Get what is missing of some (start, stop) ranges: neighbours in one request, all requests at once.

        Raises:
            Exception: what the store's driver raised, after its own attempts.
        """
        wanted: set[int] = set()
        for start, stop in ranges:
            wanted.update(range(start // _CHUNK_BYTES, -(-min(stop, self.size) // _CHUNK_BYTES)))
        missing = sorted(wanted - self._chunks.keys())
        groups = itertools.groupby(enumerate(missing), key=lambda item: item[1] - item[0])
        runs = [[number for _, number in group] for _, group in groups]
        starts = [run[0] * _CHUNK_BYTES for run in runs]
        stops = [min((run[-1] + 1) * _CHUNK_BYTES, self.size) for run in runs]
        parts = self.path.fs.cat_ranges([self.path.path] * len(runs), starts, stops, on_error="raise") if runs else []
        for start, stop, part in zip(starts, stops, parts, strict=True):
            if len(part) != stop - start:
                raise OSError(f"{len(part)} of {stop - start} bytes came")
            for offset in range(0, len(part), _CHUNK_BYTES):
                self._chunks[(start + offset) // _CHUNK_BYTES] = bytes(part[offset : offset + _CHUNK_BYTES])

    def read(self, start: int, size: int) -> bytes:
        """Bytes at a place; fewer at the end of the file, none after an error, which is kept."""
        stop = min(start + size, self.size)
        if self.error is not None or stop <= start:
            return b""
        first, last = start // _CHUNK_BYTES, (stop - 1) // _CHUNK_BYTES
        try:
            n_ahead = 0 if self._chunks else _FIRST_CHUNKS * _CHUNK_BYTES
            self.fetch([(start, max(stop, start + n_ahead))])
        except Exception as error:  # noqa: BLE001  every driver has errors of its own, and GDAL could not pass it on
            self.error = error
            return b""
        joined = b"".join(self._chunks[number] for number in range(first, last + 1))
        return joined[start - first * _CHUNK_BYTES : stop - first * _CHUNK_BYTES]


class _ChunkFile(io.RawIOBase):
    """A place in the bytes of an object, as rasterio wants it: `read`, `seek`, `tell`."""

    def __init__(self, source: _Chunks) -> None:
        super().__init__()
        self._source = source
        self._place = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        part = self._source.read(self._place, self._source.size if size < 0 else size)
        self._place += len(part)
        return part

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._source.size}[whence]
        self._place = origin + offset
        return self._place

    def tell(self) -> int:
        """The place."""
        return self._place
