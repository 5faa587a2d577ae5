"""No zone, parcel or pixel on both sides of a border of splits."""

import numpy as np
import pytest
from pyproj import Transformer

from cropray.core.errors import LeakageError
from cropray.core.grid import Grid
from cropray.datasets.separation import Trim, given_away, separate
from cropray.io.zones import Zone
from tests.oracles import crossings
from tests.synthetic import grid, zone

FAR = 50_000.0  # m


def at(zone_id, east_m, split="train", **kwargs):
    """A zone of 640 m, so far east of the first."""
    return zone(zone_id, split, x_min=600_000 + east_m, **kwargs)


def refuse(zones, folds, parcels=None, buffer_m=100):
    return separate(zones, folds, parcels or {}, buffer_m, "refuse")


def trim(zones, folds, parcels=None, buffer_m=100):
    return separate(zones, folds, parcels or {}, buffer_m, "trim")


TRAIN_AND_TEST = (at("train-1", 0), at("test-1", 640 + 100, "test"))


def test_zones_as_far_apart_as_the_buffer_pass():
    assert refuse(TRAIN_AND_TEST, {"train-1": 0}) == {}
    assert trim(TRAIN_AND_TEST, {"train-1": 0}) == {}


@pytest.mark.parametrize("east_m", [0, 320, 640, 640 + 90])  # the same place, overlapping, touching, too close
@pytest.mark.parametrize("in_order", [True, False])
def test_zones_closer_than_the_buffer_are_refused(east_m, in_order):
    zones = (at("train-1", 0), at("test-1", east_m, "test"))
    with pytest.raises(LeakageError, match="closer than buffer_m = 100 m") as error:
        refuse(zones if in_order else zones[::-1], {"train-1": 0})
    assert "zone 'train-1' (fold 0) and zone 'test-1' (the test split)" in str(error.value)
    assert "from 'train-1'" in str(error.value)  # which side trimming would change


def test_without_a_buffer_zones_may_touch_but_not_overlap():
    folds = {"train-1": 0}
    assert refuse((at("train-1", 0), at("test-1", 640, "test")), folds, buffer_m=0) == {}
    with pytest.raises(LeakageError):
        refuse((at("train-1", 0), at("test-1", 630, "test")), folds, buffer_m=0)


def test_folds_are_kept_apart_too():
    zones = (at("a", 0), at("b", 640))
    assert refuse(zones, {"a": 1, "b": 1}) == {}
    with pytest.raises(LeakageError, match=r"zone 'b' \(fold 1\) and zone 'a' \(fold 0\)"):
        refuse(zones, {"a": 0, "b": 1})


def test_test_zones_may_be_neighbours():
    assert refuse((at("t-1", 0, "test"), at("t-2", 640, "test")), {}) == {}


def test_a_shared_parcel_is_refused_however_far():
    zones = (at("train-1", 0), at("test-1", FAR, "test"))
    parcels = {"train-1": ["p1", "p2", "p3"], "test-1": ["p3", "p2", "p9"]}
    with pytest.raises(LeakageError, match=r"'train-1' .* 'test-1' .* share 2 parcels \(p2, p3\)") as error:
        refuse(zones, {"train-1": 0}, parcels)
    assert "not near each other" in str(error.value)  # the ids of another register, perhaps
    assert "parcels.id_column" in str(error.value)
    with pytest.raises(LeakageError) as error:
        refuse(TRAIN_AND_TEST, {"train-1": 0}, parcels, buffer_m=150)
    assert "parcels.id_column" not in str(error.value)


def test_many_shared_parcels_are_abbreviated():
    zones = (at("train-1", 0), at("test-1", FAR, "test"))
    shared = [f"p{i}" for i in range(7)]
    with pytest.raises(LeakageError, match=r"share 7 parcels \(p0, p1, p2, p3, p4, …\)"):
        refuse(zones, {"train-1": 0}, {"train-1": shared, "test-1": shared})


def test_neighbours_in_two_utm_zones_are_found():
    # The same ground in UTM 31 and 32, at 6° east, where both are 220 km from their central meridians.
    pyproj = pytest.importorskip("pyproj")
    x31, y31 = pyproj.Transformer.from_crs(4326, 32631, always_xy=True).transform(6.0, 47.0)
    x32, y32 = pyproj.Transformer.from_crs(4326, 32632, always_xy=True).transform(6.0, 47.0)
    here = zone("train-1", x_min=x31, y_max=y31, epsg=32631)
    same_place = zone("test-1", "test", x_min=x32, y_max=y32, epsg=32632)
    elsewhere = zone("test-1", "test", x_min=x32 + 5_000, y_max=y32, epsg=32632)
    with pytest.raises(LeakageError, match="closer than"):
        refuse((here, same_place), {"train-1": 0})
    assert refuse((here, elsewhere), {"train-1": 0}) == {}


@pytest.mark.parametrize("in_order", [True, False])
def test_the_training_side_gives_way_to_the_test_side(in_order):
    zones = (at("train-1", 0), at("test-1", 600, "test"))
    trims = trim(zones if in_order else zones[::-1], {"train-1": 0}, {"train-1": ["p", "q"], "test-1": ["p"]})
    x_min, y_min, x_max, y_max = zones[1].grid.bounds
    assert trims == {"train-1": Trim({"p"}, [(x_min - 100, y_min - 100, x_max + 100, y_max + 100)])}


def test_the_later_training_zone_gives_way_to_the_earlier():
    zones = (at("a", 0), at("b", FAR), at("c", 2 * FAR))
    parcels = {"a": ["p"], "b": ["p", "q"], "c": ["p", "q"]}
    trims = trim(zones, {"a": 0, "b": 1, "c": 2}, parcels)
    # p stays in a only, q in b only
    assert {zone_id: t.parcels for zone_id, t in trims.items()} == {"b": {"p"}, "c": {"p", "q"}}


def test_what_is_trimmed_passes_the_check_that_refused_it():
    # A parcel in three groups: after trimming one zone holds it, the test zone.
    zones = (at("a", 0), at("b", FAR), at("t", 2 * FAR, "test"))
    parcels = {z.zone_id: {"p", z.zone_id} for z in zones}
    trims = trim(zones, {"a": 0, "b": 1}, parcels)
    left = {zone_id: ids - trims.get(zone_id, Trim()).parcels for zone_id, ids in parcels.items()}
    assert left == {"a": {"a"}, "b": {"b"}, "t": {"p", "t"}}
    assert refuse(zones, {"a": 0, "b": 1}, left) == {}


def test_pixels_of_a_shared_parcel_are_given_away():
    parcels = np.array([[0, 0, 1], [0, -1, 1]], np.int32)
    away = given_away(parcels, ["p", "q"], Grid(32631, 0, 20, 2, 3), Trim(parcels={"q", "elsewhere"}))
    np.testing.assert_array_equal(away, [[False, False, True], [False, False, True]])


def test_pixels_outside_any_parcel_stay():
    # Index −1 must not be read as the last parcel.
    away = given_away(np.array([[-1, 0]], np.int32), ["p"], Grid(32631, 0, 10, 1, 2), Trim(parcels={"p"}))
    np.testing.assert_array_equal(away, [[False, True]])


def test_pixels_within_the_buffer_are_given_away():
    giver, keeper = at("train-1", 0), at("test-1", 640 + 60, "test")
    trims = trim((giver, keeper), {"train-1": 0})
    away = given_away(np.zeros((64, 64), np.int32), ["p"], giver.grid, trims["train-1"])
    # 100 m of buffer, 60 m of which lie between the zones: the eastern 40 m, 4 columns, go.
    np.testing.assert_array_equal(away, np.broadcast_to(np.arange(64) >= 60, (64, 64)))


def test_a_corner_is_given_away_where_rows_and_columns_are_near():
    corner = grid(size=4)  # 40 m
    x_min, _, _, y_max = corner.bounds
    trim = Trim(keep_away=[(x_min - 500, y_max - 10, x_min + 20, y_max + 500)])  # north-west: 1 row and 2 columns
    away = given_away(np.full((4, 4), -1, np.int32), [], corner, trim)
    np.testing.assert_array_equal(np.argwhere(away), [[0, 0], [0, 1]])


def drawn(seed, n=60):
    """Zones on both sides of the border of three UTM systems, some of them near each other, with parcels of a few zones."""
    rng = np.random.default_rng(seed)
    to_metres = {epsg: Transformer.from_crs(4326, epsg, always_xy=True) for epsg in (32630, 32631, 32632)}
    zones, parcels = [], {}
    for i in range(n):
        epsg = int(rng.choice([*to_metres]))
        lon, lat = rng.uniform(-0.2, 0.2) + (0 if epsg < 32632 else 6), rng.uniform(45, 45.3)
        if epsg == 32631 and rng.random() < 0.5:
            lon += 6
        x, y = to_metres[epsg].transform(lon, lat)
        size = int(rng.integers(50, 400))
        split = "test" if rng.random() < 0.2 else "train"
        zones.append(Zone(f"z{i}", "r", split, Grid(epsg, round(x, -1), round(y, -1), size, int(size * 1.3))))
        parcels[f"z{i}"] = [f"p{k}" for k in rng.integers(0, 4_000, 30)] + [""] * int(rng.integers(3))
    folds = {z.zone_id: int(rng.integers(3)) for z in zones if z.split == "train"}
    return zones, folds, parcels


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("buffer_m", [0, 750])
def test_trims_are_those_of_comparing_all_pairs(seed, buffer_m):
    zones, folds, parcels = drawn(seed)
    expected = {}
    for giver, _, shared, away in crossings(zones, folds, parcels, buffer_m):
        one = expected.setdefault(giver, Trim())
        one.parcels |= shared
        one.keep_away += [away] if away else []
    assert sum(len(one.keep_away) for one in expected.values()) > 10
    assert sum(len(one.parcels) for one in expected.values()) > 10
    assert trim(zones, folds, parcels, buffer_m) == expected


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n", [12, 60])
def test_the_first_pair_of_all_is_the_one_that_is_refused(seed, n):
    zones, folds, parcels = drawn(seed, n)
    giver, keeper, shared, _ = next(crossings(zones, folds, parcels, 750))
    with pytest.raises(LeakageError) as error:
        refuse(zones, folds, parcels, 750)
    assert str(error.value).startswith(f"zone '{giver}' (")
    assert f"zone '{keeper}' (" in str(error.value)
    assert (f"share {len(shared)} parcels" in str(error.value)) == bool(shared)


@pytest.mark.parametrize("missing", ["", " ", "nan", "None", None])
def test_parcels_without_id_are_shared_with_none(missing):
    zones = (at("train-1", 0), at("train-2", FAR), at("test-1", 2 * FAR, "test"))
    parcels = {zone.zone_id: [missing, missing, zone.zone_id] for zone in zones}
    folds = {"train-1": 0, "train-2": 1}
    assert refuse(zones, folds, parcels) == trim(zones, folds, parcels) == {}
