import itertools

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from cropray.core.grid import SCL_SNAP_M, Grid
from cropray.io.systems import bounds_in
from cropray.zone_selection.regions import Region
from cropray.zone_selection.windows import (
    SearchArea,
    choose_windows,
    rank_windows,
    search_area,
    window_counts,
)
from tests.zone_selection.small import NOWHERE, REGION, settings


def counts_slowly(cells, area):
    return [
        sum(bool(cells[row + i, col + j]) for i in range(area.window_cells) for j in range(area.window_cells))
        for row, col in zip(area.row, area.col, strict=True)
    ]


def choose_slowly(counts, area, n_wanted, min_gap_m, taken=()):
    """The rule read aloud: sort, walk down the list, take what keeps away from all that was taken."""
    grids = [area.zone_grid(index) for index in range(len(counts))]
    order = sorted(range(len(counts)), key=lambda i: (-counts[i], area.distance2[i], -grids[i].y_max, grids[i].x_min))
    rectangles, chosen = list(taken), []
    for index in order:
        x0, y0, x1, y1 = grids[index].bounds
        if len(chosen) < n_wanted and all(
            max(x0 - b[2], b[0] - x1, y0 - b[3], b[1] - y1) >= min_gap_m for b in rectangles
        ):
            chosen.append(index)
            rectangles.append(grids[index].bounds)
    return tuple(chosen)


def cover(area, seed, share=0.5):
    return np.random.default_rng(seed).random(area.grid.shape) < share


@given(seed=st.integers(0, 999), size=st.integers(1, 7), share=st.floats(0, 1))
def test_counts_are_those_of_counting(seed, size, share):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(size, 15, 2)
    row, col = (places.ravel() for places in np.indices((height - size + 1, width - size + 1)))
    area = SearchArea(Grid(32631, 0, 0, int(height), int(width), 100.0), size, row, col, np.zeros(len(row), np.int64))
    cells = rng.random((height, width)) < share
    assert window_counts(cells, area).tolist() == counts_slowly(cells, area)


def test_windows_are_all_those_near_the_town_on_multiples_of_the_step():
    area = search_area(REGION, settings(), NOWHERE)
    x, y = REGION.town_m
    found = {(area.zone_grid(i).x_min, area.zone_grid(i).y_max) for i in range(len(area.row))}
    expected = {
        (left, top)
        for left in range((x // 600 - 8) * 600, x + 4800, 600)
        for top in range((y // 600 - 8) * 600, y + 4800, 600)
        if (left + 500 - x) ** 2 + (top - 500 - y) ** 2 <= 3000**2
    }
    assert found == expected
    assert len(found) == len(area.row) > 50
    assert all(place % SCL_SNAP_M == 0 for corner in found for place in corner)


def test_distances_are_from_the_window_s_centre_to_the_town():
    area = search_area(REGION, settings(), NOWHERE)
    x, y = REGION.town_m
    for index in (0, len(area.row) // 3, len(area.row) - 1):
        west, south, east, north = area.zone_grid(index).bounds
        assert area.distance_m[index] == pytest.approx(np.hypot((west + east) / 2 - x, (south + north) / 2 - y))


def test_a_zone_has_10_m_pixels_whatever_the_cells():
    for cell_m in (10, 20, 100):
        zone = search_area(REGION, settings(cell_m=cell_m), NOWHERE).zone_grid(0)
        assert (zone.shape, zone.resolution_m) == ((100, 100), 10.0)


@given(
    seed=st.integers(0, 999),
    n_wanted=st.integers(1, 6),
    gap=st.integers(100, 2500),
    share=st.sampled_from([0.02, 0.5, 1]),
)
def test_the_choice_is_that_of_the_rule(seed, n_wanted, gap, share):
    area = search_area(REGION, settings(), NOWHERE)
    counts = window_counts(cover(area, seed, share), area)
    chosen = choose_windows(rank_windows(counts, area), area, n_wanted, gap)
    assert chosen == choose_slowly(counts, area, n_wanted, gap)
    for one, other in itertools.combinations(map(area.zone_grid, chosen), 2):
        assert one.distance_m(other) >= gap


def test_where_all_is_cropland_the_nearest_window_comes_first():
    area = search_area(REGION, settings(), NOWHERE)
    counts = window_counts(np.ones(area.grid.shape, bool), area)
    (first,) = choose_windows(rank_windows(counts, area), area, 1, 300)
    assert area.distance_m[first] == area.distance_m.min()


def test_the_zones_of_another_region_are_kept_away_from():
    area = search_area(REGION, settings(), NOWHERE)
    counts = window_counts(cover(area, 1), area)
    ranked = rank_windows(counts, area)
    best = area.zone_grid(int(ranked[0]))
    chosen = choose_windows(ranked, area, 3, 300, [best.bounds])
    assert chosen == choose_slowly(counts, area, 3, 300, [best.bounds])
    assert all(area.zone_grid(index).distance_m(best) >= 300 for index in chosen)


def test_fewer_are_chosen_where_no_more_fit():
    area = search_area(REGION, settings(), NOWHERE)
    ranked = rank_windows(window_counts(cover(area, 1), area), area)
    assert len(choose_windows(ranked, area, 3, 50_000)) == 1
    assert choose_windows(ranked[:0], area, 3, 300) == ()


def test_windows_stay_in_the_strip_unless_the_table_names_the_system():
    def lons(stays_in_strip):
        area = search_area(Region("edge", 5.99, 48.0, 32631, "Edge", stays_in_strip), settings(), NOWHERE)
        to_degrees = Transformer.from_crs(32631, 4326, always_xy=True)
        corners = [area.zone_grid(i).bounds for i in range(len(area.row))]
        return np.array(
            [to_degrees.transform(x, y)[0] for w, s, e, n in corners for x, y in ((w, s), (w, n), (e, s), (e, n))]
        )

    assert lons(stays_in_strip=True).max() <= 6 < lons(stays_in_strip=False).max()


def test_windows_lie_wholly_in_the_country_of_the_town():
    everywhere = search_area(REGION, settings(), NOWHERE)
    country = shapely.box(2.0, 49.5, 3.01, 49.99).union(shapely.box(3.0, 49.5, 4.0, 50.01))
    inside = search_area(REGION, settings(), country)
    kept = {inside.zone_grid(i).bounds for i in range(len(inside.row))}
    expected = set()
    for index in range(len(everywhere.row)):
        west, south, east, north = everywhere.zone_grid(index).bounds
        edge = shapely.segmentize(shapely.box(west, south, east, north), 100.0)
        to_degrees = Transformer.from_crs(32631, 4326, always_xy=True)
        if country.contains(shapely.transform(edge, to_degrees.transform, interleaved=False)):
            expected.add((west, south, east, north))
    assert kept == expected
    assert 20 < len(kept) < len(everywhere.row) - 20
    abroad = search_area(REGION, settings(), shapely.box(10, 40, 12, 42))
    assert len(abroad.row) == len(everywhere.row)


def test_bounds_in_another_system_hold_the_whole_grid():
    grid = Grid(32631, 700_020, 5_300_040, 1000, 1000)
    west, south, east, north = bounds_in(grid, 32632)
    to_other = Transformer.from_crs(32631, 32632, always_xy=True)
    x_min, y_min, x_max, y_max = grid.bounds
    for x, y in itertools.product(np.linspace(x_min, x_max, 11), np.linspace(y_min, y_max, 11)):
        px, py = to_other.transform(x, y)
        assert west - 1 <= px <= east + 1
        assert south - 1 <= py <= north + 1
    assert bounds_in(grid, 32631) == grid.bounds
