"""Exact bins of the features, the same on any number of workers and with any engine.

XGBoost approximates the quantiles that it splits at, and its approximation changes with the way rows are divided
among workers. Digital numbers are small integers, so their exact counts are cheap: workers count, the counts are
added, and every training value is lowered to the edge of its bin. XGBoost then sees at most `max_bin` different
values and splits at exactly these edges. Since a value lies below an edge if and only if its own bin's edge does,
the trees hold for raw values as they are.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.bands import N_FEATURES, NODATA

N_VALUES: Final = 1 << 16  # of uint16 digital numbers

Counts = npt.NDArray[np.int64]
Edges = tuple[npt.NDArray[np.uint16], ...]


def count_values(features: npt.NDArray[np.uint16]) -> Counts:
    """Rows per feature and digital number.

    Args:
        features: [N, F] uint16.

    Returns:
        [F, 65536] int64.
    """
    return np.stack([np.bincount(column, minlength=N_VALUES) for column in features.T]).astype(np.int64)


def no_counts() -> Counts:
    """Counts of no row, to add to."""
    return np.zeros((N_FEATURES, N_VALUES), np.int64)


def bin_edges(counts: Counts, max_bin: int) -> Edges:
    """Lower edge of each bin, per feature: the exact quantiles k/max_bin of the values that are not missing.

    Args:
        counts: [F, 65536] rows per digital number.
        max_bin: most bins per feature; a feature with fewer different values gets one bin for each.

    Returns:
        Per feature a rising array, empty where every value is missing.
    """
    return tuple(_edges(column, max_bin) for column in counts)


def lower_to_edges(features: npt.NDArray[np.uint16], edges: Edges) -> npt.NDArray[np.uint16]:
    """Replace each value by the largest edge that is not above it; 0, missing, stays 0.

    A value below the first edge, which only validation rows can have, becomes that edge: the same bin.

    Args:
        features: [N, F] digital numbers, 0 = missing.
        edges: per feature, from `bin_edges`.
    """
    lowered = np.empty_like(features)
    for index, (column, edge) in enumerate(zip(features.T, edges, strict=True)):
        if len(edge) == 0:
            lowered[:, index] = NODATA
            continue
        bins = np.maximum(np.searchsorted(edge, column, side="right"), 1) - 1
        lowered[:, index] = np.where(column == NODATA, NODATA, edge[bins])
    return lowered


def _edges(counts: npt.NDArray[np.int64], max_bin: int) -> npt.NDArray[np.uint16]:
    present = counts.copy()
    present[NODATA] = 0
    values = np.flatnonzero(present)
    if len(values) > max_bin:
        total = present.sum()
        ranks = np.arange(max_bin) * total // max_bin  # row number of each quantile among the sorted rows
        values = np.unique(np.searchsorted(np.cumsum(present), ranks, side="right"))
    return values.astype(np.uint16)
