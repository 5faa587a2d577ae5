"""Counting a job's work for its plan: zones, scenes, rows and tiles; where they are known, and else from a sample."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cropray.cluster.node_memory import STORE_SHARE
from cropray.cluster.placement import Node, Placement, live_nodes, need_of, place_units
from cropray.cluster.resources import GB, FitSize
from cropray.cluster.session import address_of, ray_disk
from cropray.commands.plan.measure_zones import ZoneSample
from cropray.config import JobConfig
from cropray.core.errors import ConfigError, CroprayError
from cropray.core.legend import CropClass
from cropray.datasets.manifest import Manifest, ZoneEntry, load_manifest
from cropray.io.storage import free_bytes
from cropray.io.zones import Zone
from cropray.planning.estimate import JobWork
from cropray.planning.limits import Room
from cropray.planning.work import Cluster, ZoneWork
from cropray.stages.inputs import job_legend
from cropray.stages.pictures import filmed
from cropray.training.family import family


def local_cluster(job: JobConfig) -> Cluster:
    """The local Ray that the job would start, without starting it."""
    memory, set_gb = memory_bytes(), job.cluster.object_store_gb
    store = memory * STORE_SHARE if set_gb is None else set_gb * GB
    return Cluster(
        (
            Node(
                cpus=job.cluster.num_cpus or os.cpu_count() or 1,
                gpus=len(list(Path("/proc/driver/nvidia/gpus").glob("*"))),
                object_store_bytes=store,
                memory_bytes=max(memory - store, 0.0),
            ),
        )
    )


def running_cluster() -> Cluster:
    """The Ray that is connected."""
    return Cluster(live_nodes())


def memory_bytes() -> float:
    """Memory of this machine."""
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def room(job: JobConfig, cluster: Cluster, disk_free_bytes: float) -> Room:
    """What there is room for."""
    if address_of(job.cluster) is not None:
        return Room(disk_free_bytes, math.inf, cluster.object_store_bytes)
    return Room(disk_free_bytes, memory_bytes(), cluster.object_store_bytes, free_bytes(ray_disk()))


def place(job: JobConfig, cluster: Cluster) -> dict[str, Placement]:
    """Model → how its units are placed, as `search` places them.

    Raises:
        ConfigError: not even one unit fits.
    """
    return {
        model: place_units(cluster.nodes, need_of(model, job.settings_of(model)), job.search.max_concurrent)
        for model in job.search.models
    }


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


def count_zones(
    job: JobConfig, zones: Sequence[Zone], samples: Sequence[ZoneSample], manifest: Manifest | None
) -> ZoneWork:
    """The zones' work: from the dataset's manifest where there is one, else scaled up from a sample."""
    by_split = {split: [zone for zone in zones if zone.split == split] for split in ("train", "test")}
    mapped = zones if job.map.splits == "all" else by_split["test"]
    if manifest is None:
        rows = {split: _row_share(samples) * n_pixels(of) for split, of in by_split.items()}
        train_tiles = _tile_share(job, samples) * _all_tiles(job, by_split["train"])
    else:
        entries = {split: [e for e in manifest.zones if e.split == split] for split in by_split}
        rows = {split: float(sum(entry.n_labelled for entry in of)) for split, of in entries.items()}
        train_tiles = float(sum(entry.n_tiles for entry in entries["train"]))
    return ZoneWork(
        n_zones=len(zones),
        n_test=len(by_split["test"]),
        n_mapped=len(mapped),
        n_films=len(filmed(job, zones, job.cube_spec)),
        n_pixels=n_pixels(zones),
        rows=sum(rows.values()),
        train_rows=rows["train"],
        test_rows=rows["test"],
        train_tiles=train_tiles,
        n_classes=len(classes_of(job, samples, manifest)),
        is_sampled=manifest is None,
        n_regions=len({zone.region for zone in by_split["train"]}),
    )


def count_points(zones: Sequence[ZoneEntry], n_classes: int) -> ZoneWork:
    """The work of a table of points."""
    train, test = ([zone for zone in zones if zone.split == split] for split in ("train", "test"))
    n_train, n_test = (float(sum(zone.n_labelled for zone in of)) for of in (train, test))
    return ZoneWork(
        n_zones=len(zones), n_test=len(test), n_mapped=0, n_films=0, n_pixels=0,
        rows=n_train + n_test, train_rows=n_train, test_rows=n_test, train_tiles=0,
        n_classes=n_classes, is_sampled=False, n_regions=len({zone.region for zone in train}),
    )  # fmt: skip


def classes_of(job: JobConfig, samples: Sequence[ZoneSample], manifest: Manifest | None) -> tuple[CropClass, ...]:
    """Classes of the dataset, or those that a sample saw, in legend order."""
    if manifest is not None:
        return manifest.classes
    seen = {name for sample in samples for name in sample.classes}
    return tuple(crop for crop in job_legend(job).classes if crop.name in seen)


def over_budget(job: JobConfig, work: JobWork, worker_bytes: Mapping[str, float]) -> list[str]:
    """Why a worker cannot keep its memory budget, per family; empty where it can."""
    reasons = []
    for model, placement in work.placements.items():
        found, settings, budget = family(model), job.settings_of(model), placement.memory_bytes
        size = FitSize(work.zones.train_rows, work.zones.n_classes, settings.n_features(job.cube_spec), budget)
        try:
            settings.check(size)
        except ConfigError as error:
            reasons.append(str(error))
        is_measured = settings.fit_bytes(size) is None  # else `check` knows better
        if is_measured and (taken := worker_bytes.get(found.label, 0.0)) > budget:
            lower = f"{model}.{found.batch} or search.max_concurrent" if found.batch else "search.max_concurrent"
            reasons.append(
                f"a worker of the {found.label} takes {taken / GB:.3g} GB and may take {budget / GB:.3g} GB: lower "
                f"{lower}, or raise {model}.memory_gb"
            )
    return reasons


def n_pixels(zones: Sequence[Zone]) -> int:
    """Pixels of some zones."""
    return sum(zone.grid.height * zone.grid.width for zone in zones)


def _row_share(samples: Sequence[ZoneSample]) -> float:
    return sum(sample.rows for sample in samples) / n_pixels([sample.zone for sample in samples])


def _tile_share(job: JobConfig, samples: Sequence[ZoneSample]) -> float:
    return sum(sample.n_tiles for sample in samples) / _all_tiles(job, [sample.zone for sample in samples])


def _all_tiles(job: JobConfig, zones: Sequence[Zone]) -> int:
    sides = [[math.ceil(length / job.dataset.tile_size) for length in zone.grid.shape] for zone in zones]
    return sum(map(math.prod, sides))
