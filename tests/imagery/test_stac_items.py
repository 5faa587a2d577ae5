import copy
import datetime as dt
import time

import pytest

from cropray.core.errors import InputError
from cropray.core.grid import Grid
from cropray.imagery.sources.stac.items import newest_versions, understand

# As Earth Search lists it (shortened).
EARTH_SEARCH = {
    "id": "S2A_31UFU_20230701_0_L2A",
    "links": [{"rel": "self", "href": "https://earth-search.example/S2A_31UFU_20230701_0_L2A"}],
    "properties": {
        "datetime": "2023-07-01T10:46:30.262000Z",
        "proj:epsg": 32631,
        "grid:code": "MGRS-31UFU",
        "eo:cloud_cover": 12.5,
        "s2:datatake_id": "GS2A_20230701T103631_041904_N05.09",
        "s2:datastrip_id": "S2A_OPER_MSI_L2A_DS_2APS_20230701T200058_S20230701T104159_N05.09",
        "s2:product_uri": "S2A_MSIL2A_20230701T103631_N0509_R008_T31UFU_20230701T200058.SAFE",
        "s2:generation_time": "2023-07-01T20:00:58.000000Z",
        "s2:processing_baseline": "05.09",
        "earthsearch:boa_offset_applied": True,
    },
    "assets": {
        name: {
            "href": f"https://cogs.example/{name}.tif",
            "proj:shape": [10980, 10980],
            "proj:transform": [10, 0, 600000, 0, -10, 5900040],
        }
        for name in ("blue", "green", "red", "nir", "scl", "blue-jp2")
    },
}
# The same product as Planetary Computer lists it (shortened).
PLANETARY_COMPUTER = {
    "id": "S2A_MSIL2A_20230701T103631_R008_T31UFU_20230701T200058",
    "properties": {
        "datetime": "2023-07-01T10:36:31.024000Z",
        "proj:epsg": 32631,
        "s2:mgrs_tile": "31UFU",
        "s2:datatake_id": "GS2A_20230701T103631_041904_N05.09",
        "s2:datastrip_id": "S2A_OPER_MSI_L2A_DS_ESRI_20230701T200058_S20230701T104159_N05.09",
        "s2:product_uri": "S2A_MSIL2A_20230701T103631_N0509_R008_T31UFU_20230701T200058.SAFE",
        "s2:processing_baseline": "05.09",
    },
    "assets": {name: {"href": f"https://blobs.example/{name}.tif"} for name in ("B02", "B03", "B04", "B08", "SCL")},
}
# The same again by the projection extension 2 and the names of the Copernicus Data Space.
DATA_SPACE = {
    "id": "S2A_MSIL2A_20230701T103631_N0509_R008_T31UFU_20230701T200058",
    "properties": {
        "datetime": "2023-07-01T10:36:31.024000Z",
        "proj:code": "EPSG:32631",
        "grid:code": "MGRS-31UFU",
        "processing:version": "05.09",
    },
    "assets": {
        name: {"href": f"s3://eodata/{name}.jp2"} for name in ("B02_10m", "B03_10m", "B04_10m", "B08_10m", "SCL_20m")
    },
}
ALL = [EARTH_SEARCH, PLANETARY_COMPUTER, DATA_SPACE]


def changed(item, asset=None, **properties):
    item = copy.deepcopy(item)
    item["properties"] = {key: v for key, v in {**item["properties"], **properties}.items() if v is not None}
    item["assets"].update(asset or {})
    return item


@pytest.mark.parametrize("item", ALL, ids=["earth-search", "planetary-computer", "data-space"])
def test_three_catalogues_say_the_same_of_one_product(item):
    it = understand(item, None, None)
    assert it.scene.acquired == dt.datetime(2023, 7, 1, 10, 36, 31, tzinfo=dt.UTC)
    assert (it.mgrs_tile, it.epsg, it.baseline) == ("31UFU", 32631, (5, 9))
    assert it.scene.scene_id.startswith("S2A_MSIL2A_20230701T103631_N0509_R008_T31UFU")
    assert [band for band, _ in it.scene.assets] == ["B02", "B03", "B04", "B08", "SCL"]


def test_reads_where_an_item_lies_and_who_says_so():
    it = understand(EARTH_SEARCH, None, None)
    assert it.outline == Grid(32631, 600_000, 5_900_040, 10_980, 10_980)
    assert it.scene.href == "https://earth-search.example/S2A_31UFU_20230701_0_L2A"
    assert it.scene.assets[0] == ("B02", "https://cogs.example/blue.tif")
    assert it.cloud_cover == 12.5
    assert understand(PLANETARY_COMPUTER, None, None).outline is None


def test_takes_the_assets_that_the_settings_name():
    names = {"B02": "blue-jp2", "B03": "green", "B04": "red", "B08": "nir", "SCL": "scl"}
    assert understand(EARTH_SEARCH, names, None).scene.assets[0] == ("B02", "https://cogs.example/blue-jp2.tif")


@pytest.mark.parametrize(
    ("baseline", "flag", "offset"),
    [
        ("02.14", None, 0),
        ("03.01", False, 0),
        ("04.00", None, -1000),
        ("04.00", False, -1000),
        ("04.00", True, 0),
        ("05.10", False, -1000),
        ("10.00", None, -1000),  # numbers, not texts
    ],
)
@pytest.mark.parametrize("date", ["20180701", "20230701"])  # Collection 1 has old dates and new baselines
def test_the_offset_follows_the_baseline_not_the_date(baseline, flag, offset, date):
    item = changed(
        EARTH_SEARCH,
        **{"s2:processing_baseline": baseline, "s2:datatake_id": f"GS2A_{date}T103631_041904_N{baseline}"},
        **{"earthsearch:boa_offset_applied": flag},
    )
    it = understand(item, None, None)
    assert (it.scene.acquired.strftime("%Y%m%d"), it.scene.offset) == (date, offset)
    assert understand(item, None, -7).scene.offset == -7


def processed_elsewhere(baseline, flag=None, **asset):
    """An item of a catalogue's own processing, whose assets hold more."""
    item = changed(
        EARTH_SEARCH,
        **{"s2:processing_baseline": baseline, "earthsearch:boa_offset_applied": flag, "s2:product_uri": None},
    )
    item["assets"] = {name: {**content, **asset} for name, content in item["assets"].items()}
    return item


@pytest.mark.parametrize("baseline", ["99.99", "00.00", "00.01", "02.99", "98.05"])
def test_a_baseline_that_is_none_of_esas_says_nothing_of_the_offset(baseline):
    with pytest.raises(InputError, match=rf"baseline {baseline}, none of ESA's.*set 'offset' to 0 or -1000") as error:
        understand(processed_elsewhere(baseline), None, None)
    assert "'exclude'" in str(error.value)
    assert understand(processed_elsewhere(baseline), None, -1000).scene.offset == -1000
    assert understand(processed_elsewhere(baseline, flag=True), None, None).scene.offset == 0


@pytest.mark.parametrize(
    ("asset", "offset"),
    [
        ({"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}, -1000),
        ({"raster:bands": [{"scale": 0.0001, "offset": 0}]}, 0),
        ({"raster:bands": [{"scale": 0.0001}]}, 0),
        ({"raster:scale": 0.0001, "raster:offset": -0.1}, -1000),
        ({"bands": [{"raster:scale": 0.0001, "raster:offset": 0.0}]}, 0),
    ],
)
def test_the_raster_extension_decides_where_no_baseline_does(asset, offset):
    assert understand(processed_elsewhere("99.99", **asset), None, None).scene.offset == offset
    ours = changed(EARTH_SEARCH, {"red": {**EARTH_SEARCH["assets"]["red"], **asset}})
    assert understand(ours, None, None).scene.offset == 0  # as the catalogue's flag has it


def test_assets_that_state_different_offsets_are_refused():
    item = processed_elsewhere("99.99", **{"raster:bands": [{"scale": 0.0001, "offset": -0.1}]})
    item["assets"]["nir"]["raster:bands"] = [{"scale": 0.0001, "offset": 0}]
    with pytest.raises(InputError, match=r"state different offsets, \['-1000', '0'\].*'exclude'"):
        understand(item, None, None)


def test_refuses_assets_of_another_unit():
    item = processed_elsewhere("05.09", **{"raster:bands": [{"scale": 2.75e-05, "offset": -0.2}]})
    with pytest.raises(InputError, match=r"asset 'blue' has scale 2.75e-05 and offset -0.2; needed is reflectance"):
        understand(item, None, 0)


def test_a_catalogues_own_processing_is_not_the_newest():
    theirs = changed(EARTH_SEARCH, **{"s2:processing_baseline": "99.99", "s2:generation_time": "2025-01-01T00:00:00Z"})
    ours = understand(EARTH_SEARCH, None, None)
    assert newest_versions([understand(theirs, None, 0), ours]) == [ours]


def test_the_baseline_may_stand_in_the_products_name_alone():
    assert understand(changed(EARTH_SEARCH, **{"s2:processing_baseline": None}), None, None).baseline == (5, 9)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (changed(PLANETARY_COMPUTER, **{"s2:processing_baseline": None, "s2:product_uri": None}), "'offset' to 0 or -1000"),
        (changed(EARTH_SEARCH, **{"proj:epsg": None}), "'proj:epsg'"),
        ({**EARTH_SEARCH, "assets": {"red": {"href": "x"}, "scl": {"href": "y"}}}, r"B02 \(B02 or blue .* it has red, scl"),
        ({**EARTH_SEARCH, "assets": {}}, "it has none: set 'assets'"),
        ({key: EARTH_SEARCH[key] for key in ("id", "links", "properties")}, "it has none: set 'assets'"),
        (
            {**changed(EARTH_SEARCH, datetime=None, **{"s2:datatake_id": None, "s2:product_uri": None})},
            "when it was sensed",
        ),
    ],
    ids=["baseline", "system", "assets", "no assets", "assets missing", "time"],
)  # fmt: skip
def test_refuses_an_item_that_does_not_say_enough(item, said):
    offset = None if "offset" in said else 0
    with pytest.raises(InputError, match=said) as error:
        understand(item, None, offset)
    assert item["id"] in str(error.value)


@pytest.mark.parametrize(
    "broken",
    [
        {"properties": None},
        {"properties": {**DATA_SPACE["properties"], "eo:cloud_cover": "cloudy"}},
        {"assets": {name: {**asset, "proj:transform": [10, 0], "proj:shape": [3, 4]} for name, asset in DATA_SPACE["assets"].items()}},
        {"assets": dict.fromkeys(DATA_SPACE["assets"], "https://somewhere.example/B02.jp2")},
    ],
)  # fmt: skip
def test_an_item_that_is_none_is_refused_by_its_id(broken):
    with pytest.raises(InputError, match=f"item '{DATA_SPACE['id']}' is not as STAC describes items .* into 'exclude'"):
        understand({**DATA_SPACE, **broken}, None, None)


def test_nulls_of_an_asset_hide_nothing_and_times_without_zone_are_utc(monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    item = copy.deepcopy(DATA_SPACE)
    item |= {"id": "mine"}
    item["properties"] |= {"datetime": "2023-06-30T22:36:31"}
    for asset in item["assets"].values():
        asset |= {"proj:code": None, "proj:transform": None}
    found = understand(item, None, None)
    monkeypatch.undo()
    time.tzset()
    assert (found.epsg, found.scene.acquired) == (32631, dt.datetime(2023, 6, 30, 22, 36, 31, tzinfo=dt.UTC))


def test_an_unknown_catalogue_is_read_by_the_items_own_time():
    item = changed(EARTH_SEARCH, **{"s2:datatake_id": None, "s2:product_uri": None, "grid:code": None})
    it = understand(item, None, None)
    assert it.scene.acquired == dt.datetime(2023, 7, 1, 10, 46, 30, 262000, tzinfo=dt.UTC)
    assert it.mgrs_tile == item["id"]  # no version of any other


def version(baseline, generated="2023-07-01T20:00:58Z", strip="S20230701T104159", tile="31UFU", take="20230701T103631"):
    product = f"S2A_MSIL2A_{take}_N{baseline.replace('.', '')}_R008_T{tile}_{generated[:4]}"
    item = changed(
        EARTH_SEARCH,
        **{"s2:processing_baseline": baseline, "s2:generation_time": generated, "grid:code": f"MGRS-{tile}"},
        **{"s2:datastrip_id": f"S2A_OPER_MSI_L2A_DS_2APS_{generated[:4]}_{strip}_N{baseline}"},
        **{"s2:product_uri": f"{product}.SAFE", "s2:datatake_id": f"GS2A_{take}_041904_N{baseline}"},
    )
    return understand(item, None, None)


def test_keeps_the_last_processing_of_a_product():
    old, new, newer = version("03.00"), version("05.00"), version("05.00", "2024-02-01T00:00:00Z")
    for order in ([old, new, newer], [newer, old, new], [new, newer, old]):
        assert newest_versions(order) == [newer]
    assert newest_versions([version("10.00"), version("05.00")]) == [version("10.00")]
    assert newest_versions([old, old]) == [old]  # listed on two pages


def test_keeps_both_halves_of_a_tile_at_the_seam_of_two_strips():
    first, second = version("05.09"), version("05.09", strip="S20230701T104621")
    assert sorted(newest_versions([first, second]), key=lambda it: it.data_strip) == [first, second]


@pytest.mark.parametrize("prefix", ["eopf", "sentinel2", None])
def test_both_halves_are_kept_whoever_names_the_strip_or_nobody(prefix):
    items = []
    for made, start in (("20230701T200058", "20230701T104159"), ("20230701T195500", "20230701T104621")):
        strip = f"S2A_OPER_MSI_L2A_DS_2APS_{made}_S{start}_N05.09"
        named = {f"{prefix}:datastrip_id": strip} if prefix else {}
        items.append(changed(DATA_SPACE, **named) | {"id": f"S2A_MSIL2A_20230701T103631_N0509_R008_T31UFU_{made}"})
    found = newest_versions([understand(item, None, None) for item in items])
    assert [it.scene.scene_id for it in found] == [item["id"] for item in items]  # the newer processing first
    again = changed(items[0], **{"processing:version": "05.10"}) | {
        "id": "S2A_MSIL2A_20230701T103631_N0510_R008_T31UFU_2"
    }
    assert len(newest_versions([understand(item, None, None) for item in (items[0], again)])) == (1 if prefix else 2)


def test_strips_that_were_timed_anew_come_newest_first():
    old, new = version("03.00"), version("05.00", strip="S20230701T104155")
    assert newest_versions([old, new]) == newest_versions([new, old]) == [new, old]


def test_orders_by_time_then_tile():
    items = [
        version("05.09", tile="31UFU", take="20230704T103631"),
        version("05.09", tile="31UFU"),
        version("05.09", tile="31UES"),
        version("05.09", tile="31UES", take="20230704T103631"),
    ]
    found = [(it.scene.acquired.day, it.mgrs_tile) for it in newest_versions(items)]
    assert found == [(1, "31UES"), (1, "31UFU"), (4, "31UES"), (4, "31UFU")]
