"""What cannot work at all, said before anything is measured or begun: with the smallest size that each part can have."""

import math
from dataclasses import dataclass
from typing import Final

from cropray.cluster.resources import GB, FitSize
from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import ConfigError
from cropray.planning.table import OBJECT_STORE, WORKER, Amounts
from cropray.planning.work import JobWork
from cropray.training.family import family

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
    filled_bytes: float = 0.0
    """Of the disk, by what stands in the workspace already."""
    spill_bytes: float = math.inf
    """Free on the disk that takes what the object store cannot hold; inf: another machine's."""
    where: str = "here"
    memory_settings: str = "lower search.max_concurrent, cluster.num_cpus or cluster.object_store_gb"
    """What to change where the memory is too small."""


def least(n_pixels: int, n_train_pixels: int, cube: CubeSpec = STUDY_CUBE) -> Amounts:
    """The least that images of so many pixels can take."""
    disk = n_pixels * (LEAST_COMPOSITE_PIXEL_BYTES + LEAST_LABELLED_SHARE * LEAST_ROW_BYTES)
    pixel_bytes = 2 * cube.n_features + cube.n_steps  # numbers and clear observations
    return {
        ("disk", "least"): disk * cube.n_features / STUDY_CUBE.n_features,
        ("memory", OBJECT_STORE): n_train_pixels * LEAST_LABELLED_SHARE * pixel_bytes,
    }


def refusals(amounts: Amounts, room: Room, n_workers: float) -> list[str]:
    """Why a job of so many worker processes on a node cannot run, each with what to change; empty where it can."""
    reasons, store = [], amounts["memory", OBJECT_STORE]
    disk = sum(amount for (group, _), amount in amounts.items() if group == "disk") - room.filled_bytes
    workers = [amount for (group, name), amount in amounts.items() if group == "memory" and name != OBJECT_STORE]
    if disk > room.disk_free_bytes:
        reasons.append(
            f"the workspace needs {_gb(disk)}, its disk has {_gb(room.disk_free_bytes)} free: set "
            f"'workspace' to a larger disk, or take fewer zones"
        )
    if store > room.object_store_bytes + room.spill_bytes:
        reasons.append(
            f"the training data takes {_gb(store)} of Ray's object store, a node has "
            f"{_gb(room.object_store_bytes)} and {_gb(room.spill_bytes)} free on the disk that takes the rest: make room "
            f"on that disk (RAY_TMPDIR), raise cluster.object_store_gb, or take fewer zones"
        )
    if workers and max(workers) * n_workers + min(room.object_store_bytes, room.memory_bytes) > room.memory_bytes:
        reasons.append(
            f"{n_workers:g} workers of {_gb(max(workers))} beside an object store of {_gb(room.object_store_bytes)} do not "
            f"fit into {_gb(room.memory_bytes)} of memory: {room.memory_settings}"
        )
    return reasons


def require_room(amounts: Amounts, room: Room, work: JobWork | None = None) -> None:
    """Refuse a job that cannot run, by the least that it takes, or by what was estimated of its work.

    Raises:
        ConfigError: all reasons, and what to change.
    """
    n_workers, reasons = 0.0, []
    if work is not None:
        most = max(placement.max_concurrent for placement in work.placements.values())
        n_workers, reasons = min(work.cluster.at_once, most) / len(work.cluster.nodes), over_budget(work, amounts)
    reasons += refusals(amounts, room, n_workers)
    if reasons:
        raise ConfigError(f"this job cannot run {room.where}: " + "; ".join(reasons))


def over_budget(work: JobWork, amounts: Amounts) -> list[str]:
    """Why a worker cannot keep its memory budget, per family; empty where it can."""
    job, reasons = work.job, []
    for model, placement in work.placements.items():
        found, settings, budget = family(model), job.settings_of(model), placement.memory_bytes
        size = FitSize(work.zones.train_rows, work.zones.n_classes, settings.n_features(job.cube_spec), budget)
        try:
            settings.check(size)
        except ConfigError as error:
            reasons.append(str(error))
        is_measured = settings.fit_bytes(size) is None  # else `check` knows better
        if is_measured and (taken := amounts.get(("memory", WORKER + found.label), 0.0)) > budget:
            lower = f"{model}.{found.batch} or search.max_concurrent" if found.batch else "search.max_concurrent"
            reasons.append(
                f"a worker of the {found.label} takes {_gb(taken)} and may take {_gb(budget)}: lower {lower}, or raise "
                f"{model}.memory_gb"
            )
    return reasons


def _gb(size: float) -> str:
    return f"{size / GB:.3g} GB"
