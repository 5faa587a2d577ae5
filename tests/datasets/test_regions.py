"""Leave-region-out: folds of regions, and zones of different regions that are neighbours."""

import numpy as np
import pyarrow as pa
import pytest

from cropray.core.errors import ConfigError, LeakageError
from cropray.datasets.point_separation import separate_points
from cropray.datasets.regions import (
    across_regions,
    join,
    number_regions,
    require_regions,
    separate_point_regions,
    separate_regions,
)
from cropray.datasets.separation import Trim, separate
from tests.synthetic import entry, manifest, zone


def at(zone_id, east_m, region, split="train"):
    """A zone of 640 m, so far east of the first."""
    return zone(zone_id, split, region, x_min=600_000 + east_m)


# b-1 touches a-2 across the border of their regions; they validate together, so that the usual folds keep them one group.
NEIGHBOURS = (
    at("a-1", 0, "alpha"),
    at("a-2", 9000, "alpha"),
    at("b-1", 9640, "beta"),
    at("t-1", 20_000, "beta", "test"),
)
FOLDS = {"a-1": 0, "a-2": 1, "b-1": 1}


def look(zones=NEIGHBOURS, parcels=None, on_overlap="refuse", *, is_wanted=False):
    return across_regions(
        lambda rule: separate_regions(zones, FOLDS, parcels or {}, 100, rule), on_overlap, is_wanted=is_wanted
    )


def test_regions_are_numbered_by_name():
    assert number_regions({"z-1": "beta", "z-2": "alpha", "z-3": "beta"}) == {"z-1": 1, "z-2": 0, "z-3": 1}


def test_neighbours_across_regions_pass_the_usual_folds_and_are_noted():
    assert separate(NEIGHBOURS, FOLDS, {}, 100, "refuse") == {}
    found, conflict = look()
    assert found is None
    assert "zone 'b-1' (region beta) and zone 'a-2' (region alpha) are closer than buffer_m = 100 m" in conflict
    assert look(on_overlap="trim") == (None, conflict)  # nothing gives way to a protocol that nobody wants


def test_neighbours_across_regions_are_refused_where_regions_are_folds():
    with pytest.raises(LeakageError, match=r"^leave-region-out.* 'b-1' \(region beta\).*leave_region_out to false"):
        look(is_wanted=True)


def test_neighbours_across_regions_are_trimmed_where_regions_are_folds():
    found, conflict = look(on_overlap="trim", is_wanted=True)
    assert conflict == ""
    assert set(found) == {"b-1"}
    assert len(found["b-1"].keep_away) == 1


def test_a_parcel_in_two_regions_is_seen_however_far():
    far = (at("a-1", 0, "alpha"), at("a-2", 0, "alpha"), at("b-1", 50_000, "beta"))
    _, conflict = look(far, {"a-2": ["p1", "p2"], "b-1": ["p2"]})
    assert "share 1 parcels (p2)" in conflict
    # Zones of other folds are apart already.
    assert look(far, {"a-1": ["p2"], "b-1": ["p2"]}) == (None, "")


def test_regions_that_are_apart_are_no_conflict():
    apart = (*NEIGHBOURS[:2], at("b-1", 12_000, "beta"))
    assert look(apart) == (None, "")
    assert look(apart, is_wanted=True) == ({}, "")


def test_what_zones_give_up_is_joined():
    one, other = {"a": Trim({"p"}, [(0, 0, 1, 1)])}, {"a": Trim({"q"}, [(2, 2, 3, 3)]), "b": Trim({"r"})}
    assert join(one, other) == {"a": Trim({"p", "q"}, [(0, 0, 1, 1), (2, 2, 3, 3)]), "b": Trim({"r"})}
    assert join(one, {}) == one


def points():
    """Zones of five points 1 km apart; the last point of `a-2` is 30 m from the first of `b-1`, in the other region."""
    ids, regions = ["t", "b-1", "a-2", "a-1"], {"a-1": "alpha", "a-2": "alpha", "b-1": "beta", "t": "beta"}
    lat = {"a-1": 40.0, "a-2": 45.0, "b-1": 45.0 + 4 / 111 + 0.03 / 111, "t": 50.0}
    rows = [(z, regions[z], 10.0, lat[z] + i / 111) for z in ids for i in range(5)]
    return pa.table(dict(zip(("zone_id", "region", "lon", "lat"), map(list, zip(*rows, strict=True)), strict=True)))


def test_points_across_regions():
    table = points()
    assert separate_points(table, FOLDS, 100, "refuse") == (table, [])
    found, conflict = across_regions(
        lambda rule: separate_point_regions(table, FOLDS, 100, rule), "refuse", is_wanted=False
    )
    assert found is None
    assert "'b-1' (region beta) and zone 'a-2' (region alpha)" in conflict
    with pytest.raises(LeakageError, match="region beta"):
        across_regions(lambda rule: separate_point_regions(table, FOLDS, 100, rule), "refuse", is_wanted=True)
    kept, given = separate_point_regions(table, FOLDS, 100, "trim")
    assert [(one.zone_id, one.n_points) for one in given] == [("b-1", 1)]
    assert kept.to_pylist() == [row for i, row in enumerate(table.to_pylist()) if i != 5]  # in the table's order
    assert np.allclose(separate_point_regions(table, FOLDS, 10, "refuse")[0]["lat"].to_numpy(), table["lat"].to_numpy())


def regions_of(*zones, conflict=""):
    return manifest(*zones, names=("wheat", "maize", "vines"), region_conflict=conflict)


TWO = (entry("a-1", 0, region="alpha"), entry("b-1", 1, region="beta"), entry("t", None, region="gamma"))


def test_region_folds_hold_training_zones_only():
    of_zones = regions_of(*TWO, entry("b-2", 0, region="beta"))
    assert of_zones.train_regions == ("alpha", "beta")
    assert of_zones.region_zones("beta") == (("a-1",), ("b-1", "b-2"))
    require_regions(of_zones)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ConfigError, match=r"at least two regions, there are \['alpha'\].*leave_region_out to false"):
        require_regions(regions_of(TWO[0], TWO[2]))
    vines = entry("c-1", 0, {"vines": 7}, region="gamma")
    with pytest.raises(ConfigError, match="region 'gamma' hold 7 labelled pixels, none of them of a class"):
        require_regions(regions_of(*TWO, vines))
    with pytest.raises(LeakageError, match="zone 'x' and zone 'y' are closer"):
        require_regions(regions_of(*TWO, conflict="zone 'x' and zone 'y' are closer"))
    with pytest.raises(LeakageError, match=r"nobody has looked yet.*cropray dataset"):
        require_regions(regions_of(*TWO, conflict=None))
