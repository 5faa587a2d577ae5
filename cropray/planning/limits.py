"""What cannot work at all, said before anything is measured or begun: with the smallest size that each part can have."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cropray.cluster.resources import GB
from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import ConfigError

# Least sizes with the study's cube, so that nothing is refused that could work. Its composites of cropland compress to
# 60–80 of 96 bytes.
LEAST_COMPOSITE_PIXEL_BYTES: Final = 40
LEAST_LABELLED_SHARE: Final = 0.1
LEAST_ROW_BYTES: Final = 40  # on disk, of 107


@dataclass(frozen=True, slots=True)
class Room:
    """What there is room for."""

    disk_free_bytes: float
    memory_bytes: float
    """Of this machine."""
    object_store_bytes: float
    """Of one node."""
    spill_bytes: float = math.inf
    """Free on the disk that takes what the object store cannot hold; inf: another machine's."""
    where: str = "here"
    memory_settings: str = "lower search.max_concurrent, cluster.num_cpus or cluster.object_store_gb"
    """What to change where the memory is too small."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a job needs, at least or as measured."""

    disk_bytes: float
    """Beside what stands already."""
    object_store_bytes: float
    worker_bytes: float
    """Of the largest worker process."""
    n_workers: float
    """Worker processes at the same time, on one node."""


def least_need(n_pixels: int, n_train_pixels: int, cube: CubeSpec = STUDY_CUBE, *, has_images: bool) -> Need:
    """The least that zones of so many pixels can need."""
    if not has_images:
        return Need(0, 0, 0, 0)
    disk = n_pixels * (LEAST_COMPOSITE_PIXEL_BYTES + LEAST_LABELLED_SHARE * LEAST_ROW_BYTES)
    disk *= cube.n_features / STUDY_CUBE.n_features
    return Need(disk, n_train_pixels * LEAST_LABELLED_SHARE * raw_pixel_bytes(cube), 0, 0)


def raw_pixel_bytes(cube: CubeSpec = STUDY_CUBE) -> int:
    """Numbers of a pixel and its clear observations, bytes."""
    return 2 * cube.n_features + cube.n_steps


def refusals(need: Need, room: Room) -> list[str]:
    """Why a job cannot run, each with what to change; empty where it can."""
    reasons = []
    if need.disk_bytes > room.disk_free_bytes:
        reasons.append(
            f"the workspace needs {_gb(need.disk_bytes)}, its disk has {_gb(room.disk_free_bytes)} free: set "
            f"'workspace' to a larger disk, or take fewer zones"
        )
    if need.object_store_bytes > room.object_store_bytes + room.spill_bytes:
        reasons.append(
            f"the training data takes {_gb(need.object_store_bytes)} of Ray's object store, a node has "
            f"{_gb(room.object_store_bytes)} and {_gb(room.spill_bytes)} free on the disk that takes the rest: make room "
            f"on that disk (RAY_TMPDIR), raise cluster.object_store_gb, or take fewer zones"
        )
    in_use = need.worker_bytes * need.n_workers + min(room.object_store_bytes, room.memory_bytes)
    if need.worker_bytes and in_use > room.memory_bytes:
        reasons.append(
            f"{need.n_workers:g} workers of {_gb(need.worker_bytes)} beside an object store of "
            f"{_gb(room.object_store_bytes)} do not fit into {_gb(room.memory_bytes)} of memory: "
            f"{room.memory_settings}"
        )
    return reasons


def require_room(need: Need, room: Room, others: Sequence[str] = ()) -> None:
    """Refuse a job that cannot run.

    Raises:
        ConfigError: all reasons, and what to change.
    """
    reasons = [*others, *refusals(need, room)]
    if reasons:
        raise ConfigError(f"this job cannot run {room.where}: " + "; ".join(reasons))


def _gb(size: float) -> str:
    return f"{size / GB:.3g} GB"
