"""Scenes from any STAC API, without an account: Earth Search, Planetary Computer, or one's own.

Only the windows that a zone needs are read from the cloud-optimised files, over range requests.

Whether a file holds ESA's offset (`cropray.imagery.offsets`) depends on its catalogue and, for products processed again,
not on its date:

1. an item of an earlier baseline has no offset;
2. one whose catalogue says that the offset is gone (`earthsearch:boa_offset_applied`) is taken at its word;
3. one of a baseline that is none of ESA's (99.99) has what its `raster:bands` say, and is refused where they do not;
4. any other has it, unless its own pixels show that it is gone (`offsets.offset_is_gone`; of 101 real scenes with it, none
   does). Earth Search denies it of some items where it is: to subtract 1000 again would make half of the land black. So
   where it is gone nothing is subtracted, and a warning names the item.
"""

import datetime as dt
import functools
import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import rasterio.warp

from cropray.core.cube import STUDY_CUBE
from cropray.core.errors import InputError
from cropray.core.fingerprint import fingerprint
from cropray.core.grid import Grid
from cropray.core.redaction import redact
from cropray.core.sensors import Band
from cropray.imagery.offsets import offset_is_gone, shift, visible
from cropray.imagery.scenes import LONGEST_PASS, Found, Remarks, Scene, one_instant_per_pass
from cropray.imagery.sources.stac.doors import require_door
from cropray.imagery.sources.stac.items import ItemScene, newest_versions, understand
from cropray.imagery.sources.stac.read import read_band, signed
from cropray.imagery.sources.stac.settings import EXCLUDED, SCL, StacSettings
from cropray.io.retry import RetryPolicy

if TYPE_CHECKING:
    from cropray.imagery.sources.stac.search import Answer

_ANSWERS_AGE_S: Final = 3600  # a search is not repeated within this time
_FIRST_WAIT_S: Final = 1.0  # upper end of the random wait before the second attempt

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StacScenes:
    """A `SceneSource` over a STAC API."""

    settings: StacSettings
    bands: tuple[Band, ...] = STUDY_CUBE.bands

    @property
    def scenes_at_once(self) -> int:
        """So many that the threads have work, each scene in its files."""
        return max(1, self.settings.read_threads // (len(self.bands) + 1))

    def find(self, grid: Grid, start: dt.date, end: dt.date) -> tuple[Scene, ...]:
        """The scenes of `survey`, for scripts."""
        return self.survey(grid, start, end).scenes

    def survey(self, grid: Grid, start: dt.date, end: dt.date) -> Found:
        """See `SceneSource.survey`: the last processing of each; the API is asked once an hour at most.

        Tiles of another UTM system than the grid's are left out; where all are, that is refused.
        """
        return _find(self, grid, start, end, int(time.monotonic() // _ANSWERS_AGE_S))

    def read(self, scene: Scene, grid: Grid) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
        """See `SceneSource.read`. Classes and bands of 20 m are repeated (nearest neighbour).

        Bands are without ESA's offset; a number that would fall to 0 or below becomes 1: 0 is no data.
        """
        bands = np.empty((len(self.bands), *grid.shape), np.uint16)
        scl = np.empty(grid.shape, np.uint8)
        places = dict(zip((*(band.id for band in self.bands), SCL), (*bands, scl), strict=True))
        policy, timeout_s = _policy(self.settings), self.settings.timeout_s

        # Signed one after the other: the first asks for the signature, the others find it.
        try:
            assets = [(band, signed(href, self.settings.sign)) for band, href in scene.assets]
        except OSError as error:  # of the service, which was asked more than once
            raise InputError(
                f"item {scene.href}: '{self.settings.sign}' gives out no signature ({redact(str(error))}); run the stage again later"
            ) from None

        def read(asset: tuple[str, str]) -> None:
            band, href = asset
            read_band(href, grid, places[band], policy, timeout_s)

        try:
            list(_pool(self.settings.read_threads).map(read, assets))
        except InputError as error:
            raise InputError(
                f"item {scene.href}: {error}; run the stage again later, or put the item's id into 'exclude'"
            ) from None
        offset = scene.offset
        if self.settings.offset == "auto" and offset and offset_is_gone(bands[visible(self.bands)], scl):
            _log.warning("%s: its pixels hold no offset although its metadata say so; none is subtracted", scene.href)
            offset = 0
        shift(bands, scl, offset)
        return bands, scl

    def never_used(self, scenes: Sequence[Scene]) -> Remarks:  # noqa: ARG002  as every source has it
        """Nothing: a catalogue is asked for what the zones need, and for no more."""
        return {}

    def fingerprint(self, scenes: Sequence[Scene]) -> str:
        """Identity of the products, and of what is done to their numbers."""
        products = [(scene.scene_id, scene.acquired.isoformat(), scene.assets, scene.offset) for scene in scenes]
        return fingerprint([products, self.settings.offset])


@functools.cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    """Threads that live as long as the process: in a new one GDAL and PROJ take milliseconds to set themselves up."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="read")


@functools.lru_cache(maxsize=10_000)
def _find(source: StacScenes, grid: Grid, start: dt.date, end: dt.date, hour: int) -> Found:  # noqa: ARG001  the hour is part of the key
    from cropray.imagery.sources.stac.search import search_items  # noqa: PLC0415  its client loads for half a second

    settings, band_ids = source.settings, [band.id for band in source.bands]
    bbox = rasterio.warp.transform_bounds(f"EPSG:{grid.epsg}", "EPSG:4326", *grid.bounds)
    first, last = (dt.datetime.combine(day, dt.time(), dt.UTC) for day in (start, end))
    span = first - LONGEST_PASS, last + LONGEST_PASS
    place = settings.url, settings.collection
    found = search_items(place, bbox, span, _policy(settings), settings.timeout_s)
    answer = found.items
    names = settings.assets.model_dump() if settings.assets else None
    offset = None if settings.offset == "auto" else settings.offset
    wanted = [item for item in answer if item["id"] not in settings.exclude]
    items = [understand(item, names, offset, band_ids) for item in wanted]
    items = [item for item in items if first <= item.scene.acquired < last]
    _require_system(items, grid)
    here = [item for item in items if _reaches_into(item, grid)]
    newest = newest_versions(here)
    clear = [item for item in newest if item.cloud_cover <= settings.max_cloud_cover]
    remarks = {
        "searches of which the catalogue lists fewer items than it counts": _searched(found, bbox),
        EXCLUDED: [str(item["id"]) for item in answer if item["id"] in settings.exclude],
        "items of another UTM system than the zone's": _ids(item for item in items if item.epsg != grid.epsg),
        "items that are older versions of others": _ids(item for item in here if item not in newest),
        "items with more clouds than 'max_cloud_cover'": _ids(item for item in newest if item not in clear),
    }
    scenes = one_instant_per_pass([item.scene for item in clear])
    for scene in scenes:
        _require_doors(scene, settings.url)
    return Found(scenes, {remark: tuple(ids) for remark, ids in remarks.items() if ids})


def _require_doors(scene: Scene, catalogue: str) -> None:
    for band, href in scene.assets:
        try:
            require_door(href, catalogue)
        except InputError as error:
            raise InputError(f"item {scene.href}, {band}: {error}; put the item's id into 'exclude'") from None


def _searched(answer: "Answer", bbox: tuple[float, ...]) -> list[str]:
    place = " ".join(f"{degrees:.3f}" for degrees in bbox)
    return [f"{len(answer.items)} of {answer.n_matched} at {place}"] if answer.n_missing else []


def _ids(items: Iterable[ItemScene]) -> list[str]:
    return [item.scene.scene_id for item in items]


def _require_system(items: Sequence[ItemScene], grid: Grid) -> None:
    systems = {item.epsg for item in items}
    if systems and grid.epsg not in systems:
        raise InputError(
            f"the {len(items)} items over {', '.join(f'{x:.0f}' for x in grid.bounds)} (EPSG:{grid.epsg}) are all in "
            f"{', '.join(f'EPSG:{epsg}' for epsg in sorted(systems))}; lay the zone in that system"
        )


def _reaches_into(item: ItemScene, grid: Grid) -> bool:
    if item.epsg != grid.epsg or item.outline is None:
        return item.epsg == grid.epsg
    west, south, east, north = item.outline.bounds
    x_min, y_min, x_max, y_max = grid.bounds
    return west < x_max and x_min < east and south < y_max and y_min < north


def _policy(settings: StacSettings) -> RetryPolicy:
    return RetryPolicy(settings.max_attempts, _FIRST_WAIT_S, settings.max_wait_s)
