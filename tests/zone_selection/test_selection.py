import itertools

import numpy as np
import pytest

from cropray.core.errors import InputError
from cropray.io.systems import bounds_in
from cropray.zone_selection.regions import Region
from cropray.zone_selection.selection import choose_zones, held_out_rank, search_areas
from tests.zone_selection.small import NOWHERE, REGION, settings


def choose(cover_of, regions=(REGION,), **changes):
    """Choose on land cover that `cover_of(area)` draws."""
    rules = settings(**changes)
    areas = search_areas(regions, rules, NOWHERE)
    return choose_zones(regions, areas, [cover_of(area) for area in areas], rules)


def patchy(area, seed=0):
    return np.random.default_rng(seed).choice(np.array([10, 40, 50], np.uint8), area.grid.shape)


def test_zones_are_named_by_rank_and_the_middle_one_is_held_out():
    (choice,) = choose(patchy, zones_per_region=5)
    assert [one.zone.zone_id for one in choice.chosen] == [f"north-{rank}" for rank in range(1, 6)]
    assert [one.zone.split for one in choice.chosen] == ["train", "train", "test", "train", "train"]
    shares = [one.cropland_share for one in choice.chosen]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize(("n", "rank"), [(2, 1), (3, 2), (4, 2), (5, 3), (6, 3)])
def test_the_middle_zone(n, rank):
    assert held_out_rank(n) == rank


def test_shares_and_reasons_are_those_of_the_map():
    (choice,) = choose(patchy)
    cover = patchy(choice.area)
    for one in choice.chosen:
        west, south, east, north = one.zone.grid.bounds
        inside = [
            cover[cell] == 40
            for cell in np.ndindex(cover.shape)
            if west < choice.area.grid.centre(*cell)[0] < east and south < choice.area.grid.centre(*cell)[1] < north
        ]
        assert one.cropland_share == np.mean(inside)
    records = [one.record() for one in choice.chosen]
    assert records[0]["n_better"] == 0
    assert records[0]["reason"].startswith(f"most cropland of {len(choice.area.row)} windows within 3 km of Northtown")
    assert records[1]["n_better"] > 0
    assert "at least 300 m from the zones before it" in records[2]["reason"]
    assert [("test: the middle" in record["reason"]) for record in records] == [False, True, False]


def test_cells_without_a_class_are_no_cropland_and_are_told():
    def half_known(area):
        cover = np.full(area.grid.shape, 40, np.uint8)
        cover[:, : area.grid.width // 2] = 0
        return cover

    (choice,) = choose(half_known, zones_per_region=3, radius_km=2.0)
    for one in choice.chosen:
        assert one.cropland_share + one.unknown_share == pytest.approx(1)


def test_other_classes_can_be_cropland():
    (by_default,), (by_trees,) = choose(patchy), choose(patchy, cropland_classes=[10])
    assert [one.zone.grid for one in by_default.chosen] != [one.zone.grid for one in by_trees.chosen]


def test_regions_keep_away_from_each_other_across_utm_strips():
    west = Region("west", 5.995, 48.0, 32631, "West", stays_in_strip=False)
    east = Region("east", 6.005, 48.0, 32632, "East", stays_in_strip=False)
    first, second = choose(lambda area: np.full(area.grid.shape, 40, np.uint8), (west, east))
    for one, other in itertools.product(first.chosen, second.chosen):
        x0, y0, x1, y1 = other.zone.grid.bounds
        w, s, e, n = bounds_in(one.zone.grid, 32632)
        assert max(x0 - e, w - x1, y0 - n, s - y1) >= 300
    (alone,) = choose(lambda area: np.full(area.grid.shape, 40, np.uint8), (east,))
    assert [one.zone.grid for one in alone.chosen] != [one.zone.grid for one in second.chosen]
    assert "from zones of other regions" in second.chosen[0].reason


@pytest.mark.parametrize(
    ("cover_of", "changes", "message"),
    [
        (lambda area: np.zeros(area.grid.shape, np.uint8), {}, "'north'.*has no data within 3 km of Northtown"),
        (
            lambda area: np.full(area.grid.shape, 10, np.uint8),
            {},
            "0 zones fit and 3 are wanted; 0 of .*the best has 0.0%",
        ),
        (patchy, {"min_cropland_share": 0.9}, "have 90% cropland"),
        (patchy, {"min_gap_m": 4000}, "1 zones fit and 3 are wanted"),
        (patchy, {"radius_km": 0.1}, "only . windows of 1000 m.*raise zone_selection.radius_km"),
    ],
)
def test_too_few_zones_are_refused_with_the_way_out(cover_of, changes, message):
    with pytest.raises(InputError, match=message):
        choose(cover_of, **changes)
