"""One zone of a dataset: composites and labels in, pixel table and tile shards out."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import InputError
from cropray.core.legend import IGNORE
from cropray.core.sensors import NODATA
from cropray.datasets.manifest import BandSums, ZoneEntry
from cropray.datasets.pixels import pixel_table
from cropray.datasets.separation import Trim, given_away
from cropray.datasets.storage import PIXEL_FILE, shard_hashes, write_tiles
from cropray.datasets.tiles import ZoneArrays, cut_tiles
from cropray.imagery.composites import read_composite, read_n_obs
from cropray.io.storage import relative, whole_folder
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.parcels.labels import read_labels, read_parcel_ids, read_parcel_index


@dataclass(frozen=True, slots=True)
class ZoneJob:
    """What is needed to build one zone; travels to a worker."""

    zone: Zone
    fold: int | None
    tile_size: int
    class_names: tuple[str, ...]
    """Names of the legend's classes, by class id."""
    trim: Trim
    workspace: Workspace
    cube: CubeSpec = STUDY_CUBE


def read_zone_arrays(zone: Zone, workspace: Workspace, cube: CubeSpec = STUDY_CUBE) -> ZoneArrays:
    """Composite, observation flags, labels and parcel index of a zone.

    Raises:
        MissingArtefactError: an earlier stage has not written one of them.
        InputError: one of them lies elsewhere than the zone.
        SchemaError: the composite is of another cube.
    """
    zone_id, grid = zone.zone_id, zone.grid
    return ZoneArrays(
        composite=read_composite(workspace.composite(zone_id), grid, cube),
        clear=read_n_obs(workspace.n_obs(zone_id), grid, cube) > 0,
        labels=read_labels(workspace.labels(zone_id), grid),
        parcels=read_parcel_index(workspace.parcel_index(zone_id), grid),
    )


def count_zone(zone: Zone, workspace: Workspace) -> tuple[dict[int, int], tuple[str, ...]]:
    """(class id → labelled pixels, ids of labelled parcels) of a zone, before any trimming."""
    labels = read_labels(workspace.labels(zone.zone_id), zone.grid)
    index = read_parcel_index(workspace.parcel_index(zone.zone_id), zone.grid)
    ids = read_parcel_ids(workspace.parcels(zone.zone_id))
    labelled = labels != IGNORE
    counts = np.bincount(labels[labelled])
    rows = np.flatnonzero(np.bincount(index[labelled & (index >= 0)]))
    return {int(i): int(counts[i]) for i in np.flatnonzero(counts)}, tuple(ids[row] for row in rows)


def build_zone(job: ZoneJob) -> ZoneEntry:
    """Write one zone's pixel table and tile shards, whole.

    Raises:
        MissingArtefactError: composites or labels are missing.
        SchemaError: the composite is of another cube.
        InputError: no labelled pixel is left.
    """
    zone, workspace = job.zone, job.workspace
    arrays = read_zone_arrays(zone, workspace, job.cube)
    ids = read_parcel_ids(workspace.parcels(zone.zone_id))
    away = given_away(arrays.parcels, ids, zone.grid, job.trim)
    labels = np.where(away, np.uint8(IGNORE), arrays.labels)
    n_trimmed = int((labels != arrays.labels).sum())
    arrays = ZoneArrays(arrays.composite, arrays.clear, labels, arrays.parcels)
    table = pixel_table(arrays, zone.zone_id, zone.region, job.cube)
    if len(table) == 0:
        raise InputError(_without_labels(zone.zone_id, n_trimmed))
    tiles = cut_tiles(arrays, job.tile_size)
    pixels_folder, tiles_folder = workspace.pixels(zone.zone_id), workspace.tiles(zone.zone_id)
    with whole_folder(pixels_folder) as folder:
        pq.write_table(table, folder / PIXEL_FILE, compression="zstd")
        files = shard_hashes(folder, relative(pixels_folder, workspace.dataset))
    with whole_folder(tiles_folder) as folder:
        write_tiles(tiles, zone, folder, job.cube)
        files |= shard_hashes(folder, relative(tiles_folder, workspace.dataset))
    ids_and_counts = zip(*np.unique(labels[labels != IGNORE], return_counts=True), strict=True)
    return ZoneEntry(
        zone_id=zone.zone_id,
        region=zone.region,
        split=zone.split,
        fold=job.fold,
        counts={job.class_names[class_id]: int(n) for class_id, n in ids_and_counts},
        n_trimmed=n_trimmed,
        n_tiles=len(tiles.row),
        sums=band_sums(arrays.composite, away),
        files=files,
        n_empty=int((~arrays.composite.any((0, 1)) & (labels != IGNORE)).sum()),
    )


def _without_labels(zone_id: str, n_trimmed: int) -> str:
    if n_trimmed:
        return (
            f"zone '{zone_id}' has no labelled pixel left ({n_trimmed} trimmed at borders of splits); "
            f"take the zone out of the table or lower dataset.buffer_m"
        )
    return (
        f"zone '{zone_id}' has no labelled pixel: no parcel of a class that the legend knows lies in it; "
        f"take the zone out of the table, or see its coverage in the output of `cropray labels`"
    )


def band_sums(composite: npt.NDArray[np.uint16], away: npt.NDArray[np.bool_] | None = None) -> BandSums:
    """Sums per band over all steps of pixels that hold data, labelled or not, of [T, C, H, W] digital numbers.

    `away` is [H, W] true for pixels that lie in or near another split's ground: they tell training nothing. None: none.
    """
    sums = []
    for band in composite.transpose(1, 0, 2, 3):  # one at a time: a zone of 10 km takes 0.1 GB each as numbers
        seen = band != NODATA if away is None else (band != NODATA) & ~away
        values = band[seen].astype(np.float64)
        sums.append((len(values), float(values.sum()), float(np.square(values, out=values).sum())))
    count, total, squares = zip(*sums, strict=True)
    return BandSums(count, total, squares)
