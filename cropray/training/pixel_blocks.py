"""Pixel tables as tree training sees them: blocks of Arrow rows, divided among workers and streamed into a matrix.

Needs numpy and xgboost only: the rows are Arrow tables, made elsewhere.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from cropray.bands import FEATURE_COLUMNS, NODATA
from cropray.errors import AccountingError, SchemaError

if TYPE_CHECKING:
    import pyarrow as pa
    from ray import ObjectRef

    from cropray.legend import CropClass
    from cropray.training.family import Fit, FitData

BATCH_ROWS: Final = 1 << 16  # rows per step of the matrix build; 48 uint16 features: 6 MiB
LABEL: Final = "label"
IGNORE: Final = 255  # class index of what is no class of the dataset, see cropray.legend


@dataclass(frozen=True, slots=True)
class PixelBlock:
    """Rows of a pixel table, usually one zone's, or where Ray keeps them."""

    rows: "pa.Table | ObjectRef[pa.Table]"
    """Columns `label` (legend class id) and the 48 features; others are ignored."""
    n_rows: int
    """As the manifest counts them."""


@dataclass(frozen=True, slots=True)
class TreeData:
    """Labelled pixels of some zones."""

    blocks: Mapping[str, PixelBlock]
    """Zone id → rows. The order is the order of the rows in the matrix."""
    classes: "tuple[CropClass, ...]"
    """Classes of the dataset; their position is the index that models predict."""
    legend_hash: str
    """Hash of the legend that the class ids belong to."""

    @property
    def n_classes(self) -> int:
        """Classes of the dataset, present in these zones or not."""
        return len(self.classes)

    @property
    def n_rows(self) -> int:
        """Pixels of all zones."""
        return sum(block.n_rows for block in self.blocks.values())

    def lookup(self) -> npt.NDArray[np.uint8]:
        """[256] uint8: stored class id → class index; IGNORE for everything else."""
        table = np.full(256, IGNORE, np.uint8)
        for index, crop in enumerate(self.classes):
            table[crop.id] = index
        return table


def tree_data(data: "FitData", job: "Fit") -> TreeData:
    """One side of a fit as rows, in the order of its zones."""
    blocks = {zone_id: PixelBlock(block, data.n_rows[zone_id]) for zone_id, block in data.blocks.items()}
    return TreeData(blocks, job.classes, job.legend_hash)


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


def features(rows: "pa.Table", table: npt.NDArray[np.uint16] | None = None) -> npt.NDArray[np.uint16]:
    """Features of some rows.

    Args:
        rows: a pixel table.
        table: [48, 65536] digital number → what to put in its place, from `binning.bin_table`; None: raw values.

    Returns:
        [N, 48] uint16 digital numbers in the order of `FEATURE_COLUMNS`, 0 = missing.
    """
    columns = (rows[name].to_numpy() for name in FEATURE_COLUMNS)
    if table is None:
        return np.stack(list(columns), axis=1)
    return np.stack([numbers[column] for numbers, column in zip(table, columns, strict=True)], axis=1)


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


class BlockBatches(xgb.DataIter):  # type: ignore[misc]  # xgboost has no types
    """Feeds rows of blocks to XGBoost's quantile matrix, batch by batch, as uint16: no float copy is ever made.

    One block is held at a time, and fetched anew for every pass over the data.
    """

    def __init__(
        self,
        tables: "Callable[[], Iterable[pa.Table]]",
        lookup: npt.NDArray[np.uint8],
        table: npt.NDArray[np.uint16],
        cache: Path | None = None,
        weights: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Prepare the first pass.

        Args:
            tables: begins a pass over the rows.
            lookup: the dataset's class lookup.
            table: the fit's `bin_table`.
            cache: what the names of a matrix on disk begin with; None: in memory.
            weights: [K] of the rows of each class; None: 1.
        """
        self._tables = tables
        self._lookup = lookup
        self._table = table
        self._weights = weights
        self._batches = in_batches(tables())
        super().__init__(cache_prefix=None if cache is None else str(cache))

    def reset(self) -> None:
        """Start again: a quantile matrix reads its input several times."""
        self._batches = in_batches(self._tables())

    def next(self, input_data: Callable[..., Any]) -> bool:
        """Hand over one batch; False after the last."""
        rows = next(self._batches, None)
        if rows is None:
            return False
        labels = class_indices(rows, self._lookup)
        weight = {} if self._weights is None else {"weight": self._weights[labels]}
        input_data(data=features(rows, self._table), label=labels, **weight)
        return True


def in_batches(tables: "Iterable[pa.Table]") -> "Iterator[pa.Table]":
    """Slices of at most `BATCH_ROWS` rows; no table is held while the next one is fetched."""
    for table in tables:
        for start in range(0, table.num_rows, BATCH_ROWS):
            yield table.slice(start, BATCH_ROWS)
        del table  # before the next one is fetched


def quantile_matrix(
    batches: BlockBatches, max_bin: int, n_threads: int, ref: xgb.DMatrix | None = None, *, is_on_disk: bool = False
) -> xgb.DMatrix:
    """The binned matrix of some rows.

    Args:
        batches: rows of this worker; with a cache where the bins go to disk.
        max_bin: bins per feature.
        n_threads: threads of the build.
        ref: training matrix whose bins a validation matrix takes over.
        is_on_disk: keep the bins in the cache of `batches` and read them again for every level of every tree. The
            trees are the same; a fit takes several times as long.
    """
    make = xgb.ExtMemQuantileDMatrix if is_on_disk else xgb.QuantileDMatrix
    return make(batches, missing=NODATA, max_bin=max_bin, nthread=n_threads, ref=ref)
