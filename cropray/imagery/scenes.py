"""What a source of Sentinel-2 scenes offers."""

import datetime as dt
import functools
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import rasterio.warp
import shapely

from cropray.core.grid import Grid
from cropray.core.sensors import Band

LONGEST_PASS: Final = dt.timedelta(hours=1)
"""Sensing may begin so far after the start of its data take; the same satellite comes back after 100 minutes."""

_SATELLITE: Final = re.compile(r"(?:^|_)(S2[A-Z])(?=_|$)")

Remarks = Mapping[str, tuple[str, ...]]
"""What a person should know of scenes that are not used, or not as they lie there: remark → their names."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One file or asset of one acquisition."""

    scene_id: str
    acquired: dt.datetime
    """Start of sensing, UTC. Scenes of one instant are parts of one acquisition."""
    href: str
    """Where the source finds it: a path, a URL, an asset id."""
    assets: tuple[tuple[str, str], ...] = ()
    """(band id, where it is) of each band and of SCL, for a source that keeps every band in a file of its own."""
    offset: int = 0
    """Digital numbers to add to the bands, so that reflectance is number / 10000 in every scene."""
    offsets: tuple[int, ...] = ()
    """The same of each band, from a source that knows it of each; in the order of the bands that it reads."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a source has of a place and a time."""

    scenes: tuple[Scene, ...]
    """In time order; of one instant, the part whose pixels count comes first."""
    left_out: Remarks = field(default_factory=dict)
    """Ids of scenes that this place does not use; another may."""
    remarks: Remarks = field(default_factory=dict)
    """Of what is used, but not as it lies there."""


def one_instant_per_pass(scenes: Sequence[Scene]) -> tuple[Scene, ...]:
    """The scenes of one pass of a satellite with one instant, its first; in time order.

    Some products are named by their data take's start, some by their own tile's, which is seconds or minutes later:
    parts of one acquisition that overlap would count twice.
    """
    starts: dict[str, dt.datetime] = {}
    found = []
    for scene in sorted(scenes, key=lambda scene: scene.acquired):
        match = _SATELLITE.search(scene.scene_id)
        satellite = match[1] if match else ""
        if satellite not in starts or scene.acquired - starts[satellite] > LONGEST_PASS:
            starts[satellite] = scene.acquired
        found.append(replace(scene, acquired=starts[satellite]))
    return tuple(sorted(found, key=lambda scene: scene.acquired))


def older_doubles(scenes: Sequence[Scene], place_of: Callable[[Scene], Hashable]) -> list[Scene]:
    """Scenes of an instant and a place of which a newer processing came before."""
    seen, older = set(), []
    for scene in scenes:
        key = scene.acquired, place_of(scene)
        if key in seen:
            older.append(scene)
        seen.add(key)
    return older


def overlap(scene: Grid, zone: Grid) -> bool:
    """Whether two grids, of any systems, share ground."""
    if scene.epsg != zone.epsg:
        return bool(_outline(scene).intersects(_outline(zone)))
    west, south, east, north = scene.bounds
    x_min, y_min, x_max, y_max = zone.bounds
    return west < x_max and x_min < east and south < y_max and y_min < north


@functools.lru_cache(maxsize=100_000)
def _outline(grid: Grid) -> shapely.Polygon:
    """The grid's outline in longitude and latitude; edges bend, so they are followed in 16 steps."""
    x_min, y_min, x_max, y_max = grid.bounds
    ring = shapely.segmentize(shapely.box(x_min, y_min, x_max, y_max), max(x_max - x_min, y_max - y_min) / 16)
    xs, ys = shapely.get_coordinates(ring).T
    return shapely.Polygon(np.column_stack(rasterio.warp.transform(f"EPSG:{grid.epsg}", "EPSG:4326", xs, ys)))


class SceneSource(Protocol):
    """Where scenes come from. Picklable: it is sent to the workers, and opens files there."""

    @property
    def bands(self) -> tuple[Band, ...]:
        """What `read` gives, in this order: those of the job's cube."""
        ...

    @property
    def scenes_at_once(self) -> int:
        """How many scenes of a zone are best read at the same time, each in a thread of its own."""
        ...

    def survey(self, grid: Grid, start: dt.date, end: dt.date) -> Found:
        """Scenes that reach into the grid, acquired in [start, end), and what was left out or merged on the way.

        Raises:
            InputError: the source cannot be read, or a scene does not fit the grid.
        """
        ...

    def never_used(self, scenes: Sequence[Scene]) -> Remarks:
        """What lies at the source besides these scenes, which are all that any zone uses.

        Raises:
            InputError: the source cannot be read.
        """
        ...

    def read(self, scene: Scene, grid: Grid) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
        """Digital numbers [C, H, W] of `bands`, and scene classes [H, W], on the grid.

        Both are 0 outside the scene, and the class is 0 wherever a band has no data.

        Raises:
            InputError: the scene cannot be read.
        """
        ...

    def fingerprint(self, scenes: Sequence[Scene]) -> str:
        """Identity of scenes that `survey` gave: it changes whenever `read` could give other pixels.

        Raises:
            InputError: a scene is not there any more.
        """
        ...
