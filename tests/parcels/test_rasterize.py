import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from cropray.core.legend import IGNORE
from cropray.parcels.rasterize import rasterize_parcels
from tests import oracles
from tests.parcels.polygons import GRID, read_frame, square


def rasterize(parcels, class_ids=None):
    ids = np.arange(len(parcels)) if class_ids is None else class_ids
    rasters = rasterize_parcels(parcels, np.asarray(ids, np.uint8), GRID)
    return rasters.labels, rasters.index


def draw_polygons(seed, n):
    """Convex polygons of any size that overlap each other and the edge of the grid."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform((-60, -60), (300, 260), (n, 1, 2)) + rng.uniform(-90, 90, (n, 7, 2))
    x_min, y_min, _, _ = GRID.bounds
    return [shapely.MultiPoint(points + np.array([x_min, y_min])).convex_hull for points in corners]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_pixel_belongs_to_the_top_parcel_that_holds_its_centre(seed, n):
    parcels = read_frame(draw_polygons(seed, n))
    labels, index = rasterize(parcels)
    expected = oracles.top_parcel(parcels, GRID)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(labels, np.where(expected < 0, IGNORE, expected))
    assert (labels.dtype, index.dtype) == (np.uint8, np.int32)


def test_order_of_rows_does_not_matter():
    parcels = read_frame(draw_polygons(3, 12))
    order = np.random.default_rng(0).permutation(12)
    _, index = rasterize(parcels)
    _, shuffled = rasterize(parcels.iloc[order].reset_index(drop=True))
    np.testing.assert_array_equal(np.where(shuffled < 0, -1, order[shuffled]), index)


def test_equal_parcels_lie_by_id_then_by_row():
    twice = square(2, 2, 5, 5)
    _, index = rasterize(read_frame([twice, twice], ids=["9", "10"]))
    assert index[3, 3] == 1  # text order: "10" before "9"
    _, index = rasterize(read_frame([twice, twice], ids=["a", "a"]))
    assert index[3, 3] == 0


def test_parcel_without_class_hides_what_lies_below():
    labels, index = rasterize(read_frame([square(0, 0, 20, 24), square(5, 5, 4, 4)]), class_ids=[7, IGNORE])
    assert (labels[6, 6], index[6, 6]) == (IGNORE, 1)
    assert (labels[0, 0], index[0, 0]) == (7, 0)
    assert (labels == IGNORE).sum() == 16


def test_no_parcel_at_all():
    labels, index = rasterize(read_frame([]))
    assert (labels == IGNORE).all()
    assert (index == -1).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_shared_pixels_are_those_of_two_parcels(seed, n):
    parcels = read_frame(draw_polygons(seed, n))
    rasters = rasterize_parcels(parcels, np.zeros(n, np.uint8), GRID)
    np.testing.assert_array_equal(rasters.is_shared, oracles.count_parcels(parcels, GRID) > 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.sampled_from([4.0, 10.0, 25.0]))
def test_inner_buffer_unlabels_pixels_near_the_outline_of_their_own_parcel(seed, n, inner_buffer_m):
    parcels = read_frame(draw_polygons(seed, n))
    rasters = rasterize_parcels(parcels, np.arange(n, dtype=np.uint8), GRID, inner_buffer_m)
    whole = rasterize_parcels(parcels, np.arange(n, dtype=np.uint8), GRID)
    distance = oracles.distance_to_outline(parcels, whole.index, GRID)
    is_clear = np.abs(distance - inner_buffer_m) > 0.01  # m: an arc of the buffer is drawn by chords
    np.testing.assert_array_equal(rasters.is_border[is_clear], (distance < inner_buffer_m)[is_clear])
    np.testing.assert_array_equal(rasters.index, whole.index)
    np.testing.assert_array_equal(rasters.labels, np.where(rasters.is_border, IGNORE, whole.labels))


def test_the_rim_of_a_small_parcel_does_not_fall_to_the_large_one_below():
    parcels = read_frame([square(0, 0, 20, 24), square(5, 5, 6, 6)])
    rasters = rasterize_parcels(parcels, np.array([0, 1], np.uint8), GRID, 10.0)
    assert (rasters.labels[5:11, 5:11] == 1).sum() == 16
    assert (rasters.labels[5:11, 5:11] == IGNORE).sum() == 20
    assert rasters.labels[4, 7] == 0  # the large parcel's own outline is far


def test_refuses_class_ids_of_other_parcels():
    with pytest.raises(ValueError, match="2 parcels need as many class ids; got 1"):
        rasterize(read_frame([square(0, 0, 2, 2)] * 2), class_ids=[0])
