"""Unit costs of zones: a few zones made for real in a folder that is removed afterwards."""

import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import ray

from cropray.config import JobConfig
from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import CroprayError
from cropray.core.grid import Grid
from cropray.datasets.build import ZoneJob, build_zone, count_zone
from cropray.datasets.separation import Trim
from cropray.imagery.acquire import acquire_zone, finish_zone
from cropray.imagery.composites import read_composite, read_n_obs
from cropray.imagery.cubes import acquire_cube
from cropray.imagery.registry import CompositeSettings, SceneSettings
from cropray.io.storage import Location, size_of
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.parcels.rpg import is_fetched
from cropray.planning.costs import ZoneCosts
from cropray.report.drawing import step_names
from cropray.stages.inputs import job_legend, register_year, steps_of
from cropray.stages.labels import label_from
from cropray.stages.pictures import ZoneDrawing, draw_zone

ResultT = TypeVar("ResultT")

BUDGET_S: Final = 20.0  # after each worker's first zone, for further ones
MOST_ZONES: Final = 16
_PATCH_PX: Final = 20  # fields of a drawn composite
_NOISE: Final = 40.0  # digital numbers


@dataclass(frozen=True, slots=True)
class ZoneSample:
    """One zone, as it was made."""

    zone: Zone
    process: int
    """Id of the worker process."""
    seconds: dict[str, float]
    """Step → seconds."""
    bytes: dict[str, int]
    """Part of the workspace → bytes."""
    rows: int
    n_tiles: int
    classes: tuple[str, ...]
    peak_bytes: int


@dataclass(slots=True)
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    def time(self, step: str, work: Callable[[], ResultT]) -> ResultT:
        started = time.perf_counter()
        result = work()
        self.seconds[step] = time.perf_counter() - started
        return result


def sample_order(zones: Sequence[Zone]) -> tuple[Zone, ...]:
    """Zones in the order in which a sample takes them: one of each region, then a second one of each."""
    rank: dict[str, int] = {}
    keyed: list[tuple[int, int, Zone]] = []
    for zone in zones:
        keyed.append((rank.get(zone.region, 0), len(keyed), zone))
        rank[zone.region] = rank.get(zone.region, 0) + 1
    return tuple(zone for _, _, zone in sorted(keyed, key=lambda item: item[:2]))


def measure_zones(
    job: JobConfig, zones: Sequence[Zone], scratch: Workspace, n_at_once: int, tell: Callable[[int, str], None]
) -> list[ZoneSample]:
    """Make zones for real, as many at a time as a run would, until the time is spent.

    Args:
        job: the job.
        zones: in the order of the sample.
        scratch: where they are made.
        n_at_once: zones at the same time.
        tell: called with the number of finished zones and the last one's id.
    """
    waiting = list(reversed(zones[:MOST_ZONES]))
    running: dict[ray.ObjectRef, Zone] = {}
    samples: list[ZoneSample] = []
    first_ended = None
    while waiting or running:
        while waiting and len(running) < n_at_once and _is_time_left(first_ended, samples):
            zone = waiting.pop()
            running[_measure_zone.remote(job, zone, scratch)] = zone
        if not running:
            break
        (ready,), _ = ray.wait(list(running), num_returns=1)
        del running[ready]
        first_ended = first_ended or time.monotonic()
        samples.append(_result(ready))
        tell(len(samples), samples[-1].zone.zone_id)
    return samples


def _is_time_left(first_ended: float | None, samples: Sequence[ZoneSample]) -> bool:
    """Whether another zone can be made within the budget; the first one of each worker is made whatever it takes."""
    if first_ended is None:
        return True
    return time.monotonic() - first_ended + sum(samples[-1].seconds.values()) < BUDGET_S


def _result(ready: "ray.ObjectRef[ZoneSample]") -> ZoneSample:
    try:
        sample: ZoneSample = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, CroprayError) else error) from None
    return sample


@ray.remote(num_cpus=1, max_retries=0)  # type: ignore[untyped-decorator]  # ray is untyped
def _measure_zone(job: JobConfig, zone: Zone, scratch: Workspace) -> ZoneSample:
    return measure_zone(job, zone, scratch)


def measure_zone(job: JobConfig, zone: Zone, scratch: Workspace) -> ZoneSample:
    """Acquire, label and build one zone, and draw its films."""
    assert job.parcels is not None
    clock, legend, parcels = _Clock(), job_legend(job), job.parcels
    season = steps_of(zone, job)
    clock.time("acquire", lambda: _acquire(job, zone, scratch))
    extract = scratch.parcel_extract if is_fetched(parcels) else None
    clock.time("label", lambda: label_from(parcels, zone, register_year(zone, job), legend, scratch, extract))
    clock.time("count", lambda: count_zone(zone, scratch))
    zone_job = ZoneJob(zone, 0, job.dataset.tile_size, legend.names, Trim(), scratch, season.cube)
    entry = clock.time("build", lambda: build_zone(zone_job))
    drawing = ZoneDrawing(
        zone.zone_id, counts_profiles=True, has_images=True, has_film=True, film_px=job.report.film_px,
        months=step_names(season), n_classes=len(legend.classes), workspace=scratch, cube=season.cube,
    )  # fmt: skip
    clock.time("film", lambda: draw_zone(drawing))
    zone_id = zone.zone_id
    files = {
        "composites": [scratch.composite(zone_id), scratch.n_obs(zone_id)],
        "labels": [
            scratch.labels(zone_id), scratch.parcel_index(zone_id), scratch.parcels(zone_id),
            scratch.label_report(zone_id),
        ],
        "dataset": [scratch.pixels(zone_id), scratch.tiles(zone_id)],
        "films": [scratch.zone_pictures(zone_id)],
    }  # fmt: skip
    return ZoneSample(
        zone=zone,
        process=os.getpid(),
        seconds=clock.seconds,
        bytes={part: weigh(paths) for part, paths in files.items()},
        rows=entry.n_labelled,
        n_tiles=entry.n_tiles,
        classes=tuple(entry.counts),
        peak_bytes=peak_memory(),
    )


def _acquire(job: JobConfig, zone: Zone, scratch: Workspace) -> None:
    """Scenes and cubes of one's own are taken; of remote ones only what this machine does is measured, on drawn months."""
    season = steps_of(zone, job)
    cube = season.cube
    if isinstance(job.imagery, CompositeSettings) and job.imagery.is_at_hand:
        acquire_cube(job.imagery.composites(), zone, season, scratch)
        return
    if isinstance(job.imagery, SceneSettings) and job.imagery.is_at_hand:
        acquire_zone(job.imagery.scenes(cube.bands), zone, job.season_start, scratch, cube)
        return
    here, zone_id = job.artefacts, zone.zone_id
    if here.composite(zone_id).exists() and here.n_obs(zone_id).exists():
        composite = read_composite(here.composite(zone_id), cube=cube)
        n_obs = read_n_obs(here.n_obs(zone_id), cube=cube)
    else:
        composite, n_obs = drawn_months(zone.grid, cube)
    finish_zone(zone, season, [1] * cube.n_steps, composite, n_obs, scratch)


def drawn_months(grid: Grid, cube: CubeSpec = STUDY_CUBE) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """Fields with a season and noise, [T, C, H, W], and counts, [T, H, W]: they compress about as real ones do."""
    rng = np.random.default_rng(0)
    height, width = grid.shape
    rows, cols = np.arange(height) // _PATCH_PX, np.arange(width) // _PATCH_PX
    level = rng.uniform(300, 3000, (*cube.shape, rows[-1] + 1, cols[-1] + 1)).astype(np.float32)
    composite = level[:, :, rows[:, None], cols[None, :]]
    composite += rng.normal(0, _NOISE, composite.shape).astype(np.float32)
    return np.maximum(composite, 1).astype(np.uint16), rng.integers(1, 6, (cube.n_steps, height, width)).astype(
        np.uint8
    )


def zone_costs(samples: Sequence[ZoneSample], mean_pixels: float) -> ZoneCosts:
    """Costs of the average zone of a job, from a sample.

    The first zone of each process pays for imports and compilation; it does not count where the process made more.

    Args:
        samples: at least one.
        mean_pixels: of the job's zones; costs grow with a zone's pixels.
    """
    later = _without_first(samples)
    scale = mean_pixels / fmean(_n_pixels(sample) for sample in samples)

    def seconds(step: str) -> float:
        return scale * fmean(sample.seconds[step] for sample in later)

    def size(part: str) -> float:
        return scale * fmean(sample.bytes[part] for sample in samples)

    return ZoneCosts(
        acquire_s=seconds("acquire"), label_s=seconds("label"), count_s=seconds("count"), build_s=seconds("build"),
        film_s=seconds("film"), composite_bytes=size("composites"), label_bytes=size("labels"),
        dataset_bytes=size("dataset"), film_bytes=fmean(sample.bytes["films"] for sample in samples),
        peak_bytes=max(sample.peak_bytes for sample in samples),
    )  # fmt: skip


def _without_first(samples: Sequence[ZoneSample]) -> list[ZoneSample]:
    """Samples after the first of each process; all where there is no later one."""
    first = {sample.process: sample for sample in reversed(samples)}
    return [sample for sample in samples if sample is not first[sample.process]] or list(samples)


def _n_pixels(sample: ZoneSample) -> int:
    return sample.zone.grid.height * sample.zone.grid.width


def weigh(paths: Sequence[Location]) -> int:
    """Bytes of some files, and of all files below some folders; what does not exist weighs nothing."""
    return sum(map(size_of, paths))


def peak_memory() -> int:
    """Most memory that this process ever had, bytes."""
    usage: Any = resource.getrusage(resource.RUSAGE_SELF)
    return int(usage.ru_maxrss) * 1024
