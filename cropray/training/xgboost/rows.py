"""Rows of boosted trees where Ray keeps them: each worker's share, and what is counted over all of them before a fit."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray

from cropray.training.pixel_blocks import TreeData, checked_rows, class_indices, features, in_batches, worker_rows
from cropray.training.xgboost.binning import Counts, count_values, no_counts
from cropray.training.xgboost.settings import XgboostSettings


def count_values_and_classes(settings: XgboostSettings, data: TreeData) -> tuple[Counts, Counts]:
    """([F, 65536] rows per feature and digital number, [K] rows per class), counted here or in Ray tasks and added."""
    n = max(settings.num_workers, 1)
    if settings.num_workers == 0:
        return _count_share(data, 0, n)
    task = ray.remote(_count_share).options(num_cpus=1, scheduling_strategy="DEFAULT")
    values, classes = no_counts(len(data.columns)), np.zeros(data.n_classes, np.int64)
    for values_of_share, classes_of_share in ray.get([task.remote(data, rank, n) for rank in range(n)]):
        values += values_of_share
        classes += classes_of_share
    return values, classes


def _count_share(data: TreeData, rank: int, n_workers: int) -> tuple[Counts, Counts]:
    values, classes = no_counts(len(data.columns)), np.zeros(data.n_classes, np.int64)
    # By `map`, since a loop over the batches would hold the last one of a zone while the next zone is fetched.
    for labels, counts in map(partial(_count_batch, data), in_batches(worker_tables(data, rank, n_workers))):
        values += counts
        classes += np.bincount(labels, minlength=data.n_classes)
    return values, classes


def _count_batch(data: TreeData, rows: pa.Table) -> tuple[npt.NDArray[np.uint8], Counts]:
    return class_indices(rows, data.lookup()), count_values(features(rows, columns=data.columns))


def worker_tables(data: TreeData, rank: int, n_workers: int) -> Iterator[pa.Table]:
    """The rows of one worker, one zone after the other: none is held while the next one is fetched."""
    for part in worker_rows(data, rank, n_workers):
        yield zone_rows(data, part.zone_id).slice(part.start, part.stop - part.start)


def zone_rows(data: TreeData, zone_id: str) -> pa.Table:
    """Rows of a zone, proved to be as many as the manifest counts.

    Raises:
        AccountingError: rows were lost or doubled on the way.
    """
    block = data.blocks[zone_id]
    rows = block.rows if isinstance(block.rows, pa.Table) else ray.get(block.rows)
    return checked_rows(zone_id, block, rows)
