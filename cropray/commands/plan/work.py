"""Counting a job's work for its plan: zones, rows and tiles, where they are known and else from a sample; and its room."""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cropray.cluster.node_memory import STORE_SHARE
from cropray.cluster.placement import Node
from cropray.cluster.resources import GB
from cropray.cluster.session import address_of, ray_disk
from cropray.config import JobConfig
from cropray.core.errors import CroprayError
from cropray.datasets.manifest import Manifest, ZoneEntry, load_manifest
from cropray.io.storage import free_bytes, size_of
from cropray.io.zones import Zone
from cropray.planning.limits import Room
from cropray.planning.work import Cluster, ZoneWork
from cropray.stages.pictures import filmed


def local_cluster(job: JobConfig) -> Cluster:
    """The local Ray that the job would start, without starting it."""
    memory, set_gb = memory_bytes(), job.cluster.object_store_gb
    store = memory * STORE_SHARE if set_gb is None else set_gb * GB
    n_cpus, n_gpus = job.cluster.num_cpus or os.cpu_count() or 1, len([*Path("/proc/driver/nvidia/gpus").glob("*")])
    return Cluster((Node(n_cpus, n_gpus, store, max(memory - store, 0.0)),))


def memory_bytes() -> float:
    """Memory of this machine."""
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def room(job: JobConfig, cluster: Cluster) -> Room:
    """What there is room for."""
    disk, filled, store = free_bytes(job.workspace), size_of(job.workspace), cluster.object_store_bytes
    if address_of(job.cluster) is not None:
        return Room(disk, math.inf, store, filled)
    return Room(disk, memory_bytes(), store, filled, free_bytes(ray_disk()))


def built_dataset(job: JobConfig, zones: Sequence[Zone]) -> Manifest | None:
    """The manifest of the dataset that stands, if it is of these zones and tiles."""
    try:
        manifest = load_manifest(job.artefacts.manifest)
    except CroprayError:
        return None
    is_same = (
        [zone.zone_id for zone in zones] == list(manifest.zone_ids)
        and manifest.tile_size == job.dataset.tile_size
        and manifest.cube == job.cube_spec
    )
    return manifest if is_same else None


def count_work(
    job: JobConfig, zones: Sequence[Zone], entries: Sequence[ZoneEntry], n_classes: int, sampled: Sequence[Zone] = ()
) -> ZoneWork:
    """The work of zones, or where there are none of points.

    Args:
        job: the job.
        zones: its zones.
        entries: what the dataset holds, or what sampled zones do.
        n_classes: of the dataset.
        sampled: zones that all others are like; none: the dataset is known.
    """
    held: list[tuple[Zone | ZoneEntry, float, float]]
    if sampled:  # zones of the same land have as many labelled pixels, and as many of their tiles have some
        rows = sum(entry.n_labelled for entry in entries) / n_pixels(sampled)
        tiles = sum(entry.n_tiles for entry in entries) / _all_tiles(job, sampled)
        held = [(zone, rows * n_pixels([zone]), tiles * _all_tiles(job, [zone])) for zone in zones]
    else:
        held = [(entry, entry.n_labelled, entry.n_tiles) for entry in entries]
    train, test = ([each for each in held if each[0].split == split] for split in ("train", "test"))
    return ZoneWork(
        n_zones=len(held),
        n_test=len(test),
        n_mapped=len(held if job.map.splits == "all" else test) if zones else 0,
        n_films=len(filmed(job, zones, job.cube_spec)) if zones else 0,
        n_pixels=n_pixels(zones),
        train_rows=sum(rows for _, rows, _ in train),
        test_rows=sum(rows for _, rows, _ in test),
        train_tiles=sum(tiles for _, _, tiles in train),
        n_classes=n_classes,
        n_regions=len({zone.region for zone, _, _ in train}),
    )


def n_pixels(zones: Iterable[Zone]) -> int:
    """Pixels of some zones."""
    return sum(zone.grid.height * zone.grid.width for zone in zones)


def _all_tiles(job: JobConfig, zones: Iterable[Zone]) -> int:
    sides = [[math.ceil(length / job.dataset.tile_size) for length in zone.grid.shape] for zone in zones]
    return sum(map(math.prod, sides))
