"""Scenes in any bands of 10 and 20 m, and in any twelve months."""

import datetime as dt

import numpy as np
import pytest
import rasterio
from pydantic import ValidationError

from cropray.core.cube import STUDY_CUBE
from cropray.core.sensors import SENTINEL_2
from cropray.landscape import spectra
from cropray.landscape.draw import _draw_region, _random
from cropray.landscape.files import write_scene
from cropray.landscape.regions import REGION_STYLES
from cropray.landscape.scenes import draw_scene
from cropray.landscape.settings import LandscapeSettings
from cropray.landscape.sky import acquisition_times

SMALL = {"n_regions": 1, "zones_per_region": 2, "zone_px": 32, "gap_px": 30}
TEN = tuple(band.id for band in SENTINEL_2.bands)
CLEAR = dt.datetime(2023, 6, 20, 10, 50, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def land():
    return _draw_region(LandscapeSettings(**SMALL), 0, REGION_STYLES[0])[2]


def scene(land, bands, acquired=CLEAR, seed=1):
    settings = LandscapeSettings(**SMALL, bands=bands)
    drawn = draw_scene(land, settings, acquired, np.random.default_rng([7, seed]))
    return dict(zip((*bands, "SCL"), drawn, strict=True))


def test_more_bands_and_another_order_leave_each_band_as_it_is(land):
    study, ten = scene(land, STUDY_CUBE.band_ids), scene(land, TEN)
    turned = scene(land, ("B12", "B04", "B02"))
    for band in (*STUDY_CUBE.band_ids, "SCL"):
        np.testing.assert_array_equal(ten[band], study[band])
    for band in ("B12", "B04", "B02", "SCL"):
        np.testing.assert_array_equal(turned[band], ten[band])
    assert len({ten[band].tobytes() for band in TEN}) == 10


def test_red_edge_rises_and_leaves_absorb_in_the_short_waves(land):
    drawn = [scene(land, TEN, CLEAR + dt.timedelta(days=day), seed) for day in range(0, 20, 5) for seed in range(4)]
    by_class = {
        scl: {b: np.median(np.concatenate([s[b][s["SCL"] == scl] for s in drawn])) for b in TEN} for scl in (4, 5)
    }
    green, bare = by_class[4], by_class[5]
    assert green["B04"] < green["B05"] < green["B06"] < green["B07"] < green["B8A"]
    assert green["B12"] < green["B11"] < green["B8A"]
    assert bare["B04"] < bare["B08"] < bare["B11"]
    assert bare["B12"] > 1.3 * green["B12"]


def test_derived_bands_are_no_data_where_the_others_are(land):
    for seed in range(40):
        drawn = scene(land, TEN, seed=seed)
        if (drawn["B02"] == 0).any():
            break
    for band in TEN:
        np.testing.assert_array_equal(drawn[band] == 0, drawn["SCL"] == 0)


def test_files_name_their_bands(land, tmp_path):
    bands = spectra.bands_of(("B11", "B8A", "B02"))
    settings = LandscapeSettings(**SMALL, bands=("B11", "B8A", "B02"))
    drawn = draw_scene(land, settings, CLEAR, np.random.default_rng(0))
    write_scene(tmp_path / "s.tif", drawn, land.grid, bands)
    with rasterio.open(tmp_path / "s.tif") as file:
        assert file.descriptions == ("B11", "B8A", "B2", "SCL")
        assert file.scales == (1e-4, 1e-4, 1e-4, 1.0)
        np.testing.assert_array_equal(file.read(), drawn)


@pytest.mark.parametrize("bands", [(), ("B02", "B02"), ("B02", "B09"), ("VV",)])
def test_bands_that_are_not_drawn_are_refused(bands):
    with pytest.raises(ValidationError, match="draw some of B02, B03"):
        LandscapeSettings(bands=bands)


def test_twelve_months_begin_where_they_should():
    settings = LandscapeSettings(**SMALL, first_month=9, year=2022, missing_month_share=0)
    times = list(acquisition_times(settings, _random(settings, 0, 1)))
    months = list(dict.fromkeys((time.year, time.month) for time in times))
    assert months == [(2022, m) for m in (9, 10, 11, 12)] + [(2023, m) for m in range(1, 9)]
    assert times == sorted(times)
    calendar = list(
        acquisition_times(settings.model_copy(update={"first_month": 1, "year": 2023}), _random(settings, 0, 1))
    )
    assert [time.day for time in calendar] == [time.day for time in times]  # the same passes, from January on
