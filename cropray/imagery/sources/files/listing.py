"""Which files of a folder, on a disk or in object storage, are scenes by its pattern, and which are left out."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fsspec.utils import glob_translate
from upath import UPath

from cropray.core.errors import InputError
from cropray.io.raw_files import FileState, is_there, states_below
from cropray.io.storage import Location

SETTING: Final = "imagery.folder"

_TIFF: Final = re.compile(r"\.tiff?$", re.IGNORECASE)
# Rasters, what they are packed in, and downloads that did not end.
RASTERS: Final = frozenset(
    {
        ".tif", ".gtiff", ".geotiff", ".jp2", ".j2k", ".vrt", ".img", ".nc", ".h5", ".he5", ".hdf", ".zarr", ".dat",
        ".bil", ".bip", ".bsq", ".zip", ".safe", ".tar", ".tgz", ".gz", ".7z", ".part", ".crdownload", ".tmp",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listing:
    """The files below a folder, in order of their paths."""

    scenes: tuple[tuple[Location, FileState | None], ...]
    """What the pattern matches; the state is None where it was not asked yet."""
    unmatched: tuple[Location, ...]
    """Other rasters, packed ones and parts of ones: the pattern leaves them out."""


def list_scenes(folder: Location, pattern: str) -> Listing:
    """The files below a folder that match a pattern; linked files and folders are followed.

    `.tif` in the pattern stands for `.tiff`, `.TIF` and `.TIFF` as well.

    Raises:
        InputError: the folder or one below it cannot be listed, or nothing matches.
    """
    files = listed_below(folder)
    matches = fitting(pattern, [inner for _, _, inner in files], "imagery.pattern")
    scenes = [(path, state) for (path, state, _), is_scene in zip(files, matches, strict=True) if is_scene]
    others = [path for (path, _, _), is_scene in zip(files, matches, strict=True) if not is_scene]
    rasters = [path for path in others if Path(_plain(path.name)).suffix.lower() in RASTERS]
    if not scenes:
        seen = f"; it has {', '.join(path.name for path in rasters[:3])}" if rasters else ""
        raise InputError(
            f"scene folder '{folder}' has no file that matches '{pattern}'{seen}; mend 'folder' or 'pattern'"
        )
    return Listing(tuple(scenes), tuple(rasters))


def listed_below(folder: Location) -> list[tuple[Location, FileState | None, str]]:
    """(path, state, path within the folder) of every file; the state is None where it was not asked yet.

    Raises:
        InputError: the folder or one below it cannot be listed.
    """
    return list(_on_disk(folder)) if isinstance(folder, Path) else list(_objects(folder))


def fitting(pattern: str, inner: Sequence[str], setting: str) -> list[bool]:
    """Whether each of some paths within the folder matches a pattern; see `list_scenes`.

    Raises:
        InputError: the pattern is none.
    """
    try:
        fits = re.compile(glob_translate(_plain(pattern)))
    except ValueError as error:
        raise InputError(f"'{setting}' cannot be used: {error}") from None
    return [fits.match(_plain(path)) is not None for path in inner]


def _plain(name: str) -> str:
    return _TIFF.sub(".tif", name)


def _on_disk(folder: Path) -> Iterator[tuple[Location, FileState | None, str]]:
    """Path, no state, and path within the folder; each real folder once, however often it is linked."""
    if not folder.is_dir():
        raise InputError(f"scene folder '{folder}' does not exist; set 'folder' to the folder of the scene files")
    seen, found = set(), []
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        folders.sort()
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place, name) for name in names]
    for path in sorted(found):
        if path.is_file() or path.is_symlink():  # a link that leads nowhere is refused when it is read
            yield path, None, path.relative_to(folder).as_posix()


def _refuse(error: OSError) -> None:
    raise InputError(
        f"folder '{error.filename}' cannot be listed ({error.strerror}); what lies there would be missing: "
        f"make it readable, or move it out of 'folder'"
    )


def _objects(folder: UPath) -> Iterator[tuple[Location, FileState | None, str]]:
    states = states_below(folder, SETTING)
    if not states and not is_there(folder, SETTING):
        raise InputError(f"scene folder '{folder}' does not exist; set 'folder' to the folder of the scene files")
    prefix = len(folder.path.rstrip("/")) + 1
    for path, state in states.items():
        yield path, state, path.path[prefix:]
