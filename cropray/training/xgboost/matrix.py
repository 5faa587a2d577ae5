"""Rows of blocks on their way into XGBoost's quantile matrix; needs numpy and xgboost only."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from cropray.core.features import STUDY_FEATURES, FeatureSet
from cropray.core.sensors import NODATA
from cropray.training.pixel_blocks import class_indices, features, in_batches

if TYPE_CHECKING:
    import pyarrow as pa


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
        weights: "Callable[[pa.Table, npt.NDArray[np.uint8]], npt.NDArray[np.float32] | None] | None" = None,
        of: FeatureSet = STUDY_FEATURES,
    ) -> None:
        """Prepare the first pass.

        Args:
            tables: begins a pass over the rows.
            lookup: the dataset's class lookup.
            table: the fit's `bin_table`.
            cache: what the names of a matrix on disk begin with; None: in memory.
            weights: (rows, their [N] class indices) → their [N] weights; None: 1.
            of: the features.
        """
        self._tables = tables
        self._lookup = lookup
        self._table = table
        self._weights = weights
        self._of = of
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
        weights = None if self._weights is None else self._weights(rows, labels)
        weight = {} if weights is None else {"weight": weights}
        input_data(data=features(rows, self._table, self._of), label=labels, **weight)
        return True


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
