"""Pixel tables as families of pixels see them: blocks of Arrow rows, divided among workers and cut into batches.

Needs numpy only: the rows are Arrow tables, made elsewhere.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from cropray.core.errors import AccountingError, SchemaError
from cropray.core.features import STUDY_FEATURES, FeatureSet
from cropray.core.legend import IGNORE, CropClass

if TYPE_CHECKING:
    import pyarrow as pa
    from ray import ObjectRef

    from cropray.training.family import Fit, FitData

BATCH_ROWS: Final = 1 << 16  # rows per step of the matrix build; the study's uint16 features: 6 MiB
LABEL: Final = "label"
WEIGHT: Final = "weight"


@dataclass(frozen=True, slots=True)
class PixelBlock:
    """Rows of a pixel table, usually one zone's, or where Ray keeps them."""

    rows: "pa.Table | ObjectRef[pa.Table]"
    """Columns `label` (legend class id), the cube's and, where rows are weighted, `weight`; others are ignored."""
    n_rows: int
    """As the manifest counts them."""


@dataclass(frozen=True, slots=True)
class TreeData:
    """Labelled pixels of some zones."""

    blocks: Mapping[str, PixelBlock]
    """Zone id → rows. The order is the order of the rows in the matrix."""
    classes: tuple[CropClass, ...]
    """Classes of the dataset; their position is the index that models predict."""
    legend_hash: str
    """Hash of the legend that the class ids belong to."""
    features: FeatureSet = STUDY_FEATURES
    """What a model reads, computed from the rows' cube."""
    is_weighted: bool = False
    """Whether the rows count by weights of their own: those of training, where the dataset has such."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return self.features.columns

    @property
    def n_classes(self) -> int:
        """Classes of the dataset, present in these zones or not."""
        return len(self.classes)

    @property
    def n_rows(self) -> int:
        """Pixels of all zones."""
        return sum(block.n_rows for block in self.blocks.values())

    def lookup(self) -> npt.NDArray[np.uint8]:
        """See `class_lookup`."""
        return class_lookup(self.classes)


def class_lookup(classes: Sequence[CropClass]) -> npt.NDArray[np.uint8]:
    """[256] uint8: stored class id → class index; IGNORE for everything else."""
    table = np.full(256, IGNORE, np.uint8)
    table[[crop.id for crop in classes]] = np.arange(len(classes))
    return table


def tree_data(data: "FitData", job: "Fit") -> TreeData:
    """One side of a fit as rows, in the order of its zones."""
    blocks = {zone_id: PixelBlock(block, data.n_rows[zone_id]) for zone_id, block in data.blocks.items()}
    of = FeatureSet(job.cube, tuple(job.settings.features))
    return TreeData(blocks, job.classes, job.legend_hash, of, is_weighted=job.is_weighted and data is job.train)


@dataclass(frozen=True, slots=True)
class RowRange:
    """Consecutive rows of one zone's block."""

    zone_id: str
    start: int
    stop: int


def worker_rows(data: TreeData, rank: int, n_workers: int) -> tuple[RowRange, ...]:
    """The rows of one worker: equal shares of all rows in order, whatever the zones' sizes.

    All workers together hold every row once; their shares differ by at most one row.
    """
    first, last = (data.n_rows * r // n_workers for r in (rank, rank + 1))
    ranges, offset = [], 0
    for zone_id, block in data.blocks.items():
        start, stop = max(first - offset, 0), min(last - offset, block.n_rows)
        if start < stop:
            ranges.append(RowRange(zone_id, start, stop))
        offset += block.n_rows
    return tuple(ranges)


def checked_rows(zone_id: str, block: PixelBlock, rows: "pa.Table") -> "pa.Table":
    """The rows of a block, proved to be as many as the manifest counts.

    Raises:
        AccountingError: rows were lost or doubled on the way.
    """
    if rows.num_rows != block.n_rows:
        raise AccountingError(
            f"zone '{zone_id}' has {rows.num_rows} rows in its pixel table and {block.n_rows} in the manifest; "
            f"run `cropray dataset CONFIG.yaml --set overwrite=true`"
        )
    return rows


def features(
    rows: "pa.Table", table: npt.NDArray[np.uint16] | None = None, of: FeatureSet = STUDY_FEATURES
) -> npt.NDArray[np.uint16]:
    """Features of some rows.

    Args:
        rows: a pixel table.
        table: [F, 65536] stored number → what to put in its place, from `binning.bin_table`; None: the features themselves.
        of: the F features.

    Returns:
        [N, F] uint16 in the order of `of.columns`, 0 = missing.
    """
    if table is None:
        return of.compute(samples(rows, of.cube.columns))
    values: Iterable[npt.NDArray[np.uint16]] = (
        (rows[name].to_numpy() for name in of.columns) if of.is_raw else features(rows, of=of).T
    )
    return np.stack([numbers[column] for numbers, column in zip(table, values, strict=True)], axis=1)


def samples(rows: "pa.Table", columns: Sequence[str]) -> npt.NDArray[np.uint16]:
    """[N, columns] uint16 stored numbers of some rows as they are, 0 = no data."""
    return np.stack([rows[name].to_numpy() for name in columns], axis=1)


def class_indices(rows: "pa.Table", lookup: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """[N] uint8 class index of each row.

    Raises:
        SchemaError: a stored class id is not a class of the dataset.
    """
    stored = rows[LABEL].to_numpy()
    indices: npt.NDArray[np.uint8] = lookup[stored]
    if (indices == IGNORE).any():
        unknown = np.unique(stored[indices == IGNORE]).tolist()
        raise SchemaError(
            f"the pixel table holds the class ids {unknown}, which are no classes of this dataset; "
            f"run `cropray dataset CONFIG.yaml --set overwrite=true`"
        )
    return indices


def own_weights(rows: "pa.Table", data: TreeData) -> npt.NDArray[np.float32] | None:
    """[N] what the dataset says of some rows of `data`; None: all count once."""
    return rows[WEIGHT].to_numpy() if data.is_weighted else None


def in_batches(tables: "Iterable[pa.Table]") -> "Iterator[pa.Table]":
    """Slices of at most `BATCH_ROWS` rows; no table is held while the next one is fetched."""
    for table in tables:
        for start in range(0, table.num_rows, BATCH_ROWS):
            yield table.slice(start, BATCH_ROWS)
        del table  # before the next one is fetched
