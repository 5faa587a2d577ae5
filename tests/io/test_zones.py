import dataclasses
import itertools
from collections import Counter

import pytest

from cropray.core.errors import ConfigError, InputError
from cropray.core.grid import SCL_SNAP_M, Grid
from cropray.io.zones import Zone, bundled_zones, read_zones, select_zones, write_zones

pyproj = pytest.importorskip("pyproj")

# Centres of the study's test zones (lon, lat), which the bundled table keeps where it can.
STUDY_TEST_CENTRES = {
    "picardie": (3.238220, 49.977722),
    "beauce": (1.410370, 48.556614),
    "bretagne": (-1.123352, 48.189895),
    "gascogne": (0.575409, 43.741833),
    "comtat": (4.924622, 44.062920),
    "limagne": (3.311005, 45.969288),
    "alsace": (7.336121, 47.598755),
    "languedoc": (3.445587, 43.372114),
}
SPACING_M = 1_000


def by_region():
    zones = sorted(bundled_zones(), key=lambda zone: zone.region)
    return {region: list(group) for region, group in itertools.groupby(zones, key=lambda zone: zone.region)}


def test_there_are_eight_regions_of_five_zones_of_10_km():
    assert Counter(zone.region for zone in bundled_zones()) == dict.fromkeys(STUDY_TEST_CENTRES, 5)
    assert {(zone.grid.shape, zone.grid.resolution_m) for zone in bundled_zones()} == {((1000, 1000), 10.0)}


def test_each_region_has_one_test_zone_and_one_utm_zone():
    for zones in by_region().values():
        assert Counter(zone.split for zone in zones) == {"train": 4, "test": 1}
        assert len({zone.grid.epsg for zone in zones}) == 1


def test_zones_snap_to_60_m():
    for zone in bundled_zones():
        assert zone.grid.x_min % SCL_SNAP_M == 0, zone.zone_id
        assert zone.grid.y_max % SCL_SNAP_M == 0, zone.zone_id


def test_no_two_zones_of_a_region_are_closer_than_1_km():
    for zones in by_region().values():
        for one, other in itertools.combinations(zones, 2):
            assert one.grid.distance_m(other.grid) >= SPACING_M, (one.zone_id, other.zone_id)


def test_zones_lie_in_the_utm_zone_that_they_name():
    for zone in bundled_zones():
        to_degrees = pyproj.Transformer.from_crs(zone.grid.epsg, 4326, always_xy=True)
        lon, lat = to_degrees.transform(*zone.grid.centre(500, 500))
        assert zone.grid.epsg == 32600 + int((lon + 180) // 6) + 1, zone.zone_id
        assert 42 < lat < 51


def test_test_zones_stay_where_the_study_had_them():
    for zone in bundled_zones():
        if zone.split == "test":
            to_utm = pyproj.Transformer.from_crs(4326, zone.grid.epsg, always_xy=True)
            x, y = to_utm.transform(*STUDY_TEST_CENTRES[zone.region])
            centre_x, centre_y = zone.grid.x_min + 5_000, zone.grid.y_max - 5_000
            assert ((x - centre_x) ** 2 + (y - centre_y) ** 2) ** 0.5 < 150, zone.zone_id


def test_a_table_reads_back_as_it_was_written(tmp_path):
    zones = (
        Zone("north-1", "north", "train", Grid(32631, 600_000.0, 5_400_000.0, 64, 32), "2023-03"),
        Zone("north-2", "north", "test", Grid(32631, 603_660.0, 5_400_060.0, 64, 64)),
    )
    write_zones(zones, tmp_path / "zones.csv")
    assert read_zones(tmp_path / "zones.csv") == zones


HEADER = "zone_id,region,split,epsg,x_min,y_max,height,width\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("zone_id,region\na,b\n", "lacks the columns"),
        (HEADER + "a,r,train,32631,0,0,8,8\na,r,test,32631,0,0,8,8\n", "more than once"),
        (HEADER + "a,r,validation,32631,0,0,8,8\n", "line 2.*must be train or test"),
        (HEADER + "../a,r,train,32631,0,0,8,8\n", "must hold only letters"),
        (HEADER + "a,r,train,utm31,0,0,8,8\n", "line 2"),
        (HEADER + "a,r,train,32631,0,0,8,8\n\n,,,,,,,\nb, ,train,32631,0,0,8,8\n", "line 5.*'b' has no region"),
        (HEADER + "a,r,train,32631,0,0,0,8\n", "at least one row"),
        (HEADER + "a,r,train,32631,0,0,8,8\nb, ,train,32631,0,0,8,8\n", "line 3.*'b' has no region"),
        (HEADER + "a,r,train,32631,nan,0,8,8\n", "line 2.*must be numbers"),
        (HEADER + "a,r,train,32631,0,-inf,8,8\n", "line 2.*must be numbers"),
        (
            HEADER + "a,r,train,32631,0,0,8,8\nb,r,train,32631,0,12,5,8,8\n",
            "line 3 has 9 cells for 8 columns; .* point",
        ),
        (HEADER.replace("\n", ",region\n") + "a,r,train,32631,0,0,8,8,s\n", r"columns \['region'\] more than once"),
        (HEADER.replace("\n", ",Season_Start\n") + "a,r,train,32631,0,0,8,8,2021-10\n", "name it 'season_start' if"),
        (HEADER.replace("\n", ",season\n") + "a,r,train,32631,0,0,8,8,2021-10\n", "column 'season', which is not read"),
        (HEADER + "a,r,train,4326,0,0,8,8\n", r"EPSG:4326 \(WGS 84\), which is not in metres"),
        (HEADER + "a,r,train,2225,0,0,8,8\n", "EPSG:2225 .* not in metres"),  # feet
        (HEADER + "a,r,train,32699,0,0,8,8\n", "EPSG:32699, which does not exist"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, text, message):
    path = tmp_path / "zones.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_zones(path)


def test_blanks_around_cells_do_not_count_and_own_columns_may_stand_beside(tmp_path):
    own = "owner, season_start ," + ", ".join(HEADER.strip().split(","))
    rows = "me,2021-10,a, north ,train, 32631,0,0,8,8\n,,b,north, test,32631,900,0,8,8\n"
    (tmp_path / "zones.csv").write_text(f"{own}\n\n{rows}")
    zones = read_zones(tmp_path / "zones.csv")
    assert [(zone.region, zone.split, zone.season_start) for zone in zones] == [
        ("north", "train", "2021-10"),
        ("north", "test", None),
    ]


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv.*does not exist"):
        read_zones(tmp_path / "nowhere.csv")


def test_zones_are_selected_in_table_order():
    zones = bundled_zones()
    wanted = [zones[7].zone_id, zones[2].zone_id]
    assert select_zones(zones, wanted) == (zones[2], zones[7])
    assert select_zones(zones, None) == zones
    with pytest.raises(ConfigError, match="atlantis-1"):
        select_zones(zones, ["atlantis-1"])
    with pytest.raises(ConfigError, match="'zones' names no zone"):
        select_zones(zones, [])


def test_a_season_must_be_a_month():
    with pytest.raises(ValueError, match="YYYY-MM"):
        dataclasses.replace(bundled_zones()[0], season_start="2023-13")


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "zones.csv"
    write_zones(bundled_zones(), path)
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert read_zones(path) == bundled_zones()


def test_a_table_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "zones.csv"
    path.write_bytes(b"zone_id;r\xe9gion")
    with pytest.raises(InputError, match=r"zones\.csv' cannot be read.*UTF-8"):
        read_zones(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_zones(tmp_path)
