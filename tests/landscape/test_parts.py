"""Canopies, sky, fields and mixing, each on its own."""

import collections
import dataclasses

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from cropray.core.legend import bundled_legend
from cropray.io.zones import bundled_zones
from cropray.landscape import canopy, fields, scenes, sky
from cropray.landscape.regions import EXCLUDED_CODE, REGION_STYLES, UNKNOWN_CODE
from cropray.landscape.settings import MAX_PARCEL_EXTENT_M, LandscapeSettings
from tests.synthetic import grid

BEAUCE, LANGUEDOC = REGION_STYLES[1], REGION_STYLES[-1]
SETTINGS = LandscapeSettings(zones_per_region=5)


def rng(seed=0):
    return np.random.default_rng(seed)


def stand_of(code, style, n=200):
    return canopy.draw_stand([canopy.CROPS[code]] * n, np.zeros(n), style, rng())


def mean_ndvi(stand, day):
    colour = canopy.reflectance(stand, day, drought=0.2)[0].mean(axis=0)
    return (colour[3] - colour[2]) / (colour[3] + colour[2])


def test_every_drawn_code_has_a_canopy_and_a_class():
    known = bundled_legend().class_id_of_code(2023)
    drawn = {code for style in REGION_STYLES for code, _ in style.crop_shares}
    assert drawn <= set(canopy.CROPS)
    assert drawn <= set(known)
    assert UNKNOWN_CODE not in known


def test_the_mix_has_the_imbalance_of_the_study():
    shares = collections.Counter()
    for style in REGION_STYLES:
        total = sum(share for _, share in style.crop_shares)
        for code, share in style.crop_shares:
            shares[code] += share / total / len(REGION_STYLES)
    assert [code for code, _ in shares.most_common(2)] == ["BTH", "MIS"]
    assert shares["BTH"] > 20 * shares["PPR"]


@pytest.mark.parametrize(
    ("code", "green_day", "bare_day"), [("BTH", 130, 220), ("MIS", 220, 100), ("CZH", 100, 200), ("BTN", 230, 60)]
)
def test_crops_are_green_in_their_season(code, green_day, bare_day):
    stand = stand_of(code, BEAUCE)
    assert mean_ndvi(stand, green_day) > 0.65
    assert mean_ndvi(stand, bare_day) < 0.40


def test_the_south_is_earlier():
    days = np.arange(40, 180)
    greening = {
        style.region: next(d for d in days if mean_ndvi(stand_of("BTH", style), float(d)) > 0.55)
        for style in (BEAUCE, LANGUEDOC)
    }
    assert greening["beauce"] - greening["languedoc"] > 10  # the styles are 17 days apart


def test_rapeseed_flowers_yellow():
    bloom = canopy.reflectance(stand_of("CZH", BEAUCE), 112, 0)[0].mean(axis=0)
    blue, green, red, _ = bloom
    assert green > 1.5 * blue
    assert red > 1.5 * blue


@given(code=st.sampled_from(sorted(canopy.CROPS)), day=st.integers(1, 366), seed=st.integers(0, 50))
def test_cover_and_reflectance_stay_physical(code, day, seed):
    stand = canopy.draw_stand([canopy.CROPS[code]] * 5, np.zeros(5), LANGUEDOC, rng(seed))
    cover = canopy.green_cover(stand, float(day), 0.5)
    colour, _ = canopy.reflectance(stand, float(day), 0.5)
    assert ((cover >= 0) & (cover <= 1)).all()
    assert ((colour > 0) & (colour < 0.8)).all()


def test_density_is_the_change_per_cover():
    stand = stand_of("BTH", BEAUCE, n=4)
    cover = canopy.green_cover(stand, 120.0, 0.0)[:, None]
    colour, change = canopy.reflectance(stand, 120.0, 0.0)
    # colour = cover·green + (1 - cover)·ground and change = cover·(green - ground), so what follows is green
    assert np.allclose(colour + change * (1 - cover) / cover, stand.green)


def test_a_border_pixel_is_the_area_weighted_mean():
    place = grid(size=2)  # two by two pixels of 10 m
    x_min, _, _, y_max = place.bounds
    cells = [fields.Cell(shapely.box(x_min, y_max - 20, x_min + 5, y_max), "BTH")]  # western half of column 0
    mixing = scenes.mix_units(cells, place)
    values = np.array([[1.0], [3.0]])  # the field, the verge
    assert mixing.average(values)[:, 0].tolist() == [2.0, 3.0, 2.0, 3.0]


@pytest.mark.parametrize("index", range(len(REGION_STYLES)))
def test_parcels_are_no_longer_than_the_gap_between_zones(index):
    style = REGION_STYLES[index]
    zones = tuple(zone for zone in bundled_zones() if zone.region == style.region)
    canvas = fields.lay_out_canvas(SETTINGS, zones)
    cells = fields.draw_cells(canvas, style, rng(index))
    for cell in cells:
        x_min, y_min, x_max, y_max = cell.outline.bounds
        assert max(x_max - x_min, y_max - y_min) <= MAX_PARCEL_EXTENT_M < SETTINGS.gap_px * 10
    area = sum(cell.outline.area for cell in cells)
    assert 0.75 < area / (canvas.grid.height * canvas.grid.width * 100) < 1.0  # tracks take the rest


def sown_region(style, seed=0):
    zones = tuple(zone for zone in bundled_zones() if zone.region == style.region)
    canvas = fields.lay_out_canvas(SETTINGS, zones)
    generator = rng(seed)
    return canvas, fields.sow(canvas, fields.draw_cells(canvas, style, generator), style, generator)


@pytest.mark.parametrize("style", REGION_STYLES, ids=lambda style: style.region)
def test_crops_follow_the_shares_and_every_zone_gets_the_common_ones(style):
    _, cells = sown_region(style)
    codes = collections.Counter(cell.code for cell in cells if cell.code)
    total = sum(share for _, share in style.crop_shares)
    for code, share in style.crop_shares:
        assert abs(codes[code] / codes.total() - share / total) < 0.02, code
    commonest = max(style.crop_shares, key=lambda pair: pair[1])[0]
    for index in range(5):
        assert commonest in {cell.code for cell in cells if cell.zone_index == index}


def test_exchanges_make_test_crops_known():
    style = dataclasses.replace(BEAUCE, crop_shares=(("BTH", 90), *((code, 1) for code in sorted(canopy.CROPS)[:8])))
    for seed in range(5):
        canvas, cells = sown_region(style, seed)
        by_split = {"train": set(), "test": set()}
        for cell in cells:
            if cell.code and cell.zone_index is not None:
                by_split[canvas.zones[cell.zone_index].split].add(cell.code)
        assert by_split["test"] <= by_split["train"]


def test_excluded_parcels_are_drawn():
    style = next(style for style in REGION_STYLES if EXCLUDED_CODE in dict(style.crop_shares))
    assert EXCLUDED_CODE in {cell.code for cell in sown_region(style)[1]}


def test_passes_are_in_time_order_and_months_can_be_empty():
    times = list(sky.acquisition_times(SETTINGS.model_copy(update={"missing_month_share": 0.4}), rng(3)))
    assert times == sorted(times)
    per_month = collections.Counter(time.month for time in times)
    assert len(per_month) < 12
    assert set(per_month.values()) <= {2, 3, 4, 5}


def test_clouds_are_patches_that_throw_shadows_north_west():
    cloudy = dataclasses.replace(BEAUCE, cloudiness=0.5)
    draws = [sky.draw_sky(SETTINGS, cloudy, (80, 120), 180.0, rng(seed)) for seed in range(30)]
    covers = [float((draw.cloud > 0.1).mean()) for draw in draws]
    assert min(covers) < 0.1
    assert max(covers) > 0.9
    partly = next(draw for draw, cover in zip(draws, covers, strict=True) if 0.3 < cover < 0.6)
    is_cloud = partly.cloud > 0.5
    assert (is_cloud[:, 1:] == is_cloud[:, :-1]).mean() > 0.9  # neighbours agree
    north_west = np.roll(partly.cloud, (-7, -3), axis=(0, 1))
    south_east = np.roll(partly.cloud, (7, 3), axis=(0, 1))
    assert np.corrcoef(partly.shadow.ravel(), north_west.ravel())[0, 1] > 0.6
    assert np.corrcoef(partly.shadow.ravel(), south_east.ravel())[0, 1] < 0.4


def test_classification_follows_what_is_drawn():
    shape = (20, 20)
    ground = np.broadcast_to(np.array([0.03, 0.06, 0.04, 0.40]), (*shape, 4)).copy()
    ground[:, 10:] = (0.08, 0.10, 0.14, 0.20)
    cloud, none = np.zeros(shape), np.zeros(shape)
    cloud[:5], cloud[5:8] = 1.0, 0.3
    is_seen = np.ones(shape, dtype=bool)
    is_seen[-2:] = False
    scl = sky.classify_scene(ground, sky.Sky(cloud, none, none, is_seen), rng())
    assert (scl[:5] == 9).all()
    assert (scl[5:8] == 8).all()
    assert (scl[-2:] == 0).all()
    clear = scl[8:-2]
    assert (clear[:, :10] != 5).all()
    assert (clear[:, 10:] != 4).all()
    assert 0 < (clear == 7).mean() < 0.1
    seen = sky.through_sky(ground, sky.Sky(cloud, none, none, is_seen))
    assert (seen[:5] > 0.5).all()
    assert np.allclose(seen[8:], ground[8:])


def test_smooth_noise_is_standardised_and_smooth():
    noise = sky.smooth_noise((60, 90), 6.0, rng())
    assert abs(noise.mean()) < 1e-9
    assert abs(noise.std() - 1) < 1e-9
    assert np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1] > 0.95
