"""Pixels to coordinates and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cropray.core.grid import Grid, Window
from tests.synthetic import grid

GRID = Grid(32631, 600_000.0, 5_400_000.0, 30, 20)


def test_bounds_and_centres():
    assert GRID.shape == (30, 20)
    assert GRID.bounds == (600_000, 5_399_700, 600_200, 5_400_000)  # 20 × 10 m east, 30 × 10 m south
    assert GRID.centre(0, 0) == (600_005, 5_399_995)
    assert GRID.centre(29, 19) == (600_195, 5_399_705)


def test_transform_is_that_of_rasterio():
    rasterio = pytest.importorskip("rasterio")
    affine = rasterio.Affine(*GRID.transform)
    assert affine @ (19.5, 29.5) == GRID.centre(29, 19)
    assert rasterio.transform.array_bounds(*GRID.shape, affine) == GRID.bounds


windows = st.builds(Window, st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 40), st.integers(1, 40))


@given(windows)
def test_window_of_finds_what_crop_cut(window):
    assert GRID.window_of(GRID.crop(window)) == window


@given(windows, windows)
def test_cropping_twice_adds_the_offsets(first, second):
    once = Window(first.row + second.row, first.col + second.col, second.height, second.width)
    assert GRID.crop(first).crop(second) == GRID.crop(once)


def test_a_window_slices_rows_then_columns():
    assert Window(2, 5, 3, 4).slices == (slice(2, 5), slice(5, 9))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Grid(32632, 600_000.0, 5_400_000.0, 4, 4), "EPSG:32631 .* EPSG:32632"),
        (Grid(32631, 600_000.0, 5_400_000.0, 4, 4, 20.0), "at 20 m"),
        (Grid(32631, 600_003.0, 5_400_000.0, 4, 4), "0.3 columns and 0 rows apart"),
        (Grid(32631, 600_000.0, 5_400_005.0, 4, 4), "0 columns and -0.5 rows apart"),
    ],
)
def test_grids_that_do_not_line_up_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        GRID.window_of(other)


@pytest.mark.parametrize("size", [(0, 4, 10.0), (4, 0, 10.0), (4, 4, 0.0)])
def test_an_empty_grid_is_refused(size):
    height, width, resolution = size
    with pytest.raises(ValueError, match="at least one row"):
        Grid(32631, 0.0, 0.0, height, width, resolution)


@pytest.mark.parametrize(
    ("east_m", "south_m", "distance"),
    [
        (0, 0, 0),
        (640, 0, 0),  # 64 pixels of 10 m: they touch
        (740, 0, 100),
        (0, -740, 100),
        (640 + 30, 640 + 40, 50),  # corner to corner: √(30² + 40²)
        (-640 - 30, -640 - 40, 50),
    ],
)
def test_distance_is_between_the_nearest_edges(east_m, south_m, distance):
    other = grid(x_min=600_000 + east_m, y_max=5_400_000 - south_m)
    assert grid().distance_m(other) == other.distance_m(grid()) == distance


def test_distance_needs_one_system():
    with pytest.raises(ValueError, match="cannot compare EPSG:32631 with EPSG:32632"):
        grid().distance_m(grid(epsg=32632))
