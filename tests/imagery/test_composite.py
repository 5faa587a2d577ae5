import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cropray.imagery.composite import median_network, monthly_median
from tests import oracles


def draw(n_scenes, shape=(5, 431), n_bands=4, seed=0, share_clear=0.5):
    """431 × 5 pixels end in the middle of a block of 1536."""
    rng = np.random.default_rng([seed, n_scenes])
    stack = rng.integers(0, 65_536, (n_scenes, n_bands, *shape)).astype(np.uint16)
    stack[rng.random(stack.shape) < 0.1] = rng.choice([0, 65_535])
    is_clear = rng.random((n_scenes, *shape)) < share_clear
    scl = np.where(
        is_clear, rng.integers(4, 8, is_clear.shape), rng.choice([0, 1, 2, 3, 8, 9, 10, 11, 255], is_clear.shape)
    )
    return stack, scl.astype(np.uint8)


@pytest.mark.parametrize("share_clear", [0.0, 0.15, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("n_scenes", range(26))
def test_equals_nanmedian(n_scenes, share_clear):
    stack, scl = draw(n_scenes, share_clear=share_clear)
    median, n_obs = monthly_median(stack, scl)
    expected, expected_n_obs = oracles.monthly_median(stack, scl)
    np.testing.assert_array_equal(median, expected)
    np.testing.assert_array_equal(n_obs, expected_n_obs)
    assert (median.dtype, n_obs.dtype) == (np.uint16, np.uint8)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_equals_nanmedian_for_any_input(data):
    shape = data.draw(st.tuples(st.integers(0, 9), st.integers(1, 3), st.integers(1, 3), st.integers(1, 7)))
    stack = data.draw(arrays.arrays(np.uint16, shape, elements=st.sampled_from([0, 1, 2, 3, 65_534, 65_535])))
    scl = data.draw(arrays.arrays(np.uint8, (shape[0], *shape[2:]), elements=st.integers(0, 11)))
    for ours, expected in zip(monthly_median(stack, scl), oracles.monthly_median(stack, scl), strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1536), (2, 1536), (1, 1537), (3, 1365)])
def test_block_edges(shape):
    stack, scl = draw(7, shape)
    np.testing.assert_array_equal(monthly_median(stack, scl)[0], oracles.monthly_median(stack, scl)[0])


def test_two_middle_values_are_averaged_half_up():
    stack = np.array([10, 13], np.uint16).reshape(2, 1, 1, 1)
    median, _ = monthly_median(stack, np.full((2, 1, 1), 4, np.uint8))
    assert median.item() == 12  # (10 + 13) / 2 = 11.5


def test_does_not_depend_on_memory_layout_or_scene_order():
    stack, scl = draw(8)
    expected = monthly_median(stack, scl)[0]
    strided = np.asfortranarray(stack)
    np.testing.assert_array_equal(monthly_median(strided, np.asfortranarray(scl))[0], expected)
    np.testing.assert_array_equal(monthly_median(stack[::-1], scl[::-1])[0], expected)


@pytest.mark.parametrize("n", range(1, 15))
def test_network_brings_the_middle_into_place(n):
    # Zero-one principle (Knuth 5.3.4, theorem Z): a network right for all 0-1 inputs is right for all inputs.
    rows = np.array(list(itertools.product((0, 1), repeat=n)), np.uint8).T
    ordered = np.sort(rows, axis=0)
    for low, high in median_network(n):
        rows[low], rows[high] = np.minimum(rows[low], rows[high]), np.maximum(rows[low], rows[high])
    for rank in {max(n // 2 - 1, 0), (n - 1) // 2, n // 2}:
        np.testing.assert_array_equal(rows[rank], ordered[rank])


@pytest.mark.parametrize("n", [8, 12, 16])
def test_network_takes_up_sorted_runs(n):
    rows = np.array(list(itertools.product((0, 1), repeat=n)), np.uint8).T
    for start in range(0, n, 8):
        rows[start : start + 8] = np.sort(rows[start : start + 8], axis=0)
    ordered = np.sort(rows, axis=0)
    for low, high in median_network(n, first_run=8):
        rows[low], rows[high] = np.minimum(rows[low], rows[high]), np.maximum(rows[low], rows[high])
    np.testing.assert_array_equal(rows[n // 2 - 1 : n // 2 + 1], ordered[n // 2 - 1 : n // 2 + 1])


def test_most_scenes_that_can_be_counted():
    stack, scl = draw(255, (1, 3), n_bands=1, share_clear=1.0)
    median, n_obs = monthly_median(stack, scl)
    np.testing.assert_array_equal(median, oracles.monthly_median(stack, scl)[0])
    assert n_obs.tolist() == [[255, 255, 255]]


@pytest.mark.parametrize(
    ("stack", "scl", "said"),
    [
        (np.zeros((2, 4, 3, 3), np.uint16), np.zeros((2, 3, 4), np.uint8), r"\(2, 3, 4\)"),
        (np.zeros((2, 4, 3, 3), np.float32), np.zeros((2, 3, 3), np.uint8), "float32"),
        (np.zeros((2, 4, 3, 3), np.uint16), np.zeros((2, 3, 3), np.int64), "int64"),
        (np.zeros((256, 1, 1, 1), np.uint16), np.zeros((256, 1, 1), np.uint8), "256 scenes"),
    ],
)
def test_refuses_what_it_cannot_count(stack, scl, said):
    with pytest.raises(ValueError, match=said):
        monthly_median(stack, scl)
