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

from cropray.core.sensors import NODATA

N_VALUES: Final = 1 << 16  # of uint16 digital numbers

Counts = npt.NDArray[np.int64]


def no_counts(n_features: int) -> Counts:
    """[F, 65536] rows per feature and digital number: none yet."""
    return np.zeros((n_features, N_VALUES), np.int64)


def count_values(counts: Counts, features: npt.NDArray[np.uint16]) -> Counts:
    """Add rows to the counts, which are those returned: as fast for zones of a few rows as for large ones.

    Args:
        counts: [F, 65536], see `no_counts`.
        features: [N, F] uint16.
    """
    for of_feature, column in zip(counts, features.T, strict=True):
        np.add.at(of_feature, column, 1)
    return counts


def bin_table(counts: Counts, max_bin: int) -> npt.NDArray[np.uint16]:
    """For every digital number the lower edge of its bin.

    The edges are the exact quantiles k/max_bin of the values that are not missing; a feature with at most `max_bin`
    different values gets one bin for each. 0, missing, stays 0. A number below the first edge, which only rows that
    were not counted can have, gets that edge: the same bin.

    Args:
        counts: [F, 65536] rows per digital number.
        max_bin: most bins per feature.

    Returns:
        [F, 65536] uint16.
    """
    return np.stack([_lower_edges(_edges(column, max_bin)) for column in counts])


def _edges(counts: npt.NDArray[np.int64], max_bin: int) -> npt.NDArray[np.uint16]:
    """Rising, empty where every value is missing."""
    present = counts.copy()
    present[NODATA] = 0
    values = np.flatnonzero(present)
    if len(values) > max_bin:
        total = present.sum()
        ranks = np.arange(max_bin) * total // max_bin  # row number of each quantile among the sorted rows
        values = np.unique(np.searchsorted(np.cumsum(present), ranks, side="right"))
    return values.astype(np.uint16)


def _lower_edges(edges: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    if len(edges) == 0:
        return np.zeros(N_VALUES, np.uint16)
    bins = np.searchsorted(edges, np.arange(N_VALUES), side="right") - 1
    lowered = edges[np.maximum(bins, 0)]
    lowered[NODATA] = NODATA
    return lowered
