"""Training data in Ray's object store: how much it is, and what of it goes through the disk."""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from cropray.cluster.placement import Node
from cropray.cluster.resources import GB
from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import ConfigError
from cropray.datasets.manifest import Manifest
from cropray.training.family import Sample

LOADING_COPIES: Final = 2  # while a dataset is read: blocks as they came, then zone by zone
_FULL_SHARE: Final = 0.95  # of a disk, from which on Ray writes nothing more on it


def data_bytes(sample: Sample, rows: float, tiles: float, tile_size: int, cube: CubeSpec = STUDY_CUBE) -> float:
    """Training data in the object store, which families that read the same samples share.

    Args:
        sample: rows of pixel tables, or tiles.
        rows: labelled pixels of the training zones.
        tiles: tiles of the training zones.
        tile_size: their side, pixels.
        cube: bands and steps.
    """
    if sample == "pixel":
        return rows * (2 * cube.n_features + 1)
    return tiles * tile_bytes(tile_size, cube)


def tile_bytes(tile_size: int, cube: CubeSpec = STUDY_CUBE) -> int:
    """One tile in memory: uint16 bands of every step, and a label."""
    return tile_size**2 * (2 * cube.n_features + 1)


def scratch_bytes(tiles: float, tile_size: int, n_workers: int, cube: CubeSpec = STUDY_CUBE) -> float:
    """Files into which workers copy the tiles that they train on.

    Args:
        tiles: tiles of the training zones.
        tile_size: their side, pixels.
        n_workers: workers of all units that run at once.
        cube: bands and steps.
    """
    return n_workers * tiles * tile_bytes(tile_size, cube)


def store_line(
    manifest: Manifest, samples: Collection[Sample], nodes: Sequence[Node], disk: Path, n_tile_workers: int
) -> str:
    """What the training data takes of the cluster's object store and of the disk, in words.

    Ray writes what the store cannot hold to the disks of its nodes, and workers read zone after zone: data may be
    larger than the store, if it is not larger than the disks.

    Args:
        manifest: the dataset.
        samples: that the searched families read; those of one kind are there once.
        nodes: the living nodes.
        disk: a folder on this node's disk to which Ray writes; the others' are not looked at.
        n_tile_workers: workers that train on tiles at the same time, each with a scratch file.

    Raises:
        ConfigError: even all disks together, were they as this one, could not take it.
    """
    zones = manifest.of_split("train")
    rows, tiles = sum(zone.n_labelled for zone in zones), sum(zone.n_tiles for zone in zones)
    size_px, cube = manifest.tile_size or 0, manifest.cube
    size = sum(data_bytes(sample, rows, tiles, size_px, cube) for sample in set(samples))
    store = sum(node.object_store_bytes for node in nodes)
    spilled = max(LOADING_COPIES * size - store, 0.0)
    scratch = scratch_bytes(tiles, size_px, n_tile_workers, cube)
    usage = shutil.disk_usage(disk)
    free = max(usage.free - (1 - _FULL_SHARE) * usage.total, 0.0)
    if spilled + scratch > free * len(nodes):
        raise ConfigError(
            f"the training data takes {LOADING_COPIES * size / GB:.3g} GB while it is read, of which Ray's object store "
            f"holds {min(store, LOADING_COPIES * size) / GB:.3g} GB; {(spilled + scratch) / GB:.3g} GB go to disk, "
            f"scratch files of the workers included, and '{disk}' has room for {free / GB:.3g} GB on each of "
            f"{len(nodes)} node(s): make room there, raise cluster.object_store_gb, add nodes, search one model at a "
            f"time (search.models), or take fewer zones"
        )
    line = f"dataset {size / GB:.2g} of {store / GB:.3g} GB object store"
    # Each node that trains gets a copy of what it reads.
    smallest = min((node.object_store_bytes for node in nodes if node.cpus), default=store)
    if spilled:
        return f"{line}; {spilled / GB:.2g} GB of it will go through the disk, which is slower"
    return f"{line}; some of it will go through the disk, which is slower" if size > smallest else line
