"""Tiles in a scratch file, read back a few at a time: a worker's own memory does not grow with its dataset.

Arrays that are mapped, from a file or from Ray's object store, count as the memory of the process that touches them.
What is read from a file lands in the caller's array alone; the kernel keeps as much of the file as there is room for.

Needs numpy only.
"""

import errno
import os
import tempfile
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from cropray.core.errors import ConfigError


class TileFile:
    """A file without a name on the local disk (`TMPDIR`): it is gone with its process, however that ends."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="cropray-")  # noqa: SIM115 - closed by `__exit__`
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Give the disk back; rows cannot be read any more."""
        self._file.close()

    def append(self, array: npt.NDArray[Any]) -> "FileRows":
        """Write an array [N, …] behind what is there.

        Raises:
            ConfigError: the disk is full.
        """
        rows = FileRows(self, self._end, array.shape, array.dtype)
        try:
            self._file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
            self._file.flush()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise ConfigError(
                f"'{tempfile.gettempdir()}' is full: the tiles of a fit do not fit beside what is there "
                f"({self._end / 1e9:.3g} GB are written); set TMPDIR to a folder on a larger disk, or take fewer zones"
            ) from None
        self._end += array.nbytes
        return rows

    def read(self, target: npt.NDArray[Any], offset: int) -> None:
        """Fill a contiguous array with the bytes from `offset` on."""
        left = target.data.cast("B")
        while left:
            n = os.preadv(self._file.fileno(), [left], offset)
            if n == 0:
                raise EOFError(f"the scratch file of tiles ends at byte {offset}")
            left, offset = left[n:], offset + n


@dataclass(frozen=True, slots=True)
class FileRows:
    """An array [N, …] in a file; what is indexed is read."""

    file: TileFile
    offset: int
    """Of its first byte."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice) -> npt.NDArray[Any]:
        """One row, negative: counted from the end; or consecutive rows."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            shape: tuple[int, ...] = (max(stop - start, 0), *self.shape[1:])
        else:
            start, shape = range(len(self))[rows], self.shape[1:]
        target = np.empty(shape, self.dtype)
        if target.size:
            row_bytes = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
            self.file.read(target, self.offset + start * row_bytes)
        return target


@dataclass(frozen=True, slots=True)
class FileBlock:
    """All tiles of one zone, in a file."""

    x: FileRows
    """[N, T, C, H, W] uint16."""
    labels: FileRows
    """[N, H, W] uint8."""
