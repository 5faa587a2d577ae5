"""Where artefacts lie: a folder on a disk, or a prefix in object storage (`s3://…`, `gs://…`, `az://…`).

Both kinds are asked alike (`/`, `exists`, `glob`, `read_text`, `open`). What differs between them stands here: libraries
that need a file on a disk get one (`local_file`), and a file or folder that is written appears whole or not at all.

An object appears whole by itself. A folder of objects does not: its readers look for one file that is written last.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.fs
from pydantic import PlainSerializer, PlainValidator
from upath import UPath

from cropray.core.addresses import refuse_secrets
from cropray.core.fingerprint import fingerprint

Location: TypeAlias = Path | UPath

# A listing that is remembered hides what other processes have written since.
_OPTIONS: Final[dict[str, Any]] = {"use_listings_cache": False}
# Each of s3fs's own 5 attempts has so many of botocore's: half a minute in all, which a burst of SlowDown takes.
_S3_OPTIONS: Final[dict[str, Any]] = {"config_kwargs": {"retries": {"mode": "standard", "max_attempts": 5}}}
_PROTOCOLS: Final = {"s3": _S3_OPTIONS, "gs": {}, "az": {}, "abfs": {}}
_EXTRAS: Final = {"s3": "s3", "gs": "gs", "az": "az", "abfs": "az"}


def as_location(value: object) -> Location:
    """An absolute path, or a prefix in object storage.

    Raises:
        ValueError: the protocol is none of these, or the address holds a secret or names no bucket.
    """
    text = str(value)
    protocol, separator, rest = text.partition("://")
    if isinstance(value, Path) or not separator:
        return Path(text).expanduser().absolute()
    refuse_secrets(text)
    if protocol not in _PROTOCOLS:
        raise ValueError(
            f"'{protocol}://' is not known; a location is a path or one of {sorted(_PROTOCOLS)}://bucket/…"
        )
    if not rest.strip("/") or ".." in rest.split("/"):
        raise ValueError(f"'{text}' names no bucket, or leaves it by '..'; write {protocol}://bucket/prefix")
    location: UPath = UPath(text.rstrip("/"), **_OPTIONS, **_PROTOCOLS[protocol])
    return location


LocationSetting = Annotated[Location, PlainValidator(as_location), PlainSerializer(str, return_type=str)]
"""A location in a settings record; written as text."""


def require_driver(location: Location) -> None:
    """Load what speaks the location's protocol.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    if isinstance(location, Path):
        return
    try:
        location.fs  # noqa: B018  loads the driver
    except ImportError as error:
        extra = _EXTRAS[location.protocol]
        raise ImportError(f"{error}; install it: pip install 'cropray[{extra}]'") from None


@contextlib.contextmanager
def whole_file(path: Location) -> Iterator[Path]:
    """A temporary path on a disk; its file takes the place of `path` when the block ends well, and is removed otherwise."""
    if not isinstance(path, Path):
        with tempfile.TemporaryDirectory(prefix="cropray-") as scratch:
            yield (temporary := Path(scratch, path.name))
            path.fs.put_file(str(temporary), path.path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Location, last: str | None = None) -> Iterator[Path]:
    """A temporary folder on a disk; it replaces `path` when the block ends well, and is removed otherwise.

    `last` is the file that its readers look for first. In object storage it goes before anything else changes and comes
    after everything else; None: no reader opens the folder before a record elsewhere names it.
    """
    if not isinstance(path, Path):
        with tempfile.TemporaryDirectory(prefix="cropray-") as scratch:
            yield Path(scratch)
            _replace_objects(path, Path(scratch), last)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    old = temporary.with_name(f"{temporary.name}.old")  # moved aside first: deleting in place would show half a folder
    temporary.mkdir()
    try:
        yield temporary
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, old)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _replace_objects(path: UPath, folder: Path, last: str | None) -> None:
    if last is not None:
        remove(path / last)
    remove(path)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in sorted(files, key=lambda file: file == folder / (last or "")):
        path.fs.put_file(str(file), (path / file.relative_to(folder).as_posix()).path)


@contextlib.contextmanager
def local_file(path: Location) -> Iterator[Path]:
    """The file as a path on a disk: itself, or a copy for the time of the block.

    Raises:
        FileNotFoundError: there is none.
    """
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="cropray-") as scratch:
        copy = Path(scratch, path.name)
        path.fs.get_file(path.path, str(copy))
        yield copy


@contextlib.contextmanager
def local_folder(path: Location) -> Iterator[Path]:
    """The folder as a path on a disk: itself, or a copy for the time of the block."""
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="cropray-") as scratch:
        for file in files_below(path):
            copy = Path(scratch, relative(file, path))
            copy.parent.mkdir(parents=True, exist_ok=True)
            path.fs.get_file((path / relative(file, path)).path, str(copy))
        yield Path(scratch)


def files_below(path: Location) -> list[Location]:
    """All files below a folder, in order of their names; none where there is no folder."""
    if isinstance(path, Path):
        return sorted(file for file in path.rglob("*") if file.is_file())
    found = path.fs.find(path.path)
    return [path / file.removeprefix(path.path).lstrip("/") for file in sorted(found)]


def relative(file: Location, folder: Location) -> str:
    """The path of a file within a folder, with `/`."""
    return file.as_posix().removeprefix(folder.as_posix()).lstrip("/")


def remove(path: Location) -> None:
    """Remove a file or folder, if it is there."""
    if not isinstance(path, Path):
        for file in path.fs.find(path.path):  # `rm` would take brackets and stars in names for patterns
            with contextlib.suppress(FileNotFoundError):
                path.fs.rm_file(file)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def size_of(path: Location) -> int:
    """Bytes of a file, or of all files below a folder; 0 where there is neither."""
    if not isinstance(path, Path):
        with contextlib.suppress(FileNotFoundError):
            return int(path.fs.du(path.path))
        return 0
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def free_bytes(folder: Location) -> float:
    """Room below a folder; object storage has no end."""
    return shutil.disk_usage(folder).free if isinstance(folder, Path) else math.inf


@contextlib.contextmanager
def scratch_folder(parent: Location, prefix: str) -> Iterator[Location]:
    """A folder that all processes of the job can reach; it is removed with all that is in it when the block ends."""
    folder = parent / f".{prefix}-{uuid.uuid4().hex}"
    if isinstance(folder, Path):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove(folder)


def arrow_path(path: Location) -> tuple[Any, str]:
    """(file system, path) as pyarrow and the libraries above it take them."""
    if isinstance(path, Path):
        return pyarrow.fs.LocalFileSystem(), str(path)
    return pyarrow.fs.PyFileSystem(_RangeHandler(path.fs)), path.path


class _RangeHandler(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """Fetches the ranges that Arrow asks for; drivers would add megabytes to each, in case the reader went on there."""

    def open_input_file(self, path: str) -> pa.PythonFile:
        """Random access."""
        return pa.PythonFile(self.fs.open(path, mode="rb", cache_type="none"), mode="r")


def append_line(path: Location, line: str) -> None:
    """Add a line to a text file that one process writes. An object cannot grow: it is written anew."""
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        return
    before = ""
    with contextlib.suppress(FileNotFoundError):
        before = path.read_text(encoding="utf-8")
    write_text(path, f"{before}{line}\n")


def copy_file(path: Location, target: Path) -> None:
    """Copy a file to a path on a disk."""
    with local_file(path) as source:
        shutil.copyfile(source, target)


def write_text(path: Location, text: str) -> None:
    """Write a text file whole, UTF-8."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Location, value: object) -> None:
    """Write a JSON file whole."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def file_hash(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(path: Location) -> str:
    """SHA-256 over the names and bytes of all files below a folder."""
    with local_folder(path) as folder:
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        return fingerprint([[relative(file, folder), file_hash(file)] for file in files])


def content_id(path: Location) -> str | None:
    """Identity of a file's content: its SHA-256 on a disk, in object storage the store's checksum; None: no file.

    Terabytes are not fetched only to find that nothing changed.
    """
    if isinstance(path, Path):
        return file_hash(path) if path.is_file() else None
    try:
        info = path.fs.info(path.path)
    except FileNotFoundError:
        return None
    return checksum(path, info)


def checksum(path: UPath, info: Mapping[str, Any]) -> str:
    """What a store's listing (`info`) tells of a file's content: its checksum; where there is none, size and time."""
    keys = ("ETag", "etag", "md5Hash", "content_md5")
    return str(next((info[key] for key in keys if info.get(key)), None) or path.fs.ukey(info["name"]))
