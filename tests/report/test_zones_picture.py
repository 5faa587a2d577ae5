import json

import numpy as np
import pytest
import shapely
from PIL import Image

from cropray.core.errors import InputError
from cropray.report.zones_picture import TEST_COLOUR, TRAIN_COLOUR, draw_zones, read_outline
from cropray.zone_selection.regions import bundled_regions
from cropray.zone_selection.selection import choose_zones, search_areas
from tests.zone_selection.small import NOWHERE, REGION, settings


def choices(regions=(REGION,), **changes):
    rules = settings(**changes)
    areas = search_areas(regions, rules, NOWHERE)
    covers = [np.random.default_rng(0).choice(np.array([10, 40], np.uint8), area.grid.shape) for area in areas]
    return choose_zones(regions, areas, covers, rules)


def count(path, colour):
    pixels = np.asarray(Image.open(path).convert("RGB"))
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((pixels == wanted).all(axis=-1).sum())


def test_france_holds_all_bundled_towns():
    outline = read_outline(None)
    assert outline.is_valid
    assert all(shapely.contains_xy(outline, region.lon, region.lat) for region in bundled_regions())
    assert not shapely.contains_xy(
        outline, [-0.13, 4.35, 2.17], [51.5, 50.85, 41.4]
    ).any()  # London, Brussels, Barcelona


def test_both_splits_are_drawn_and_the_same_zones_give_the_same_bytes(tmp_path):
    first, second = tmp_path / "1.png", tmp_path / "2.png"
    for path in (first, second):
        draw_zones(path, choices(zone_size_m=2000, radius_km=6.0), read_outline(None), 6.0)
    assert first.read_bytes() == second.read_bytes()
    train, test = (count(first, colour) for colour in (TRAIN_COLOUR, TEST_COLOUR))
    assert train > test > 400  # the legend's square alone has fewer than 200 pixels


def test_nine_regions_fit(tmp_path):
    regions = tuple(type(REGION)(f"r{i}", 1.0 + i % 3, 45.0 + i // 3, 32631, f"Town {i}") for i in range(9))
    draw_zones(tmp_path / "zones.png", choices(regions), read_outline(None), 3.0)
    width, height = Image.open(tmp_path / "zones.png").size
    assert width > 1.5 * height  # a third column of panels


def test_another_country_has_its_own_outline(tmp_path):
    square = {"type": "Polygon", "coordinates": [[[2, 49], [4, 49], [4, 51], [2, 51], [2, 49]]]}
    path = tmp_path / "country.geojson"
    path.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": square}))
    assert read_outline(path).equals(shapely.box(2, 49, 4, 51))


def test_an_outline_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.shp.*zone_selection\.outline"):
        read_outline(tmp_path / "none.shp")
