"""Unit costs of zones: a few zones made for real in a folder that is removed afterwards."""

import math
import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import ray

from cropray.commands.plan.work import n_pixels
from cropray.config import JobConfig
from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import CroprayError
from cropray.core.grid import Grid
from cropray.core.progress import Progress
from cropray.datasets.build import ZoneJob, build_zone, count_zone
from cropray.datasets.manifest import ZoneEntry
from cropray.datasets.separation import Trim
from cropray.imagery.acquire import finish_zone
from cropray.imagery.composites import read_composite, read_n_obs
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.parcels.rpg import is_fetched
from cropray.planning.costs import ZoneCosts
from cropray.report.drawing import step_names
from cropray.stages.inputs import acquisition_of, legend_of, register_year, season_of
from cropray.stages.labels import label_from
from cropray.stages.pictures import ZoneDrawing, draw_zone

BUDGET_S: Final = 20.0  # after each worker's first zone, for further ones
MOST_ZONES: Final = 16
_PATCH_PX: Final = 20  # fields of a drawn composite
_NOISE: Final = 40.0  # digital numbers


@dataclass(frozen=True, slots=True)
class ZoneSample:
    """One zone, as it was made."""

    zone: Zone
    entry: ZoneEntry
    """What it holds."""
    process: int
    """Id of the worker process."""
    seconds: Mapping[str, float]
    """Step → seconds."""
    peak_bytes: int


def sample_order(zones: Sequence[Zone]) -> tuple[Zone, ...]:
    """Zones in the order in which a sample takes them: one of each region, then a second one of each."""
    seen: Counter[str] = Counter()

    def rank(zone: Zone) -> int:
        seen[zone.region] += 1
        return seen[zone.region]

    return tuple(sorted(zones, key=rank))


def measure_zones(
    job: JobConfig, zones: Sequence[Zone], scratch: Workspace, n_at_once: int, progress: Progress
) -> list[ZoneSample]:
    """Make zones for real in rounds of as many as a run makes side by side, until the time is spent."""
    task, samples, until = ray.remote(num_cpus=1, max_retries=0)(measure_zone), list[ZoneSample](), math.inf
    for first in range(0, len(zones), n_at_once):
        for ref in [task.remote(job, zone, scratch) for zone in zones[first : first + n_at_once]]:
            try:
                samples.append(ray.get(ref))
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                raise (cause if isinstance(cause, CroprayError) else error) from None
            progress.step(len(samples), len(samples), samples[-1].zone.zone_id, "sampled zones")
        until = min(until, time.monotonic() + BUDGET_S)  # each worker's first zone is made whatever it takes
        if time.monotonic() + sum(samples[-1].seconds.values()) >= until:
            break
    return samples


def measure_zone(job: JobConfig, zone: Zone, scratch: Workspace) -> ZoneSample:
    """Acquire, label and build one zone, and draw its films."""
    assert job.parcels is not None
    legend, parcels, season = legend_of(job.parcels), job.parcels, season_of(zone, job)
    extract = scratch.parcel_extract if is_fetched(parcels) else None
    drawing = ZoneDrawing(
        zone.zone_id, counts_profiles=True, has_images=True, has_film=True, film_px=job.report.film_px,
        months=step_names(season), n_classes=len(legend.classes), workspace=scratch, cube=season.cube,
    )  # fmt: skip
    build = ZoneJob(zone, 0, job.dataset.tile_size, legend.names, Trim(), scratch, season.cube)
    steps: dict[str, Callable[[], Any]] = {
        "acquire": partial(_acquire, job, zone, scratch),
        "label": lambda: label_from(parcels, zone, register_year(zone, job), legend, scratch, extract),
        "count": partial(count_zone, zone, scratch),
        "build": partial(build_zone, build),
        "film": partial(draw_zone, drawing),
    }
    made, seconds = {}, {}
    for step, work in steps.items():
        started = time.perf_counter()
        made[step] = work()
        seconds[step] = time.perf_counter() - started
    return ZoneSample(zone, made["build"], os.getpid(), seconds, peak_memory())


def _acquire(job: JobConfig, zone: Zone, scratch: Workspace) -> None:
    """Scenes and cubes of one's own are taken; of remote ones only what this machine does is measured, on drawn months."""
    assert job.imagery is not None
    if job.imagery.is_at_hand:
        acquisition_of(job, [zone], scratch).make(zone)()
        return
    season = season_of(zone, job)
    cube = season.cube
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
    rows, cols = (np.arange(length) // _PATCH_PX for length in grid.shape)
    level = rng.uniform(300, 3000, (*cube.shape, rows[-1] + 1, cols[-1] + 1)).astype(np.float32)
    composite = level[:, :, rows[:, None], cols]
    composite += rng.normal(0, _NOISE, composite.shape).astype(np.float32)
    return np.maximum(composite, 1).astype(np.uint16), rng.integers(1, 6, (cube.n_steps, *grid.shape), np.uint8)


def zone_costs(samples: Sequence[ZoneSample], sizes: Mapping[str, float], mean_pixels: float) -> ZoneCosts:
    """Costs of the average zone of a job, which grow with its pixels, but for the bytes of its pictures.

    The first zone of each process pays for imports and compilation; it does not count where the process made more.

    Args:
        samples: at least one.
        sizes: part of the workspace → bytes of all of them.
        mean_pixels: of the job's zones.
    """
    first, n = {sample.process: sample for sample in reversed(samples)}, len(samples)
    later = [sample for sample in samples if sample is not first[sample.process]] or samples
    scale = mean_pixels / fmean(n_pixels([sample.zone]) for sample in samples)
    return ZoneCosts(
        seconds={step: scale * fmean(sample.seconds[step] for sample in later) for step in samples[0].seconds},
        bytes={part: size / n * (1 if part == "report" else scale) for part, size in sizes.items()},
        peak_bytes=max(sample.peak_bytes for sample in samples),
    )


def peak_memory() -> int:
    """Most memory that this process ever had, bytes."""
    usage: Any = resource.getrusage(resource.RUSAGE_SELF)
    return int(usage.ru_maxrss) * 1024
