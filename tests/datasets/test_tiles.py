"""Tiles cover a zone once and give it back."""

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cropray.core.legend import IGNORE
from cropray.datasets.tiles import ZoneArrays, cut_tiles
from tests.oracles import stitch_labels
from tests.study import N_BANDS, N_MONTHS, NODATA
from tests.synthetic import zone_arrays

shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))


def small_zone(shape, labels=None):
    """A zone whose pixels are all different in the first band of the first month."""
    composite = np.zeros((N_MONTHS, N_BANDS, *shape), np.uint16)
    composite[0, 0] = np.arange(1, shape[0] * shape[1] + 1).reshape(shape)
    labels = np.zeros(shape, np.uint8) if labels is None else labels
    return ZoneArrays(composite, np.ones((N_MONTHS, *shape), bool), labels, np.zeros(shape, np.int32))


@given(shapes, st.integers(1, 9))
def test_tiles_cover_each_pixel_once(shape, size):
    tiles = cut_tiles(small_zone(shape), size)
    assert tiles.x.shape == (len(tiles.row), N_MONTHS, N_BANDS, size, size)
    assert tiles.valid.shape == (len(tiles.row), N_MONTHS, size, size)
    seen = tiles.x[:, 0, 0]
    np.testing.assert_array_equal(np.sort(seen[seen != NODATA]), np.arange(1, shape[0] * shape[1] + 1))
    # What lies beyond the edge is neither data, nor labelled, nor observed.
    np.testing.assert_array_equal(tiles.labels == IGNORE, seen == NODATA)
    np.testing.assert_array_equal(tiles.valid.all(1), seen != NODATA)
    np.testing.assert_array_equal(tiles.valid.any(1), seen != NODATA)


@given(shapes, st.integers(1, 9), st.randoms(use_true_random=False))
def test_tiles_stitch_back(shape, size, random):
    draws = [random.choice([0, 7, 254, *[IGNORE] * 9]) for _ in range(shape[0] * shape[1])]
    labels = np.array(draws, np.uint8).reshape(shape)
    tiles = cut_tiles(small_zone(shape, labels), size)
    np.testing.assert_array_equal(stitch_labels(tiles, shape), labels)
    assert (tiles.labels != IGNORE).any((1, 2)).all()  # tiles without labels are left out


def test_a_tile_is_a_window_of_the_zone():
    zone = zone_arrays((40, 56))
    tiles = cut_tiles(zone, 16)
    assert list(zip(tiles.row, tiles.col, strict=True)) == [(r, c) for r in (0, 16, 32) for c in (0, 16, 32, 48)]
    number = 5  # the tile at row 16, column 16 lies inside
    window = np.s_[..., 16:32, 16:32]
    np.testing.assert_array_equal(tiles.x[number], zone.composite[window])
    np.testing.assert_array_equal(tiles.valid[number], zone.clear[window])
    np.testing.assert_array_equal(tiles.labels[number], zone.labels[window])


def test_a_zone_without_labels_has_no_tiles():
    zone = zone_arrays((16, 16))
    tiles = cut_tiles(dataclasses.replace(zone, labels=np.full_like(zone.labels, IGNORE)), 8)
    assert tiles.x.shape == (0, N_MONTHS, N_BANDS, 8, 8)
    assert (tiles.x.dtype, tiles.labels.dtype, tiles.valid.dtype) == (np.uint16, np.uint8, np.bool_)
    np.testing.assert_array_equal(stitch_labels(tiles, (16, 16)), IGNORE)
