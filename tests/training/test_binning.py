"""Exact bins: quantiles by counting, and trees that hold for raw values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cropray.training.xgboost.binning import bin_table, count_values, no_counts

values = st.lists(st.integers(0, 60), min_size=1, max_size=80).map(lambda v: np.array(v, np.uint16)[:, None])


def counted(features: np.ndarray) -> np.ndarray:
    return count_values(no_counts(features.shape[1]), features)


def test_counts_are_those_of_each_column() -> None:
    features = np.random.default_rng(0).integers(0, 65536, (500, 3)).astype(np.uint16)
    found = count_values(counted(features[:400]), features[400:])
    for column, counts in zip(features.T, found, strict=True):
        np.testing.assert_array_equal(counts, np.bincount(column, minlength=65536))


def _lowered(column: np.ndarray, max_bin: int) -> np.ndarray:
    """The column of one feature, each value lowered to its bin's edge."""
    return bin_table(counted(column), max_bin)[0][column]


def test_edges_are_the_exact_quantiles() -> None:
    # 1 … 100 once each in 4 bins: the quantiles 0, 1/4, 2/4, 3/4 are the rows number 0, 25, 50, 75.
    lowered = _lowered(np.arange(1, 101, dtype=np.uint16)[:, None], 4)
    np.testing.assert_array_equal(lowered[:, 0], np.repeat([1, 26, 51, 76], 25))


def test_few_values_have_a_bin_each_and_missing_has_none() -> None:
    column = np.array([[0], [7], [7], [3], [0]], np.uint16)
    np.testing.assert_array_equal(_lowered(column, 4), column)


def test_a_feature_that_is_always_missing_stays_missing() -> None:
    column = np.zeros((3, 1), np.uint16)
    np.testing.assert_array_equal(bin_table(counted(column), 4), np.zeros((1, 65536)))


@given(values, st.integers(2, 9))
def test_lowered_values_split_as_raw_ones(column: np.ndarray, max_bin: int) -> None:
    lowered = _lowered(column, max_bin)
    np.testing.assert_array_equal(lowered == 0, column == 0)
    edges = np.unique(lowered[lowered > 0])
    assert len(edges) <= max_bin
    for threshold in edges[1:]:  # a split at the first edge would divide nothing
        np.testing.assert_array_equal((lowered < threshold)[column > 0], (column < threshold)[column > 0])


@given(values, st.integers(0, 80))
def test_counts_of_parts_add_up(column: np.ndarray, cut: int) -> None:
    np.testing.assert_array_equal(count_values(counted(column[:cut]), column[cut:]), counted(column))


@pytest.mark.parametrize(("value", "edge"), [(1, 10), (19, 10), (20, 20), (29, 20), (30, 30), (65535, 30)])
def test_values_that_were_not_counted_fall_into_the_bins_around_them(value: int, edge: int) -> None:
    table = bin_table(counted(np.array([[10], [20], [30]], np.uint16)), 4)
    assert table[0, value] == edge
