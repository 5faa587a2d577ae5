"""The files of a small drawn landscape."""

import collections
import datetime as dt
import itertools

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from rasterio.features import rasterize

from cropray.core.errors import InputError
from cropray.core.legend import bundled_legend
from cropray.io.storage import folder_hash
from cropray.io.zones import bundled_zones, read_zones
from cropray.landscape.draw import draw_landscape
from cropray.landscape.files import RPG_LAYER
from cropray.landscape.regions import EXCLUDED_CODE, REGION_STYLES, UNKNOWN_CODE
from cropray.landscape.settings import LandscapeSettings

SMALL = LandscapeSettings(n_regions=2, zones_per_region=3, zone_px=32, scenes_per_month=2)


@pytest.fixture(scope="module")
def land(tmp_path_factory):
    return draw_landscape(SMALL, tmp_path_factory.mktemp("drawn") / "landscape")


@pytest.fixture(scope="module")
def parcels(land):
    return pyogrio.read_dataframe(land.parcels)


def test_the_same_seed_gives_the_same_bytes(land, tmp_path):
    again = draw_landscape(SMALL, tmp_path / "again", n_processes=2)  # and however many processes draw
    assert folder_hash(again.folder) == folder_hash(land.folder)


def test_another_seed_gives_other_land(land, tmp_path):
    other = draw_landscape(SMALL.model_copy(update={"seed": 1}), tmp_path / "other")
    assert other.parcels.read_bytes() != land.parcels.read_bytes()


def test_a_landscape_that_stands_is_kept(land):
    before = {path: path.stat().st_mtime_ns for path in land.folder.rglob("*")}
    draw_landscape(SMALL, land.folder)
    assert {path: path.stat().st_mtime_ns for path in land.folder.rglob("*")} == before


def test_other_settings_replace_it(tmp_path):
    tiny = LandscapeSettings(n_regions=1, zones_per_region=2, zone_px=24, scenes_per_month=2)
    draw_landscape(tiny, tmp_path / "land")
    files = draw_landscape(tiny.model_copy(update={"year": 2022}), tmp_path / "land")
    assert {path.stem.split("_")[-1][:4] for path in files.scenes.rglob("*.tif")} == {"2022"}


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    precious = tmp_path / "thesis.txt"
    precious.write_text("do not delete")
    with pytest.raises(InputError, match="nothing was overwritten"):
        draw_landscape(SMALL, tmp_path)
    assert precious.read_text() == "do not delete"


def test_progress_counts_up_to_the_total(tmp_path):
    calls = []
    tiny = LandscapeSettings(n_regions=2, zones_per_region=2, zone_px=24, scenes_per_month=2)
    draw_landscape(tiny, tmp_path / "land", lambda *call: calls.append(call))
    assert calls == [("regions", 1, 2), ("regions", 2, 2)]


def test_zones_are_small_copies_of_the_bundled_ones(land):
    bundled = {zone.zone_id: zone for zone in bundled_zones()}
    zones = read_zones(land.zones)
    assert len(zones) == 6
    for zone in zones:
        original = bundled[zone.zone_id]
        assert (zone.region, zone.split, zone.grid.epsg) == (original.region, original.split, original.grid.epsg)
        assert zone.grid.shape == (32, 32)
        assert (zone.grid.x_min % 60, zone.grid.y_max % 60) == (0, 0)
    for one, other in itertools.combinations([zone for zone in zones if zone.region == "picardie"], 2):
        assert one.grid.distance_m(other.grid) >= SMALL.gap_px * 10


def test_scenes_are_as_a_satellite_archive_has_them(land):
    zones = read_zones(land.zones)
    for style in REGION_STYLES[:2]:
        paths = sorted((land.scenes / style.region).glob("*.tif"))
        assert len(paths) > 12
        for path in paths:
            dt.datetime.strptime(path.stem.split("_")[-1], "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
            with rasterio.open(path) as scene:
                assert scene.descriptions == ("B2", "B3", "B4", "B8", "SCL")
                assert set(scene.dtypes) == {"uint16"}
                assert scene.nodata == 0
                for zone in zones:
                    if zone.region == style.region:
                        x_min, y_min, x_max, y_max = zone.grid.bounds
                        assert scene.crs.to_epsg() == zone.grid.epsg
                        assert scene.bounds.left <= x_min < x_max <= scene.bounds.right
                        assert scene.bounds.bottom <= y_min < y_max <= scene.bounds.top


def test_what_the_swath_misses_is_nodata_in_every_band(land):
    n_missing = 0
    for path in land.scenes.rglob("*.tif"):
        with rasterio.open(path) as scene:
            bands = scene.read()
        missing = bands == 0
        assert (missing.all(axis=0) == missing.any(axis=0)).all()
        assert set(np.unique(bands[4])) <= {0, 3, 4, 5, 7, 8, 9, 10}
        n_missing += missing[0].sum()
    assert n_missing > 0


def test_the_register_has_ign_columns(land, parcels):
    info = pyogrio.read_info(land.parcels)
    assert (info["crs"], info["layer_name"]) == ("EPSG:2154", RPG_LAYER)
    expected = ["ID_PARCEL", "SURF_PARC", "CODE_CULTU", "CODE_GROUP", "CULTURE_D1", "CULTURE_D2", "geometry"]
    assert list(parcels.columns) == expected
    assert parcels.ID_PARCEL.is_unique
    assert parcels.geometry.is_valid.all()
    assert np.allclose(parcels.SURF_PARC, parcels.area / 1e4, atol=0.01)  # Lambert-93 keeps areas to 0.1 %


def test_parcels_do_not_overlap(parcels):
    left, right = shapely.STRtree(parcels.geometry).query(parcels.geometry, predicate="overlaps")
    assert len(left) == len(right) == 0


def test_one_parcel_has_an_unknown_code(parcels):
    known = bundled_legend().class_id_of_code(2023)
    assert list(parcels.CODE_CULTU[~parcels.CODE_CULTU.isin(list(known))]) == [UNKNOWN_CODE]


def codes_in_zones(land, parcels):
    """Zone id → codes that cover at least one of its pixel centres."""
    codes = {}
    for zone in read_zones(land.zones):
        shapes = list(zip(parcels.to_crs(zone.grid.epsg).geometry, range(1, len(parcels) + 1), strict=True))
        burnt = rasterize(shapes, zone.grid.shape, transform=Affine(*zone.grid.transform), dtype="int32")
        codes[zone.zone_id] = [parcels.CODE_CULTU[number - 1] for number in np.unique(burnt) if number]
    return codes


def test_every_crop_of_a_test_zone_also_grows_in_a_training_zone(land, parcels):
    codes = codes_in_zones(land, parcels)
    for region in {zone.region for zone in read_zones(land.zones)}:
        by_split = collections.defaultdict(set)
        for zone in read_zones(land.zones):
            if zone.region == region:
                by_split[zone.split] |= set(codes[zone.zone_id])
        assert by_split["test"] <= by_split["train"], region


def test_no_parcel_reaches_into_two_zones(land, parcels):
    zones = read_zones(land.zones)
    for epsg, group in itertools.groupby(zones, key=lambda zone: zone.grid.epsg):
        outlines = parcels.to_crs(epsg).geometry
        touched = sum(outlines.intersects(shapely.box(*zone.grid.bounds)).astype(int) for zone in group)
        assert touched.max() == 1


def test_worldcover_shows_cropland_at_every_zone(land):
    with rasterio.open(land.worldcover) as cover:
        assert cover.crs.to_epsg() == 4326
        assert set(np.unique(cover.read(1))) <= {10, 30, 40, 50}
        classes = cover.read(1)
        for zone in read_zones(land.zones):
            x, y = zone.grid.centre(16, 16)
            lon, lat = rasterio.warp.transform(f"EPSG:{zone.grid.epsg}", cover.crs, [x], [y])
            row, col = cover.index(lon[0], lat[0])
            assert (classes[row - 4 : row + 5, col - 4 : col + 5] == 40).mean() > 0.6, zone.zone_id
        assert (classes == 40).mean() < 0.2  # and little elsewhere


def test_excluded_codes_grow_somewhere_in_the_whole_landscape():
    assert any(EXCLUDED_CODE in dict(style.crop_shares) for style in REGION_STYLES)
    assert bundled_legend().class_id_of_code(2023)[EXCLUDED_CODE] == 255


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_regions": 6, "zones_per_region": 1}, "greater than or equal to 2"),
        ({"gap_px": 10}, "greater than or equal to 28"),
        ({"zone_size": 48}, "Extra inputs"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        LandscapeSettings(**values)
