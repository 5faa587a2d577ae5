"""Exact bins: quantiles by counting, and trees that hold for raw values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cropray.training.binning import bin_edges, count_values, lower_to_edges

values = st.lists(st.integers(0, 60), min_size=1, max_size=80).map(lambda v: np.array(v, np.uint16)[:, None])


def test_edges_are_the_exact_quantiles() -> None:
    # 1 … 100 once each in 4 bins: the quantiles 0, 1/4, 2/4, 3/4 are the rows number 0, 25, 50, 75.
    (edges,) = bin_edges(count_values(np.arange(1, 101, dtype=np.uint16)[:, None]), 4)
    np.testing.assert_array_equal(edges, [1, 26, 51, 76])


def test_few_values_have_a_bin_each_and_missing_has_none() -> None:
    (edges,) = bin_edges(count_values(np.array([[0], [7], [7], [3], [0]], np.uint16)), 4)
    np.testing.assert_array_equal(edges, [3, 7])


def test_a_feature_that_is_always_missing_stays_missing() -> None:
    column = np.zeros((3, 1), np.uint16)
    edges = bin_edges(count_values(column), 4)
    assert len(edges[0]) == 0
    np.testing.assert_array_equal(lower_to_edges(column, edges), column)


@given(values, st.integers(2, 9))
def test_lowered_values_split_as_raw_ones(column: np.ndarray, max_bin: int) -> None:
    edges = bin_edges(count_values(column), max_bin)
    lowered = lower_to_edges(column, edges)
    assert len(edges[0]) <= max_bin
    np.testing.assert_array_equal(lowered == 0, column == 0)
    for threshold in edges[0][1:]:  # a split at the first edge would divide nothing
        np.testing.assert_array_equal((lowered < threshold)[column > 0], (column < threshold)[column > 0])


@given(values, st.integers(0, 80))
def test_counts_of_parts_add_up(column: np.ndarray, cut: int) -> None:
    parts = count_values(column[:cut]) + count_values(column[cut:])
    np.testing.assert_array_equal(parts, count_values(column))


@pytest.mark.parametrize("value", [1, 29, 30, 65535])
def test_values_outside_the_counted_range_fall_into_the_outer_bins(value: int) -> None:
    edges = (np.array([10, 20, 30], np.uint16),)
    expected = 10 if value < 20 else 30 if value >= 30 else 20
    assert lower_to_edges(np.array([[value]], np.uint16), edges)[0, 0] == expected
