import pytest
from pyproj import Transformer

from cropray.core.errors import InputError
from cropray.io.zones import bundled_zones
from cropray.zone_selection.regions import bundled_regions, read_regions, utm_epsg


def test_the_bundled_regions_are_those_of_the_bundled_zones():
    regions = bundled_regions()
    systems = {zone.region: zone.grid.epsg for zone in bundled_zones()}
    assert {region.region: region.epsg for region in regions} == systems


def test_the_study_s_zones_lie_around_the_bundled_towns():
    towns = {region.region: region.town_m for region in bundled_regions()}
    for zone in bundled_zones():
        x, y = zone.grid.centre(500, 500)
        town_x, town_y = towns[zone.region]
        assert (x - town_x) ** 2 + (y - town_y) ** 2 < 75_000**2, zone.zone_id


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [(3, 50, 32631), (-1.2, 48, 32630), (0, 44, 32631), (6, 44, 32632), (180, 10, 32660), (-58.4, -34.6, 32721)],
)
def test_utm_strips(lon, lat, epsg):
    assert utm_epsg(lon, lat) == epsg


def test_a_table_of_another_country(tmp_path):
    table = tmp_path / "regions.csv"
    table.write_text(
        "\ufeffregion,lon,lat,epsg,town\nÑuñoa Sur,-58.4,-34.6,,Buenos Aires\nKent,1.0,51.2,27700,\n", encoding="utf-8"
    )
    south, kent = read_regions(table)
    assert (south.slug, south.epsg, south.town, south.stays_in_strip) == ("nunoa-sur", 32721, "Buenos Aires", True)
    assert (kent.slug, kent.epsg, kent.town, kent.stays_in_strip) == ("kent", 27700, "Kent", False)
    x, y = Transformer.from_crs(4326, 27700, always_xy=True).transform(1.0, 51.2)
    assert kent.town_m == (round(x), round(y))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("region,lon\na,1\n", r"lacks the columns \['lat'\]"),
        ("region,lon,lat\na,1,50\nA!,2,50\n", "'a' and 'A!'.*'a-1'"),
        ("region,lon,lat\na,east,50\n", "line 2.*east"),
        ("region,lon,lat\na,1\n", "line 2"),
        ("region,lon,lat\na,1,95\n", "line 2.*no place in UTM"),
        ("region,lon,lat\na,nan,50\n", "line 2"),
        ("region,lon,lat\n?,1,50\n", "line 2.*letters or digits"),
        ("region,lon,lat,epsg\na,1,50,4326\n", "line 2.*no projected system in metres"),
        ("region,lon,lat,epsg\na,1,50,2225\n", "line 2.*no projected system in metres"),  # feet
        ("region,lon,lat,epsg\na,1,50,999999\n", "line 2"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, text, message):
    table = tmp_path / "regions.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=message):
        read_regions(table)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv.*does not exist"):
        read_regions(tmp_path / "nowhere.csv")


def test_a_table_that_is_no_text_is_refused(tmp_path):
    table = tmp_path / "regions.csv"
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_regions(table)
