import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cropray.imagery.gapfill import fill_gaps
from tests import oracles


def draw(shape=(12, 4, 9, 11), share_valid=0.5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 65_536, shape).astype(np.uint16)
    return x, rng.random((shape[0], *shape[2:])) < share_valid


@pytest.mark.parametrize("share_valid", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_equals_the_loops(share_valid):
    x, valid = draw(share_valid=share_valid)
    np.testing.assert_array_equal(fill_gaps(x, valid), oracles.fill_gaps(x, valid))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_equals_the_loops_for_any_input(data):
    shape = data.draw(st.tuples(st.integers(0, 6), st.integers(1, 2), st.integers(1, 2), st.integers(1, 3)))
    x = data.draw(arrays.arrays(np.uint16, shape))
    valid = data.draw(arrays.arrays(np.bool_, (shape[0], *shape[2:])))
    np.testing.assert_array_equal(fill_gaps(x, valid), oracles.fill_gaps(x, valid))


@pytest.mark.parametrize("share_valid", [0.3, 0.7])
def test_equals_the_study_where_its_rule_is_defined(share_valid):
    x, valid = draw(share_valid=share_valid)
    study, is_defined = oracles.fill_gaps_as_the_study(x, valid), oracles.study_rule_is_defined(valid)
    assert is_defined.any()
    ours = fill_gaps(x, valid)
    is_comparable = np.broadcast_to((is_defined | valid)[:, None], x.shape)
    np.testing.assert_array_equal(ours[is_comparable], study[is_comparable])


def test_every_block_is_filled():
    x, valid = draw((12, 2, 3, 4096 + 5))
    columns = [0, 4095, 4096, 4100]
    np.testing.assert_array_equal(
        fill_gaps(x, valid)[..., columns], oracles.fill_gaps(x[..., columns], valid[..., columns])
    )


def test_reads_observed_values_only_and_changes_nothing():
    x, valid = draw()
    before = x.copy()
    scrambled = np.where(valid[:, None], x, 12_345).astype(np.uint16)
    np.testing.assert_array_equal(fill_gaps(x, valid), fill_gaps(scrambled, valid))
    np.testing.assert_array_equal(x, before)


def test_long_gap_takes_the_mean_of_its_ends():
    x = np.array([0, 100, 0, 0, 205, 0], np.uint16).reshape(6, 1, 1, 1)
    valid = (x > 0)[:, 0]
    assert fill_gaps(x, valid).ravel().tolist() == [100, 100, 153, 153, 205, 205]  # 152.5 rounds up


def test_refuses_a_mask_of_another_shape_or_type():
    x, valid = draw()
    with pytest.raises(ValueError, match="valid"):
        fill_gaps(x, valid[:, 1:])
    with pytest.raises(ValueError, match="uint8"):
        fill_gaps(x, valid.astype(np.uint8))
