"""Which products lie below a folder, packed or not, which broken ones, and what else."""

import datetime as dt
import functools
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Final

from cropray.core.errors import InputError
from cropray.imagery.sources.files.listing import RASTERS, listed_below
from cropray.imagery.sources.safe.settings import REMEDY, SETTING
from cropray.io.raw_files import ZIP_ERRORS, FileState, as_input, is_of_macos, read_bytes, state_of, state_there
from cropray.io.storage import Location

# Source: PSD 14, `MTD_MSIL2A.xml`; PSD 13, `S2A_USER_MTD_SAFL2A_PDMC_….xml`.
_METADATA: Final = re.compile(r"(?:^|_)MTD_(?:MSI|SAF)L2A(?:_.*)?\.xml$")
_IS_L2A: Final = re.compile(r"S2[A-Z]_.*MSIL2A")
_STARTED: Final = re.compile(r"MSIL2A_(?:.*_V)?(\d{8}T\d{6})")
_ENDINGS: Final = re.compile(r"(?:\.SAFE)?(?:\.zip)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Package:
    """A product as it lies there."""

    name: str
    """Of the folder or of the zip, as it is found there."""
    metadata: str
    """Where its own metadata are."""
    members: Mapping[str, str] = field(compare=False, repr=False)
    """Path within the product → where that is: a path, an address, or `/vsizip/{zip}/path`."""
    states: Mapping[str, FileState] = field(compare=False, repr=False)
    """Of those addresses that are known already: of a store's, and of a zip's."""

    def state_of(self, address: str) -> FileState:
        """Of a file of it, or of the zip that it is in; raises as `state_of_member`."""
        return self.states.get(address) or state_of_member(address)


@dataclass(frozen=True, slots=True)
class Broken:
    """What should be a product, by its name, and is none."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies below a folder, in order of the names."""

    packages: tuple[Package, ...]
    broken: tuple[Broken, ...]
    others: tuple[str, ...]
    """Names of other products, of packed files, rasters and parts of downloads."""


def stem_of(name: str) -> str:
    """A product's name without `.SAFE` and `.zip`."""
    return _ENDINGS.sub("", name)


def started_by_name(name: str) -> dt.datetime | None:
    """When a data take began, as the name of its product has it; None: it is not named as ESA names them."""
    match = _STARTED.search(name)
    try:
        return None if match is None else dt.datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
    except ValueError:
        return None


def list_packages(folder: Location) -> Listing:
    """The products below a folder; linked files and folders are followed.

    Raises:
        InputError: the folder or one below it cannot be listed, or it holds no product.
    """
    listed = listed_below(folder)
    files = {inner: str(path) for path, _, inner in listed}
    states = {str(path): state for path, state, _ in listed if state is not None}
    packages, roots = _unpacked(folder, files, states)
    lone = [inner for inner in files if not _is_below(inner, roots)]
    broken, others = _remains(lone)
    for inner in lone:
        if PurePosixPath(inner).suffix.lower() == ".zip":
            found = _zipped(files[inner])
            packages += [each for each in found if isinstance(each, Package)]
            broken += [each for each in found if isinstance(each, Broken)]
            others += [each for each in found if isinstance(each, str)]
    if not packages and not broken:
        seen = f"; it has {', '.join(others[:3])}" if others else ""
        raise InputError(
            f"'{folder}' holds no Sentinel-2 L2A product (a .SAFE folder with MTD_MSIL2A.xml, or a .zip of one){seen}; "
            f"set '{SETTING}' to the folder of the products"
        )
    return Listing(
        tuple(sorted(packages, key=lambda package: (package.name, package.metadata))),
        tuple(sorted(broken, key=lambda each: each.name)),
        tuple(sorted(others)),
    )


def read_member(address: str) -> bytes:
    """A small file of a product.

    Raises:
        InputError: it is not there or cannot be read.
    """
    try:
        if (place := _in_zip(address)) is None:
            return read_bytes(as_input(address), SETTING)
        with zipfile.ZipFile(place[0]) as archive:
            return archive.read(place[1])
    except ZIP_ERRORS as error:
        raise InputError(f"'{address}' cannot be read ({error}); {REMEDY}") from None


def read_ends(address: str, n_bytes: int) -> tuple[bytes, bytes, int] | None:
    """The first bytes of a file of a product, its last two, and its size; None in object storage: each look is a request.

    In a zip the last ones are left empty: to reach them, all of the file would have to be unpacked.

    Raises:
        OSError: it cannot be read.
        BadZipFile: it is damaged.
    """
    if (place := _in_zip(address)) is not None:
        with zipfile.ZipFile(place[0]) as archive, archive.open(place[1]) as file:
            return file.read(n_bytes), b"", archive.getinfo(place[1]).file_size
    path = as_input(address)
    if not isinstance(path, Path):
        return None
    with path.open("rb") as file:
        start, size = file.read(n_bytes), path.stat().st_size
        file.seek(max(size - 2, 0))
        return start, file.read(), size


def state_of_member(address: str) -> FileState:
    """Of the file, or of the zip that it is in.

    Raises:
        InputError: it is not there any more.
    """
    place = _in_zip(address)
    return state_there(as_input(address) if place is None else place[0], SETTING)


def _in_zip(address: str) -> tuple[Path, str] | None:
    """(zip, path in it) of an address in a zip."""
    if not address.startswith("/vsizip/{"):
        return None
    archive, _, inner = address.removeprefix("/vsizip/{").partition("}/")
    return Path(archive), inner


def _unpacked(
    folder: Location, files: Mapping[str, str], states: Mapping[str, FileState]
) -> tuple[list[Package], set[str]]:
    """Products among some files, and their folders (`""` is the folder itself)."""
    roots: dict[str, str] = {}
    for inner in sorted(files, key=lambda inner: inner.count("/")):
        if _METADATA.search(PurePosixPath(inner).name) and not _is_below(inner, roots):
            roots["/".join(inner.split("/")[:-1])] = files[inner]
    members: dict[str, dict[str, str]] = {root: {} for root in roots}
    for inner, address in files.items():
        if (root := _root_of(inner, roots)) is not None:
            members[root][inner.removeprefix(root).lstrip("/")] = address
    packages = [
        Package(root.rpartition("/")[2] or folder.name, metadata, members[root], states)
        for root, metadata in roots.items()
    ]
    return packages, set(roots)


def _is_below(inner: str, roots: Iterable[str]) -> bool:
    return _root_of(inner, roots) is not None


def _root_of(inner: str, roots: Iterable[str]) -> str | None:
    known = roots if isinstance(roots, dict | set) else set(roots)
    parts = inner.split("/")[:-1]
    return next((root for n in range(len(parts) + 1) if (root := "/".join(parts[:n])) in known), None)


def _remains(lone: Iterable[str]) -> tuple[list[Broken], list[str]]:
    """What is in no product: folders that should be one, products of other kinds, and rasters."""
    broken, others = set(), set()
    for inner in lone:
        safe = next((part for part in inner.split("/")[:-1] if part.upper().endswith(".SAFE")), None)
        name = PurePosixPath(inner).name
        if safe is not None and (_IS_L2A.search(safe) or "/GRANULE/L2A_" in inner):
            broken.add(Broken(safe, "it has no MTD_MSIL2A.xml"))
        elif safe is not None:
            others.add(safe)
        elif PurePosixPath(name).suffix.lower() in RASTERS - {".zip"}:
            others.add(name)
    return list(broken), list(others)


def _zipped(address: str) -> list[Package | Broken | str]:
    path = as_input(address)
    if not isinstance(path, Path):
        is_l2a = _IS_L2A.search(path.name) is not None
        return [Broken(path.name, "a zip in object storage is not read: unpack it there") if is_l2a else path.name]
    try:
        found = list(_packages_in(path, state_of(path, SETTING)))
    except ZIP_ERRORS as error:
        found = []
        if _IS_L2A.search(path.name):
            return [Broken(path.name, f"it is cut off, or no zip ({error})")]
    if not found and _IS_L2A.search(path.name):
        return [Broken(path.name, "it has no MTD_MSIL2A.xml")]
    return [*found] or [path.name]


@functools.lru_cache(maxsize=100_000)
def _packages_in(path: Path, state: FileState) -> tuple[Package, ...]:
    with zipfile.ZipFile(path) as archive:
        files = {
            name: f"/vsizip/{{{path}}}/{name}"
            for name in archive.namelist()
            if not name.endswith("/") and not is_of_macos(name)
        }
    packages, _ = _unpacked(path, files, dict.fromkeys(files.values(), state))
    return tuple(packages if len(packages) > 1 else [replace(package, name=path.name) for package in packages])


def members_below(package: Package, folder: str) -> Iterator[tuple[str, str]]:
    """(path within the product, where that is) of what lies below a folder of it."""
    return ((inner, address) for inner, address in package.members.items() if inner.startswith(f"{folder}/"))
