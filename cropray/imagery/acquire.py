"""From scenes to one zone's composite: read step by step, take medians, fill gaps, write."""

import contextlib
import datetime as dt
import itertools
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cropray.core.cube import STUDY_CUBE, CubeSpec, Season
from cropray.core.errors import InputError
from cropray.core.grid import Grid
from cropray.core.sensors import SCL_NODATA
from cropray.imagery.composite import MAX_SCENES, monthly_median
from cropray.imagery.composites import write_composite, write_n_obs
from cropray.imagery.gapfill import fill_gaps
from cropray.imagery.scenes import Found, Remarks, Scene, SceneSource
from cropray.io.storage import write_json
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone

_N_NAMED: Final = 3  # names in a line
_UNFINISHED: Final = re.compile(r"\.(?P<zone>.+?)(?:\.nobs)?\.[0-9a-f]{32}\.\w+")  # as `whole_file` names them


@dataclass(frozen=True, slots=True)
class ZoneAcquisition:
    """What one zone's composite was made from."""

    zone_id: str
    season_start: str
    """First month, `YYYY-MM`."""
    n_pixels: int
    n_scenes: tuple[int, ...]
    """Acquisitions that reach into the zone, per step."""
    n_clear: tuple[int, ...]
    """Pixels with at least one clear observation, per step."""
    n_never_clear: int
    """Pixels without a clear observation in any step: they stay no data."""
    cube: CubeSpec = STUDY_CUBE
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What was found of scenes when their pixels were read."""
    is_filled: bool = True
    """Whether what was not observed was filled from other months; only ready cubes may be left as they are."""

    @property
    def share_clear(self) -> float:
        """Share of the steps of all pixels that were observed."""
        return sum(self.n_clear) / (self.n_pixels * self.cube.n_steps)

    @property
    def n_filled(self) -> int:
        """Steps of pixels that were filled from other steps."""
        if not self.is_filled:
            return 0
        return (self.n_pixels - self.n_never_clear) * self.cube.n_steps - sum(self.n_clear)

    def to_record(self) -> dict[str, Any]:
        """A JSON-able record, with the derived numbers."""
        return {**asdict(self), "share_clear": self.share_clear, "n_filled": self.n_filled}

    def months_without(self) -> tuple[str, ...]:
        """Names of the steps without a scene."""
        return months_without(self.n_scenes, Season(self.season_start, self.cube))


def acquire_zone(
    source: SceneSource, zone: Zone, season_start: str, workspace: Workspace, cube: CubeSpec = STUDY_CUBE
) -> ZoneAcquisition:
    """Make and write the composite, the observation counts and the record of one zone, each whole.

    At most one step of scenes is held in memory. The source gives the cube's bands; `season_start` is the first month,
    `YYYY-MM`, of a zone that has none of its own.

    Raises:
        InputError: no scene reaches into the zone in its season, a scene cannot be used, or no pixel is ever clear.
    """
    season = Season(zone.season_start or season_start, cube)
    found = source.survey(zone.grid, season.start, season.end)
    if not found.scenes:
        raise InputError(_no_scene([zone.zone_id], season))
    steps = acquisitions_by_month(found.scenes, season)
    with _heard(logging.getLogger(__package__)) as warnings:
        composite, n_obs = _composite_steps(source, steps, zone.grid)
    record = finish_zone(zone, season, [len(step) for step in steps], composite, n_obs, workspace)
    record = replace(record, warnings=tuple(sorted(warnings)))
    write_record(workspace, record, [scene.scene_id for scene in found.scenes], {**found.left_out, **found.remarks})
    return record


def finish_zone(
    zone: Zone,
    season: Season,
    n_scenes: Sequence[int],
    composite: npt.NDArray[np.uint16],
    n_obs: npt.NDArray[np.uint8],
    workspace: Workspace,
) -> ZoneAcquisition:
    """Fill the gaps of a zone's medians, 0 where `n_obs` is, and `store_zone`; every source of scenes ends here.

    Raises:
        InputError: no pixel is ever clear.
    """
    observed = n_obs > 0
    n_pixels = zone.grid.height * zone.grid.width
    if not observed.any():
        raise InputError(
            f"zone '{zone.zone_id}': none of its {n_pixels} pixels is clear (SCL 4–7) in any of the "
            f"{sum(n_scenes)} scenes of {season.start} to {season.end}; add scenes or leave the zone out"
        )
    return store_zone(zone, season, n_scenes, fill_gaps(composite, observed), n_obs, workspace)


def store_zone(
    zone: Zone,
    season: Season,
    n_scenes: Sequence[int],
    composite: npt.NDArray[np.uint16],
    n_obs: npt.NDArray[np.uint8],
    workspace: Workspace,
) -> ZoneAcquisition:
    """Write a zone's composite and counts as they are to stand, each whole; every source of imagery ends here.

    `n_scenes` are the acquisitions of each step, `composite` is [T, C, H, W] uint16, 0 = no data, and `n_obs` [T, H, W] uint8
    clear observations before gap filling.
    """
    observed = n_obs > 0
    write_composite(workspace.composite(zone.zone_id), composite, zone.grid, season.cube)
    write_n_obs(workspace.n_obs(zone.zone_id), n_obs, zone.grid, season.cube)
    return ZoneAcquisition(
        zone_id=zone.zone_id,
        season_start=season.first_month,
        n_pixels=zone.grid.height * zone.grid.width,
        n_scenes=tuple(n_scenes),
        n_clear=tuple(int(n) for n in observed.sum(axis=(1, 2))),
        n_never_clear=int((~observed.any(axis=0)).sum()),
        cube=season.cube,
    )


def write_record(workspace: Workspace, record: ZoneAcquisition, scene_ids: Sequence[str], left_out: Remarks) -> None:
    """Write down what a zone's composite was made from, and what was left out."""
    content = {
        **record.to_record(),
        "months_without_scene": record.months_without(),
        "scenes": scene_ids,
        "left_out": left_out,
    }
    write_json(workspace.acquisition_record(record.zone_id), content)


def remove_unfinished(workspace: Workspace, zone_ids: Collection[str]) -> int:
    """Remove what killed runs left beside the composites of some zones; returns how many files."""
    folder = workspace.composite("any").parent
    if not isinstance(folder, Path):
        return 0  # an object appears whole, under its own name
    left = [(path, _UNFINISHED.fullmatch(path.name)) for path in folder.glob(".*")]
    mine = [path for path, match in left if match is not None and match["zone"] in zone_ids]
    for path in mine:
        path.unlink(missing_ok=True)
    return len(mine)


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.add(record.getMessage())


@contextlib.contextmanager
def _heard(logger: logging.Logger) -> Iterator[set[str]]:
    """What is warned of during the block, in any thread: a worker's log is read by nobody."""
    listener = _Listener()
    logger.addHandler(listener)
    try:
        yield listener.messages
    finally:
        logger.removeHandler(listener)


def describe_clear(records: Collection[ZoneAcquisition]) -> str:
    """How much of some zones was observed, as a line."""
    clear = sum(record.share_clear for record in records) / len(records)
    noun = next(iter(records)).cube.noun
    return f"{clear:.0%} of the pixel-{noun}s were observed; the rest was filled in time"


def survey_zones(
    source: SceneSource, zones: Iterable[Zone], season_start: str, cube: CubeSpec = STUDY_CUBE
) -> dict[str, Found]:
    """Zone → its scenes, in time order, and what was left out; before any pixel is read.

    Raises:
        InputError: a scene cannot be used (its header says so), or zones have no scene in their season.
    """
    found = {}
    without: list[Zone] = []
    for zone in zones:
        season = Season(zone.season_start or season_start, cube)
        found[zone.zone_id] = source.survey(zone.grid, season.start, season.end)
        if not found[zone.zone_id].scenes:
            without.append(zone)
    require_scenes(without, season_start, cube)
    return found


def gather_left_out(found: Collection[Found], never_used: Remarks) -> dict[str, list[str]]:
    """What a person should know of scenes that no zone uses, or not as they lie there: remark → their names."""
    used = {scene.scene_id for each in found for scene in each.scenes}
    names: dict[str, set[str]] = {remark: set(those) for remark, those in never_used.items()}
    for each in found:
        for remark, those in each.left_out.items():
            names.setdefault(remark, set()).update(set(those) - used)
        for remark, those in each.remarks.items():
            names.setdefault(remark, set()).update(those)
    return {remark: sorted(those) for remark, those in names.items() if those}


def describe_left_out(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """What `gather_left_out` gave, as a line for each remark."""
    return [f"{remark}: {len(names)} ({_some(names)})" for remark, names in left_out.items()]


def describe_empty_months(empty: Mapping[str, Sequence[str]], cube: CubeSpec = STUDY_CUBE) -> list[str]:
    """Zone → steps without a scene, as lines: at most one for each step, however many zones."""
    zone_ids: dict[str, list[str]] = {}
    for zone_id, those in empty.items():
        for step in those:
            zone_ids.setdefault(step, []).append(zone_id)
    steps: dict[tuple[str, ...], list[str]] = {}
    for step, ids in sorted(zone_ids.items()):
        steps.setdefault(tuple(ids), []).append(step)
    return [
        f"no scene in {', '.join(those)}, filled from other {cube.noun}s: {len(ids)} zones ({_some(ids)})"
        for ids, those in steps.items()
    ]


def months_without(n_scenes: Sequence[int], season: Season) -> tuple[str, ...]:
    """Names of the steps without a scene: `2023-05` for months, the first day for others."""
    return tuple(name for name, n in zip(season.names, n_scenes, strict=True) if n == 0)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_N_NAMED]) + (", …" if len(names) > _N_NAMED else "")


def require_scenes(without: Iterable[Zone], season_start: str, cube: CubeSpec = STUDY_CUBE) -> None:
    """Raises: InputError: zones have no scene in their season; all are named."""
    zone_ids: dict[Season, list[str]] = {}
    for zone in without:
        zone_ids.setdefault(Season(zone.season_start or season_start, cube), []).append(zone.zone_id)
    if zone_ids:
        raise InputError("; ".join(_no_scene(ids, season) for season, ids in zone_ids.items()))


def _no_scene(zone_ids: list[str], season: Season) -> str:
    return (
        f"no scene reaches into {', '.join(map(repr, zone_ids))} from {season.start} to {season.end}; "
        f"add scenes, or mend the zone table or the season's start"
    )


def acquisitions_by_month(scenes: Sequence[Scene], season: Season) -> list[list[tuple[Scene, ...]]]:
    """Each step's scenes, those of one instant together: neighbouring MGRS tiles overlap and must not count twice.

    Raises:
        InputError: a step has more acquisitions than can be counted.
    """
    steps = [_acquisitions(scenes, start, end) for start, end in season.steps]
    for name, acquisitions in zip(season.names, steps, strict=True):
        if len(acquisitions) > MAX_SCENES:
            raise InputError(
                f"{len(acquisitions)} acquisitions in {name}; at most {MAX_SCENES} can be counted: take shorter steps "
                f"('cube.step'), or leave some out"
            )
    return steps


def _acquisitions(scenes: Sequence[Scene], start: dt.date, end: dt.date) -> list[tuple[Scene, ...]]:
    step = [scene for scene in scenes if start <= scene.acquired.date() < end]
    return [tuple(parts) for _, parts in itertools.groupby(step, key=lambda scene: scene.acquired)]


def _composite_steps(
    source: SceneSource, steps: Sequence[Sequence[tuple[Scene, ...]]], grid: Grid
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    n_bands = len(source.bands)
    composite = np.zeros((len(steps), n_bands, *grid.shape), np.uint16)
    n_obs = np.zeros((len(steps), *grid.shape), np.uint8)
    with ThreadPoolExecutor(source.scenes_at_once, thread_name_prefix="scene") as pool:
        for position, acquisitions in enumerate(steps):
            stack = np.zeros((len(acquisitions), n_bands, *grid.shape), np.uint16)
            scl = np.zeros((len(acquisitions), *grid.shape), np.uint8)
            list(pool.map(partial(_read_parts, source, grid), acquisitions, stack, scl))
            composite[position], n_obs[position] = monthly_median(stack, scl)
    return composite, n_obs


def _read_parts(
    source: SceneSource,
    grid: Grid,
    parts: Sequence[Scene],
    stack: npt.NDArray[np.uint16],
    scl: npt.NDArray[np.uint8],
) -> None:
    """Lay the parts of one acquisition side by side; where they overlap, the first with data counts."""
    for part in parts:
        bands, classes = source.read(part, grid)
        missing = scl == SCL_NODATA
        np.copyto(stack, bands, where=missing)
        np.copyto(scl, classes, where=missing)
