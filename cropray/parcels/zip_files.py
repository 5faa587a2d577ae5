"""Vector files in zip files, as agencies hand out their registers: GDAL reads them in place."""

import zipfile
from pathlib import Path, PurePosixPath
from typing import Final

from cropray.errors import InputError
from cropray.storage import Location

_TABLES: Final = frozenset({".gpkg", ".shp", ".fgb", ".gml", ".geojson"})
_NOT_THE_USERS: Final = "__MACOSX/"  # where macOS keeps files of its own, under the same names


def is_zip(path: Location) -> bool:
    """Whether the name says that a file is a zip file."""
    return path.suffix.lower() == ".zip"


def gdal_name(path: Location, layer: str | None) -> Path | str:
    """What GDAL calls a vector file: its path, or the one that lies in a zip file.

    Args:
        path: on a disk.
        layer: which one, where a zip file holds several.

    Raises:
        InputError: the zip file is damaged, or holds no vector file or several.
    """
    file = on_disk(path)
    if not is_zip(file):
        return file
    try:
        with zipfile.ZipFile(file) as archive:
            names = [PurePosixPath(name) for name in archive.namelist() if not name.startswith(_NOT_THE_USERS)]
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"parcel file '{path}' is no whole zip file ({error}); fetch it again") from None
    tables = [name for name in names if name.suffix.lower() in _TABLES]
    chosen = tables if len(tables) == 1 else [name for name in tables if name.stem == layer]
    if len(chosen) != 1:
        seen = f"{len(tables)} vector files" if tables else f"no vector file ({', '.join(sorted(_TABLES))})"
        raise InputError(
            f"parcel file '{path}' holds {seen} among {[str(name) for name in names]}; "
            + (
                f"set 'layer' to one of {[name.stem for name in tables]}"
                if tables
                else "unpack it and name the register"
            )
        )
    return (
        f"/vsizip/{{{file}}}/{chosen[0]}"  # in braces, for a name that does not end in .zip, or one that holds it twice
    )


def on_disk(path: Location) -> Path:
    """A file that GDAL can read."""
    assert isinstance(path, Path), f"'{path}' must be fetched first"
    return path
