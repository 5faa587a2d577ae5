"""Listings, and months on disk."""

import datetime as dt
import json

import numpy as np
import pytest

from cropray.core.cube import Season
from cropray.core.errors import InputError
from cropray.core.grid import Grid
from cropray.imagery.sources.earth_engine.months import (
    MonthPixels,
    MonthUnit,
    assemble_zone,
    assets_elsewhere,
    drop_months,
    has_month,
    listing_key,
    month_units,
    older_assets,
    read_listing,
    remove_leftovers,
    scenes_of,
    write_listing,
    write_month,
)
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone

GRID = Grid(32631, 600_000.0, 5_400_000.0, 5, 7)
ZONE = Zone("here", "north", "train", GRID)
SEASON = Season("2023-01")
SETTINGS = EarthEngineSettings(source="earth_engine", project="p")
C = SETTINGS.collection


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def find(*indexes, grid=GRID):
    return scenes_of(indexes, C, grid, SEASON)


def test_scenes_are_dated_by_their_datatake_not_by_their_tile():
    late = "20230131T235958_20230201T000012_T31UDQ"
    scenes = find("20230502T105031_20230502T105030_T31UDP", late, "20230502T105031_20230502T105028_T31UDQ")
    assert [scene.scene_id for scene in scenes] == [
        late,
        "20230502T105031_20230502T105028_T31UDQ",
        "20230502T105031_20230502T105030_T31UDP",
    ]
    assert scenes[0].acquired == dt.datetime(2023, 1, 31, 23, 59, 58, tzinfo=dt.UTC)
    assert scenes[0].href == f"{C}/{late}"
    units = month_units(ZONE, SEASON, scenes)
    assert [(unit.month, [len(parts) for parts in unit.acquisitions]) for unit in units] == [
        ("2023-01", [1]),
        ("2023-05", [2]),
    ]


def test_scenes_of_other_dates_and_of_the_neighbouring_system_are_left_out():
    mine = "20230502T105031_20230502T105031_T31UDQ"
    others = ("20221231T235959_20230101T000003_T31UDQ", "20240101T000000_20240101T000000_T31UDQ")
    assert [scene.scene_id for scene in find(mine, *others, "20230502T105031_20230502T105031_T32ULV")] == [mine]
    assert find(*others) == ()
    south = Grid(32721, 600_000.0, 5_400_000.0, 5, 7)
    assert len(find("20230502T105031_20230502T105031_T21HUB", grid=south)) == 1


def test_refuses_a_zone_in_a_system_that_no_scene_has():
    with pytest.raises(InputError, match=r"in EPSG:32632, and the zone is in EPSG:32631"):
        find("20230502T105031_20230502T105031_T32ULV")


@pytest.mark.parametrize("index", ["LC08_199026_20230502", "20230502T105031_20230502T105031_T31IDQ"])
def test_refuses_assets_that_are_no_sentinel_2_tiles(index):
    with pytest.raises(InputError, match=r"Sentinel-2 asset is named like"):
        find(index)


def test_refuses_more_acquisitions_than_can_be_counted():
    scenes = find(*(f"202305{day:02d}T{hour:02d}0000_x_T31UDQ" for day in range(1, 12) for hour in range(24)))
    with pytest.raises(InputError, match="264 acquisitions in 2023-05; at most 255"):
        month_units(ZONE, SEASON, scenes)


def test_a_listing_holds_for_the_same_zone_season_and_collection(workspace):
    scenes = find("20230502T105031_20230502T105031_T31UDQ")
    assert read_listing(workspace, SETTINGS, ZONE, SEASON) is None
    write_listing(workspace, "here", listing_key(SETTINGS, ZONE, SEASON), scenes)
    assert read_listing(workspace, SETTINGS, ZONE, SEASON) == [scenes[0].scene_id]
    patient = SETTINGS.model_copy(update={"max_attempts": 20})  # asks for the same
    assert read_listing(workspace, patient, ZONE, SEASON) == [scenes[0].scene_id]
    other = SETTINGS.model_copy(update={"collection": "COPERNICUS/S2_SR"})
    assert read_listing(workspace, other, ZONE, SEASON) is None
    assert read_listing(workspace, SETTINGS, ZONE, Season("2022-01")) is None
    moved = Zone("here", "north", "train", Grid(32631, 600_010.0, 5_400_000.0, 5, 7))
    assert read_listing(workspace, SETTINGS, moved, SEASON) is None
    workspace.listing("here").write_text(json.dumps({"key": 1})[:-2])
    assert read_listing(workspace, SETTINGS, ZONE, SEASON) is None


def unit(month="2023-05", asset="a", grid=GRID):
    return MonthUnit("here", month, grid, ((asset,), ("b", "c")))


def pixels(value, n_obs):
    return MonthPixels(np.full((4, *GRID.shape), value, np.uint16), np.full(GRID.shape, n_obs, np.uint8))


def test_a_month_holds_for_the_same_assets_and_grid(workspace):
    assert not has_month(workspace, unit())
    write_month(workspace, unit(), pixels(7, 2))
    assert has_month(workspace, unit())
    assert not has_month(workspace, unit(asset="other"))
    assert not has_month(workspace, unit(grid=Grid(32631, 600_010.0, 5_400_000.0, 5, 7)))
    assert not has_month(workspace, unit("2023-06"))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-30], lambda data: data.replace(b"\7\0\7\0\7", b"\7\0\6\0\7", 1)]
)
def test_a_damaged_month_counts_as_missing(workspace, damage):
    write_month(workspace, unit(), pixels(7, 2))
    path = workspace.acquired_month("here", "2023-05")
    path.write_bytes(damage(path.read_bytes()))
    assert not has_month(workspace, unit())
    with pytest.raises(InputError, match="month 2023-05"):
        assemble_zone(workspace, ZONE, SEASON, [unit()])


def test_months_become_a_composite_and_stay_until_they_are_dropped(workspace):
    from cropray.imagery.composites import read_composite, read_n_obs

    units = [unit("2023-03"), unit("2023-06")]
    write_month(workspace, units[0], pixels(100, 1))
    write_month(workspace, units[1], pixels(201, 2))
    record = assemble_zone(workspace, ZONE, SEASON, units)
    assert record.n_scenes == (0, 0, 2, 0, 0, 2, 0, 0, 0, 0, 0, 0)
    # Between two months their mean, rounded half up; before the first and after the last the nearest.
    assert read_composite(workspace.composite("here"))[:, 0, 0, 0].tolist() == [100] * 3 + [151] * 2 + [201] * 7
    assert read_n_obs(workspace.n_obs("here"))[:, 0, 0].tolist() == [0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0]
    assert all(has_month(workspace, u) for u in units)
    drop_months(workspace, "here")
    assert not any(has_month(workspace, u) for u in units)


def test_leftovers_of_a_killed_run_are_removed_and_nothing_else(workspace):
    write_month(workspace, unit(), pixels(7, 2))
    keep = [workspace.acquired_month("here", "2023-05"), workspace.composite("here"), workspace.n_obs("here")]
    left = [
        workspace.listing("here").with_name(".listing.0123.json"),
        workspace.acquired_month("here", "2023-05").with_name(".2023-05.0123.npz"),
        workspace.composite("here").with_name(".here.0123.tif"),
        workspace.n_obs("here").with_name(".here.nobs.0123.tif"),
    ]
    other = workspace.composite("x").with_name(".here-2.0123.tif")  # another zone's, which may be at work
    for path in (*left, other, workspace.composite("here"), workspace.n_obs("here")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    remove_leftovers(workspace, "here")
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in (*keep, other))


def test_the_last_product_of_a_tile_and_instant_comes_first():
    old, new = "20230714T105031_20230714T105028_T31UES", "20230714T105031_20240101T000000_T31UES"
    other = "20230714T105031_20230714T120000_T31UFS"
    assert [scene.scene_id for scene in find(old, other, new)] == [new, old, other]


def test_assets_of_another_system_are_remembered_with_the_listing(workspace):
    here, west = "20230714T105031_20230714T105028_T31UES", "20230714T105031_20230714T105028_T30UXX"
    late = "20240714T105031_20230714T105028_T30UXX"
    elsewhere = assets_elsewhere([here, west, late], C, GRID, SEASON)
    assert elsewhere == (west,)
    write_listing(workspace, "here", listing_key(SETTINGS, ZONE, SEASON), find(here, west), elsewhere)
    assert read_listing(workspace, SETTINGS, ZONE, SEASON) == [here, west]
    units = month_units(ZONE, SEASON, find(here, west))
    for unit in units:
        write_month(workspace, unit, MonthPixels(np.ones((4, 5, 7), np.uint16), np.ones((5, 7), np.uint8)))
    assemble_zone(workspace, ZONE, SEASON, units)
    record = json.loads(workspace.acquisition_record("here").read_text())
    assert record["scenes"] == [here]
    assert list(record["left_out"].values()) == [[west]]


def test_older_products_of_a_tile_and_instant_are_named(workspace):
    old, new = "20230714T105031_20230714T105028_T31UES", "20230714T105031_20240102T003344_T31UES"
    other, later = "20230714T105031_20230714T105028_T31UFS", "20230719T105031_20230719T105028_T31UES"
    units = month_units(ZONE, SEASON, find(old, new, other, later))
    assert older_assets(units) == (old,)
    for unit in units:
        write_month(workspace, unit, MonthPixels(np.ones((4, 5, 7), np.uint16), np.ones((5, 7), np.uint8)))
    assemble_zone(workspace, ZONE, SEASON, units)
    record = json.loads(workspace.acquisition_record("here").read_text())
    assert list(record["left_out"].values()) == [[old]]
