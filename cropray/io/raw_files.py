"""Raw inputs: scenes, parcels, points, tables and the job file, on a disk or in object storage (`s3://…`, `gs://…`, `az://…`).

They are many gigabytes and belong to somebody else. So they are only read, as little of them as is needed, and known by
what the disk or the store says of them, not by their bytes. A path on a disk stays as it was written: relative ones start
at the current folder of whichever process reads them.
"""

import contextlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import pyarrow as pa
from pydantic import PlainSerializer, PlainValidator
from upath import UPath

from cropray.core.addresses import refuse_secrets
from cropray.core.errors import CroprayError, InputError
from cropray.core.fingerprint import fingerprint
from cropray.io.storage import Location, as_location, checksum, require_driver

ZIP_ERRORS: Final = (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError)
"""What reading a zip file raises that is damaged, encrypted, or packed by an unknown method."""
_SHAPEFILE: Final = ".shp"
# Where each store's driver looks for what it needs.
_ACCESS: Final = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or ~/.aws), AWS_ENDPOINT_URL for a store other than Amazon's",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (or `gcloud auth application-default login`)",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_CONNECTION_STRING)",
}


def is_of_macos(name: str) -> bool:
    """Whether macOS has laid a file beside others, whose names it bears: `__MACOSX/a.gpkg`, `._a.gpkg`."""
    parts = name.split("/")
    return "__MACOSX" in parts or parts[-1].startswith("._")


def as_input(value: object) -> Location:
    """A path as it was written, or an address in object storage.

    Raises:
        ValueError: it is neither, or the address cannot be one.
    """
    if isinstance(value, UPath):
        refuse_secrets(str(value))
        return value
    if not isinstance(value, str | os.PathLike):
        raise ValueError("it must be a path, or an address like s3://bucket/name")  # noqa: TRY004  pydantic's refusal
    return as_location(value) if "://" in str(value) else Path(value)


InputSetting = Annotated[Location, PlainValidator(as_input), PlainSerializer(str, return_type=str)]
"""A raw input in a settings record; written as text."""


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells one content of a file from another without reading it."""

    size: int
    """Bytes."""
    stamp: int | str
    """Time of the last change in ns; in object storage the store's checksum."""


@contextlib.contextmanager
def in_words(path: Location, name: str) -> Iterator[None]:
    """Errors of a store, which are of many kinds, as one that says what to do; a disk's stay as they are.

    Messages call what is read by its name, mostly the setting's.

    Raises:
        InputError: the driver is not installed, or the store refuses, fails or cannot be reached.
    """
    try:
        require_driver(path)
        yield
    except (CroprayError, pa.ArrowException):  # damage in a file that came
        raise
    except Exception as error:
        if isinstance(path, Path):
            raise
        raise unreadable(path, name, error) from None


def unreadable(path: UPath, name: str, error: BaseException) -> InputError:
    """What a store's error means, in words."""
    if isinstance(error, ImportError):
        return InputError(f"{name} '{path}': {error}")
    reason = str(error).partition("\n")[0].strip() or type(error).__name__
    access = _ACCESS["az" if path.protocol == "abfs" else path.protocol]
    return InputError(
        f"{name} '{path}' cannot be read ({reason}); check the address, that you may read there, and {access}"
    )


def is_there(path: Location, name: str) -> bool:
    """Whether there is such a file or folder.

    Raises:
        InputError: it cannot be known, see `in_words`, or there is no such bucket.
    """
    with in_words(path, name):
        if path.exists():
            return True
        if isinstance(path, Path):
            return False
        bucket = path.path.split("/")[0]
        if not path.fs.exists(bucket):
            raise InputError(
                f"{name} '{path}': there is no bucket '{bucket}', or none that you may see; mend the address"
            )
        return False


def state_of(path: Location, name: str) -> FileState:
    """Size and stamp of a file.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be known, see `in_words`.
    """
    if isinstance(path, Path):
        status = path.stat()
        return FileState(status.st_size, status.st_mtime_ns)
    with in_words(path, name):
        try:
            info = path.fs.info(path.path)
        except FileNotFoundError:
            info = None
    if info is None or info["type"] == "directory":
        raise FileNotFoundError(f"there is no '{path}'")
    return FileState(int(info["size"]), checksum(path, info))


def read_bytes(path: Location, name: str) -> bytes:
    """A small file; raises as `state_of`."""
    if not is_there(path, name):
        raise FileNotFoundError(f"there is no '{path}'")
    with in_words(path, name):
        return bytes(path.read_bytes())


def state_there(path: Location, name: str) -> FileState:
    """The state of a file that was listed.

    Raises:
        InputError: it is not there any more, or its store cannot be asked.
    """
    try:
        return state_of(path, name)
    except OSError as error:
        raise InputError(f"{name}: '{path}' cannot be read ({error.strerror or error}); restore it") from None


def states_below(folder: UPath, name: str) -> dict[UPath, FileState]:
    """Every file below a folder of objects, by one listing, in order of the names; none where there is no folder.

    Raises:
        InputError: it cannot be listed, see `in_words`.
    """
    found: dict[str, dict[str, Any]] = {}
    with in_words(folder, name), contextlib.suppress(FileNotFoundError):
        found = folder.fs.find(folder.path, detail=True)
    return {
        folder / file.removeprefix(folder.path).lstrip("/"): FileState(int(info["size"]), checksum(folder, info))
        for file, info in sorted(found.items())
    }


def source_fingerprint(files: Sequence[Location], name: str = "input") -> str:
    """Identity of raw input files: name, size and time of change, or what the store says; raises as `state_of`."""
    states = [(str(file), state_of(file, name)) for file in sorted(files, key=str)]
    return fingerprint([[file, state.size, state.stamp] for file, state in states])


def parts_of(path: Location) -> list[Location]:
    """All files of a vector table: a shapefile keeps its attributes and its index beside it."""
    if path.suffix.lower() != _SHAPEFILE:
        return [path]
    return [file for file in path.parent.iterdir() if file.name.startswith(f"{path.stem}.")]


@contextlib.contextmanager
def local_table(path: Location, name: str) -> Iterator[Path]:
    """A vector table as one on a disk: itself, or a copy for the time of the block.

    Raises:
        FileNotFoundError: there is none.
        InputError: it cannot be read, or this disk has no room for it.
    """
    if isinstance(path, Path):
        yield path
        return
    if not is_there(path, name):
        raise FileNotFoundError(f"there is no '{path}'")
    with tempfile.TemporaryDirectory(prefix="cropray-") as scratch:
        with in_words(path, name):
            parts = parts_of(path)
            size = sum(state_of(part, name).size for part in parts)
            free = shutil.disk_usage(scratch).free
            if size > free:
                raise InputError(
                    f"{name} '{path}' has {size / 1e9:.1f} GB and '{tempfile.gettempdir()}' {free / 1e9:.1f} GB free: it "
                    f"is fetched to be read; set TMPDIR to a larger disk, or make it GeoParquet with a bounding-box column"
                )
            for part in parts:
                path.fs.get_file((path.parent / part.name).path, str(Path(scratch, part.name)))
        yield Path(scratch, path.name)
