"""No point within the buffer of a point of another split or fold."""

import numpy as np
import pyarrow as pa
import pytest
from pyproj import Geod

from cropray.core.errors import InputError, LeakageError
from cropray.datasets.point_separation import GivenWay, require_folds, separate_points, separation_doubts

GEOD = Geod(ellps="WGS84")
FAR = (100.0, -40.0)  # degrees


def table(*points):
    """Rows (zone, lon, lat)."""
    zones, lon, lat = zip(*points, strict=True)
    row = np.arange(len(points))
    return pa.table({"zone_id": zones, "lon": np.array(lon, float), "lat": np.array(lat, float), "row": row})


def beside(lon, lat, metres, azimuth=77.0):
    """The place so many metres away."""
    return GEOD.fwd(lon, lat, azimuth, metres)[:2]


def trim(rows, folds, buffer_m=250.0):
    kept, given = separate_points(rows, folds, buffer_m, "trim")
    return kept["row"].to_pylist(), given


def trim_slowly(rows, folds, buffer_m):
    """Rows that stay: each is compared with all that were kept before it, in the order of precedence."""
    zones, lon, lat = (rows[name].to_pylist() for name in ("zone_id", "lon", "lat"))
    kept = []
    for row in sorted(range(len(zones)), key=lambda r: (zones[r] in folds, zones[r])):
        others = [k for k in kept if folds.get(zones[k]) != folds.get(zones[row])]
        if all(GEOD.inv(lon[row], lat[row], lon[k], lat[k])[2] >= buffer_m for k in others):
            kept.append(row)
    return sorted(kept)


@pytest.mark.parametrize(
    "centre", [(4.0, 46.0), (180.0, -17.0), (-179.9995, 65.0), (30.0, 89.9995), (0.0, -90.0), (-60, 0)]
)
@pytest.mark.parametrize("seed", range(3))
def test_what_stays_is_what_the_slow_way_keeps(centre, seed):
    rng = np.random.default_rng(seed)
    zones = [f"z{i:02d}" for i in range(9)]
    folds = {zone: int(rng.integers(3)) for zone in zones[2:]}
    places = [beside(*centre, rng.uniform(0, 3_000), rng.uniform(0, 360)) for _ in range(250)]
    rows = table(*[(zones[rng.integers(9)], *place) for place in places])
    stays = trim_slowly(rows, folds, 120.0)
    assert 0 < len(stays) < 250
    kept, given = trim(rows, folds, 120.0)
    assert kept == stays
    assert sum(one.n_points for one in given) == 250 - len(stays)
    assert {one.zone_id for one in given} <= set(folds)
    assert trim(rows.take(kept), folds, 120.0) == (kept, [])  # nothing is left to find


@pytest.mark.parametrize("place", [(12.0, 0.0), (12.0, 45.0), (12.0, 84.0)])
@pytest.mark.parametrize("azimuth", [0, 90])
@pytest.mark.parametrize("buffer_m", [0.5, 700, 40_000])
def test_the_buffer_is_metres_on_the_ellipsoid(place, azimuth, buffer_m):
    for metres, is_near in ((buffer_m - 0.01, True), (buffer_m + 0.01, False)):
        rows = table(("a", *FAR), ("a", *place), ("t", *beside(*place, metres, azimuth)))
        kept, given = trim(rows, {"a": 0}, buffer_m)
        assert kept == ([0, 2] if is_near else [0, 1, 2])
        assert not given or given == [GivenWay("a", 1, "t", pytest.approx(metres, abs=2e-3))]


@pytest.mark.parametrize("buffer_m", [0, 1e-9, 500, 1e9])
def test_one_place_in_two_groups_is_found_whatever_the_buffer(buffer_m):
    rows = table(("a", 5.0, 5.0), ("t", 5.0, 5.0))
    with pytest.raises(LeakageError, match=r"'a' \(fold 1\) and zone 't' \(the test split\), 0\.00 m apart"):
        separate_points(rows, {"a": 1}, buffer_m, "refuse")


def test_without_a_buffer_points_may_be_neighbours():
    rows = table(("a", 5.0, 5.0), ("t", *beside(5.0, 5.0, 0.01)))
    assert trim(rows, {"a": 1}, 0) == ([0, 1], [])


def test_a_refusal_names_the_nearest_zones_their_distance_and_the_ways_out():
    near, nearer = beside(2.0, 48.0, 90), beside(2.5, 48.0, 0.01)
    rows = table(("b", *near), ("a", 2.0, 48.0), ("c", 2.5, 48.0), ("t", *nearer))
    with pytest.raises(LeakageError) as error:
        separate_points(rows, {"a": 0, "b": 1, "c": 0}, 500, "refuse")
    message = str(error.value)
    assert message.startswith("2 points in 2 zones are closer than dataset.buffer_m = 500 m")
    assert "zone 'c' (fold 0) and zone 't' (the test split), 0.01 m apart" in message
    assert "dataset.on_overlap to 'trim'" in message


def test_points_of_one_group_may_be_neighbours():
    rows = table(("a", 2.0, 48.0), ("b", 2.0, 48.0), ("s", 9.0, 48.0), ("t", 9.0, 48.0))
    assert trim(rows, {"a": 2, "b": 2}) == ([0, 1, 2, 3], [])


def test_the_test_side_stays_and_the_earlier_zone_too():
    # b gives way to a, c to the test zone; d would give way to b, which is gone there.
    rows = table(
        *(("d", *beside(2.0, 48.0, 400)), ("b", *beside(2.0, 48.0, 200)), ("a", 2.0, 48.0), ("b", *FAR)),
        *(("c", 7.0, 48.0), ("c", 8.0, 48.0), ("t", 7.0, 48.0)),
    )
    kept, given = trim(rows, {"a": 0, "b": 1, "c": 0, "d": 0})
    assert kept == [0, 2, 3, 5, 6]
    assert given == [GivenWay("b", 1, "a", pytest.approx(200, abs=1e-3)), GivenWay("c", 1, "t", 0.0)]


def test_a_zone_that_loses_all_points_is_left_out_and_told():
    near = beside(2.0, 48.0, 20)
    rows = table(("a", 2.0, 48.0), ("a", *near), ("t", *beside(2.0, 48.0, 50)), ("b", *FAR))
    folds = {"a": 0, "b": 0}
    kept, given = separate_points(rows, folds, 250, "trim")
    assert kept["zone_id"].to_pylist() == ["t", "b"]
    _, lost = separation_doubts(kept, folds, given, 250)
    assert lost == "zones that lost all their points in this way and are no part of the dataset: a 2"


def test_a_fold_that_would_lose_all_points_is_refused():
    rows = table(("a", 2.0, 48.0), ("t", *beside(2.0, 48.0, 50)), ("b", *FAR))
    with pytest.raises(InputError, match=r"folds \[3\] have no point left: .* lower dataset\.buffer_m"):
        require_folds(separate_points(rows, {"a": 3, "b": 0}, 250, "trim")[0], {"a": 3, "b": 0}, 250)


def test_a_hundred_thousand_points_of_mixed_zones_need_no_pairs():
    # All zones interleaved within 2 km: each point has thousands of others in its buffer.
    rng = np.random.default_rng(5)
    zone = rng.integers(0, 40, 100_000)
    lon, lat = rng.uniform(2, 2.02, len(zone)), rng.uniform(48, 48.02, len(zone))
    rows = pa.table({"zone_id": [f"z{i:02d}" for i in zone], "lon": lon, "lat": lat, "row": np.arange(len(zone))})
    with pytest.raises(LeakageError):
        separate_points(rows, {f"z{i:02d}": i % 3 for i in range(1, 40)}, 500, "refuse")


def test_what_is_left_out_and_what_stands_twice_is_told():
    folds = {"a": 0, "b": 0, "c": 1}
    given = [GivenWay("a", 1_200, "t", 3.14159), GivenWay("c", 1, "a", 0.0)]
    rows = table(("a", 1, 1), ("b", 1, 1), ("c", 1, 1), ("t", 2, 2), ("t", 2, 2), ("t", 2, 2))
    left_out, twice = separation_doubts(rows, folds, given, 500)
    assert left_out == (
        "1,201 points were closer than 500 m to another split or fold and are left out; "
        "the nearest: c to a 0.00 m, a to t 3.14 m"
    )
    assert twice == "3 points stand where their split or fold has another point already, and count as well"
    assert separation_doubts(rows.slice(2, 2), folds, [], 500) == []
