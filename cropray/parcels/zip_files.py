"""Vector files in zip files, as agencies hand out their registers: unpacked once for a process, and removed when it ends.

GDAL could read them in place, but inflates again with every step back: a GeoPackage of 340 MB took 100 s instead of 16.
"""

import atexit
import contextlib
import functools
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from cropray.core.errors import InputError
from cropray.io.raw_files import ZIP_ERRORS, FileState, is_of_macos, state_of
from cropray.io.storage import Location

_TABLES: Final = frozenset({".gpkg", ".shp", ".fgb", ".gml", ".geojson"})


def is_zip(path: Location) -> bool:
    """Whether the name says that a file is a zip file."""
    return path.suffix.lower() == ".zip"


def choose_member(path: Location, layer: str | None) -> str | None:
    """Which file of a zip file on a disk is the register; None: the path is no zip file.

    `layer` is the one file's layer, or where there are several the name of one (`north`), or that and its layer (`north/fields`).

    Raises:
        InputError: the zip file is damaged, or holds no vector file or several.
    """
    if not is_zip(path):
        return None
    assert isinstance(path, Path), f"'{path}' must be fetched first"
    with _in_our_words(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    wanted = (layer or "").partition("/")[0]
    tables = [name for name in names if PurePosixPath(name).suffix.lower() in _TABLES and not is_of_macos(name)]
    stems = [PurePosixPath(name).stem for name in tables]
    chosen = tables if len(tables) == 1 else [name for name, stem in zip(tables, stems, strict=True) if stem == wanted]
    if len(chosen) != 1:
        raise InputError(
            f"parcel file '{path}' holds {len(tables)} vector files; set 'layer' to one of {stems}, with '/' and a layer of "
            f"its own where it has several, or unpack it"
            if tables
            else f"parcel file '{path}' holds no vector file ({', '.join(sorted(_TABLES))}) but {names}; unpack it and "
            f"name the register"
        )
    return chosen[0]


def layer_within(member: str, layer: str | None, layers: Sequence[str]) -> str | None:
    """Which of the layers of a zip file's member a setting means, if any; see `choose_member`."""
    name, _, within = (layer or "").partition("/")
    return (within or None) if name == PurePosixPath(member).stem and layer not in layers else layer


def on_disk(path: Location, member: str | None) -> Path:
    """A vector file on a disk as GDAL can read it: itself, or of a zip file the member that `choose_member` gave, unpacked.

    Raises:
        InputError: the zip file is damaged, or this disk has no room for it.
    """
    assert isinstance(path, Path), f"'{path}' must be fetched first"
    if member is None:
        return path
    with _in_our_words(path):
        return _unpacked(path, PurePosixPath(member), state_of(path, "parcels.path"))


@contextlib.contextmanager
def _in_our_words(path: Path) -> Iterator[None]:
    try:
        yield
    except ZIP_ERRORS as error:
        raise InputError(
            f"parcel file '{path}' cannot be unpacked ({error}); fetch it again, or unpack it and name the register"
        ) from None


@functools.lru_cache(maxsize=8)
def _unpacked(path: Path, table: PurePosixPath, state: FileState) -> Path:
    del state  # a file that changed is unpacked again
    with zipfile.ZipFile(path) as archive:
        names = {name: PurePosixPath(name) for name in archive.namelist()}
        parts = [name for name, one in names.items() if one.parent == table.parent and one.stem == table.stem]
        _require_room(path, sum(archive.getinfo(name).file_size for name in parts))
        folder = tempfile.mkdtemp(prefix="cropray-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        archive.extractall(folder, parts)
    return Path(folder, table)


def _require_room(path: Path, size: int) -> None:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise InputError(
            f"parcel file '{path}' has {size / 1e9:.1f} GB unpacked and '{tempfile.gettempdir()}' {free / 1e9:.1f} GB free; "
            f"set TMPDIR to a larger disk, or unpack it elsewhere and name the register"
        )
