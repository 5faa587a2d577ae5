"""What is counted over all rows before boosted trees are grown, each worker's share in a task of Ray."""

from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray

from cropray.training.pixel_blocks import TreeData, class_indices, features, in_batches
from cropray.training.pixels import worker_tables
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
    for labels in map(partial(_count_batch, data, values), in_batches(worker_tables(data, rank, n_workers))):
        classes += np.bincount(labels, minlength=data.n_classes)
    return values, classes


def _count_batch(data: TreeData, values: Counts, rows: pa.Table) -> npt.NDArray[np.uint8]:
    count_values(values, features(rows, of=data.features))
    return class_indices(rows, data.lookup())
