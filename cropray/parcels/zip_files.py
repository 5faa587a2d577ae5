"""Vector files in zip files, as agencies hand out their registers: unpacked once for a process, and removed when it ends.

GDAL could read them in place, but inflates again with every step back: a GeoPackage of 340 MB took 100 s instead of 16.
"""

import atexit
import functools
import shutil
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Final

from cropray.errors import InputError
from cropray.raw_files import ZIP_ERRORS, FileState, is_of_macos, state_of
from cropray.storage import Location

_TABLES: Final = frozenset({".gpkg", ".shp", ".fgb", ".gml", ".geojson"})


def is_zip(path: Location) -> bool:
    """Whether the name says that a file is a zip file."""
    return path.suffix.lower() == ".zip"


def on_disk(path: Location, layer: str | None) -> Path:
    """A vector file as GDAL can read it: itself, or the unpacked one of a zip file.

    Args:
        path: on a disk.
        layer: which one, where a zip file holds several.

    Raises:
        InputError: the zip file is damaged, or holds no vector file or several, or this disk has no room for it.
    """
    assert isinstance(path, Path), f"'{path}' must be fetched first"
    if not is_zip(path):
        return path
    try:
        with zipfile.ZipFile(path) as archive:
            table = _choose(path, archive.namelist(), layer)
        return _unpacked(path, PurePosixPath(table), state_of(path, "parcels.path"))
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


def _choose(path: Path, names: list[str], layer: str | None) -> str:
    tables = [name for name in names if PurePosixPath(name).suffix.lower() in _TABLES and not is_of_macos(name)]
    stems = [PurePosixPath(name).stem for name in tables]
    chosen = tables if len(tables) == 1 else [name for name, stem in zip(tables, stems, strict=True) if stem == layer]
    if len(chosen) != 1:
        raise InputError(
            f"parcel file '{path}' holds {len(tables)} vector files; set 'layer' to one of {stems}, or unpack it"
            if tables
            else f"parcel file '{path}' holds no vector file ({', '.join(sorted(_TABLES))}) but {names}; unpack it and "
            f"name the register"
        )
    return chosen[0]


def _require_room(path: Path, size: int) -> None:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise InputError(
            f"parcel file '{path}' has {size / 1e9:.1f} GB unpacked and '{tempfile.gettempdir()}' {free / 1e9:.1f} GB free; "
            f"set TMPDIR to a larger disk, or unpack it elsewhere and name the register"
        )
