"""A source of scenes over ESA's products."""

import datetime as dt
import functools
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.core.cube import STUDY_CUBE
from cropray.core.errors import InputError
from cropray.core.fingerprint import fingerprint
from cropray.core.grid import Grid, in_full
from cropray.core.sensors import Band
from cropray.imagery.offsets import offset_is_gone, shift, visible
from cropray.imagery.scenes import (
    LONGEST_PASS,
    Found,
    Remarks,
    Scene,
    older_doubles,
    one_instant_per_pass,
    overlap,
)
from cropray.imagery.sources.safe.images import SCL, image_addresses, read_image, require_image
from cropray.imagery.sources.safe.metadata import RESOLUTION_M, Product, Tile, read_product, read_tile
from cropray.imagery.sources.safe.packages import (
    Listing,
    Package,
    list_packages,
    read_member,
    started_by_name,
    state_of_member,
    stem_of,
)
from cropray.imagery.sources.safe.settings import REMEDY, SETTING, SafeSettings
from cropray.io.raw_files import FileState, states_below

# `MTD_TL.xml`; of PSD 13 `S2A_USER_MTD_L2A_TL_….xml`, beside which its report may lie.
_TILE_METADATA: Final = re.compile(r"(?:MTD_TL|S2[A-Z]_[^/]*_MTD_L2A_TL_[^/]*(?<!_Report))\.xml$")
_OLDER: Final = "products of the same tile and instant as a newer one, read only where that has no data"
_STORE_READERS: Final = 8  # products of a store that are read at a time: they mostly wait for the network


@dataclass(frozen=True, slots=True)
class _Part:
    """One tile of a product."""

    package: Package
    granule: str
    """Path of its folder within the product."""
    product: Product
    tile: Tile
    is_alone: bool
    """Whether the product has no other tile."""


@dataclass(frozen=True, slots=True)
class SafeScenes:
    """A `SceneSource` over `.SAFE` folders and zips of them."""

    settings: SafeSettings
    bands: tuple[Band, ...] = STUDY_CUBE.bands
    """What is read of each product."""

    @property
    def scenes_at_once(self) -> int:
        """One from a disk, which the zones side by side keep busy; several from a store."""
        return self._n_readers

    def survey(self, grid: Grid, start: dt.date, end: dt.date) -> Found:
        """See `SceneSource.survey`; of several products of one tile and instant the last processing comes first."""
        listing = self._listing()
        for broken in listing.broken:
            if _may_be_of(broken.name, start, end):
                raise InputError(f"product '{broken.name}' cannot be used: {broken.reason}; {REMEDY}")
        packages = [package for package in listing.packages if _may_be_of(package.name, start, end)]
        with ThreadPoolExecutor(self._n_readers, thread_name_prefix="metadata") as pool:
            parts = [part for of_one in pool.map(_parts, packages) for part in of_one]
        here = []
        for part in parts:
            if start <= part.product.started.date() < end and overlap(part.tile.grid, grid):
                _require_fit(part.package.name, part.tile.grid, grid)
                here.append(part)
        here.sort(key=lambda part: part.product.version, reverse=True)
        here.sort(key=lambda part: part.tile.mgrs_tile)
        parts_of = {(scene := self._scene(part)).href: (scene, part) for part in here}
        scenes = one_instant_per_pass([scene for scene, _ in parts_of.values()])
        older = older_doubles(scenes, lambda scene: parts_of[scene.href][1].tile.grid)
        names = tuple(parts_of[scene.href][1].package.name for scene in older)
        return Found(scenes, remarks={_OLDER: names} if names else {})

    def never_used(self, scenes: Sequence[Scene]) -> Remarks:
        """See `SceneSource.never_used`: products, what is none, and what is left out."""
        listing = list_packages(self.settings.folder)
        names = [package.name for package in listing.packages] + [broken.name for broken in listing.broken]
        used = {scene.href.partition("GRANULE/")[0] for scene in scenes}
        excluded = [name for name in names if self._is_excluded(name)]
        idle = [
            package.name for package in listing.packages if package.name not in excluded and _root(package) not in used
        ]
        unheard = [each for each in self.settings.exclude if not any(_is_named(each, name) for name in names)]
        remarks = {
            "products that no zone needs in its season": tuple(idle),
            "products named by 'exclude'": tuple(excluded),
            "names of 'exclude' that no product has": tuple(unheard),
            "what should be a product and cannot be used": tuple(
                f"{broken.name} ({broken.reason})" for broken in listing.broken if broken.name not in excluded
            ),
            "what is no Sentinel-2 L2A product": listing.others,
        }
        return {remark: names for remark, names in remarks.items() if names}

    def read(self, scene: Scene, grid: Grid) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
        """See `SceneSource.read`; the bands are without ESA's offset: what would fall to 0 or below becomes 1, 0 is no data."""
        bands = np.empty((len(self.bands), *grid.shape), np.uint16)
        scl = np.empty(grid.shape, np.uint8)
        places = {band.id: place for band, place in zip(self.bands, bands, strict=True)} | {SCL: scl}
        for band_id, address in scene.assets:
            read_image(address, grid, places[band_id], scene.scene_id)
        if any(scene.offsets) and offset_is_gone(bands[visible(self.bands)], scl):
            raise InputError(
                f"product '{scene.scene_id}': its metadata say that ESA's offset is in its numbers, and its land is so dark "
                f"that it cannot be; {REMEDY}"
            )
        for band, offset in zip(bands[:, None], scene.offsets, strict=True):
            shift(band, scl, offset)
        return bands, scl

    def fingerprint(self, scenes: Sequence[Scene]) -> str:
        """See `SceneSource.fingerprint`: names, sizes and times of change of the images, or what a store says instead.

        What is done to their numbers is part of it.
        """
        folder = self.settings.folder
        listed = {} if isinstance(folder, Path) else {str(p): s for p, s in states_below(folder, SETTING).items()}
        states = {
            address: listed.get(address) or state_of_member(address) for scene in scenes for _, address in scene.assets
        }
        images = [[address, state.size, state.stamp] for address, state in sorted(states.items())]
        return fingerprint([[[scene.acquired.isoformat(), scene.assets, scene.offsets] for scene in scenes], images])

    @property
    def _n_readers(self) -> int:
        return 1 if isinstance(self.settings.folder, Path) else _STORE_READERS

    def _listing(self) -> Listing:
        """Without what is excluded."""
        listing = list_packages(self.settings.folder)
        return Listing(
            tuple(package for package in listing.packages if not self._is_excluded(package.name)),
            tuple(broken for broken in listing.broken if not self._is_excluded(broken.name)),
            listing.others,
        )

    def _is_excluded(self, name: str) -> bool:
        return any(_is_named(each, name) for each in self.settings.exclude)

    def _scene(self, part: _Part) -> Scene:
        product, name = part.product, part.package.name
        assets = image_addresses(part.package, part.granule, self.bands)
        for _, address in assets:
            if isinstance(self.settings.folder, Path):  # in a store each look at one of its thousands takes requests
                require_image(address, part.package.state_of(address), part.tile.grid, name)
        scene_id = product.name if part.is_alone else f"{product.name}_T{part.tile.mgrs_tile or part.granule[8:]}"
        offsets = tuple(product.offset_of(band.id) for band in self.bands)
        return Scene(scene_id, product.started, f"{_root(part.package)}{part.granule}", assets, offsets=offsets)


def _parts(package: Package) -> list[_Part]:
    """The tiles of a product."""
    granules: dict[str, str | None] = {}
    for inner, address in package.members.items():
        above, _, name = inner.rpartition("/")
        if inner.startswith("GRANULE/") and above != "GRANULE":
            granules.setdefault("/".join(above.split("/")[:2]), None)
            if above.count("/") == 1 and _TILE_METADATA.match(name):
                granules[above] = address
    product = _product(package.metadata, package.state_of(package.metadata), package.name)
    parts = []
    for granule in sorted(granules):
        if (metadata := granules[granule]) is None:
            raise InputError(f"product '{package.name}' has no {granule}/MTD_TL.xml; {REMEDY}")
        tile = _tile(metadata, package.state_of(metadata), package.name, product)
        parts.append(_Part(package, granule, product, tile, is_alone=len(granules) == 1))
    if not parts:
        raise InputError(f"product '{package.name}' has no tile below GRANULE; {REMEDY}")
    return parts


@functools.lru_cache(maxsize=100_000)
def _product(address: str, state: FileState, name: str) -> Product:  # noqa: ARG001  the state is part of the key
    return read_product(read_member(address), name)


@functools.lru_cache(maxsize=100_000)
def _tile(address: str, state: FileState, name: str, product: Product) -> Tile:  # noqa: ARG001  as above
    return read_tile(read_member(address), name, product)


def _root(package: Package) -> str:
    """What the addresses of all that is in a product begin with: its metadata stand at its top."""
    return f"{package.metadata.rpartition('/')[0]}/"


def _may_be_of(name: str, start: dt.date, end: dt.date) -> bool:
    """Whether a product may be of [start, end), by its name."""
    named = started_by_name(name)
    return named is None or (start <= (named + LONGEST_PASS).date() and (named - LONGEST_PASS).date() < end)


def _is_named(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(stem_of(name), stem_of(pattern))


def _require_fit(name: str, tile: Grid, zone: Grid) -> None:
    try:
        tile.window_of(zone)
    except ValueError as error:
        raise InputError(
            f"product '{name}' does not fit the zone's grid (EPSG:{zone.epsg}, {in_full(zone.resolution_m)} m, corner "
            f"{in_full(zone.x_min)}, {in_full(zone.y_max)}): {error}; name it in 'imagery.exclude', or lay the zone in "
            f"EPSG:{tile.epsg} at {RESOLUTION_M:g} m"
        ) from None
