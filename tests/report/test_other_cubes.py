"""Pictures of cubes that are not the study's: their steps, series, units and views."""

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cropray.core.cube import STUDY_CUBE, CubeSpec, Season
from cropray.core.legend import bundled_legend
from cropray.core.sensors import SENTINEL_2, Band, known_band
from cropray.report.drawing import common_steps, initials, step_names
from cropray.report.films import draw_film, views_of, zone_year
from cropray.report.observation_pictures import ObservedZone, draw_n_obs, draw_observed_months
from cropray.report.profile_pictures import ProfileData, draw_band_profiles, draw_ndvi_profiles
from cropray.report.summary import (
    NDVI,
    ZoneSummary,
    count_observations,
    count_profiles,
    read_summary,
    save_summary,
    series_of,
)

RADAR = CubeSpec((known_band("VV"), known_band("B04"), known_band("B08"), Band("LAI", "m2/m2", 1e-3, 0.0)), "dekad", 5)


def test_steps_have_names_by_their_first_day_and_marks_where_a_month_begins():
    names = step_names(Season("2022-12", CubeSpec(RADAR.bands, "half-month", 2)))
    assert names == ("1 Dec 2022", "16 Dec 2022", "1 Jan 2023", "16 Jan 2023")
    assert common_steps([names, step_names(Season("2019-12", CubeSpec(RADAR.bands, "half-month", 2)))])[1] == "16 Dec"
    assert common_steps([names, names[1:] + names[:1]]) == ("1", "2", "3", "4")
    assert initials(names) == ("D", "", "J", "")
    assert initials(step_names(Season("2023-01"))) == tuple("JFMAMJJASOND")
    assert initials(("1", "2", "10")) == ("1", "2", "10")


def test_the_index_is_drawn_where_its_bands_are():
    assert series_of(STUDY_CUBE) == (NDVI, "B02", "B03", "B04", "B08")
    assert series_of(RADAR) == (NDVI, "VV", "B04", "B08", "LAI")
    assert series_of(CubeSpec((known_band("VV"), known_band("B08")))) == ("VV", "B08")


def draw_table(cube, n=400, seed=0):
    rng = np.random.default_rng(seed)
    x = {
        name: rng.integers(0, 65_536 if name.startswith(("VV", "LAI")) else 9000, n).astype(np.uint16)
        for name in cube.columns
    }
    return pa.table({"label": rng.integers(0, 3, n).astype(np.uint8), **x})


def test_profiles_are_of_values_in_the_unit_of_each_band(tmp_path):
    table = draw_table(RADAR)
    save_summary(ZoneSummary(count_profiles(table, 3, RADAR), None), tmp_path / "s.npz")
    lookup = np.full(256, 255, np.uint8)
    lookup[:3] = range(3)
    profiles = read_summary(tmp_path / "s.npz", lookup, RADAR).profiles
    label = table["label"].to_numpy()
    for series, (scale, offset) in ((1, (0.002, -80.0)), (4, (1e-3, 0.0))):
        for step, name in enumerate(RADAR.step_names):
            numbers = table[f"{series_of(RADAR)[series]}_{name}"].to_numpy()
            values = [numbers[(label == k) & (numbers > 0)] * scale + offset for k in range(3)]
            means = [each.mean() for each in values]
            np.testing.assert_allclose(profiles.mean[:, series, step], means, rtol=1e-6)
            medians = [np.sort(each)[int(np.ceil(len(each) / 2)) - 1] for each in values]
            np.testing.assert_allclose(profiles.quantile(0.5)[:, series, step], medians, atol=34 * scale)


@pytest.mark.parametrize("unit", ["reflectance", "dB", "m2/m2"])
def test_profiles_of_each_unit_are_drawn(tmp_path, unit):
    months = common_steps([step_names(Season("2022-11", RADAR))])
    profiles = count_profiles(draw_table(RADAR), 3, RADAR)
    data = ProfileData(profiles, bundled_legend().classes[:3], np.array([9, 5, 2]), months)
    draw_band_profiles(data, tmp_path / "p.png", unit=unit)
    draw_ndvi_profiles(data, tmp_path / "n.png")
    for name in "pn":
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5


def test_films_are_of_the_bands_that_there_are():
    assert [view.name for view in views_of(STUDY_CUBE)] == ["true_colour", "false_colour", "B02", "B03", "B04", "B08"]
    assert len(views_of(CubeSpec(SENTINEL_2.bands))) == 12
    no_infrared = CubeSpec(tuple(map(known_band, ("VV", "B04", "B03", "B02"))))
    assert [view.name for view in views_of(no_infrared)] == ["true_colour", "VV", "B04", "B03", "B02"]
    assert views_of(RADAR) == ()


@pytest.mark.parametrize(("step", "months"), [("dekad", 12), ("season", 3), ("16d", 1)])
def test_pictures_of_any_number_of_steps(tmp_path, step, months):
    cube = CubeSpec(tuple(map(known_band, ("B11", "B02", "B04", "B03"))), step, months)
    names = step_names(Season("2023-09", cube))
    rng = np.random.default_rng(0)
    composite = rng.integers(0, 5000, (*cube.shape, 40, 60)).astype(np.uint16)
    n_obs = rng.integers(0, 3, (cube.n_steps, 40, 60)).astype(np.uint8)
    year = zone_year("z", names, composite, n_obs, 120, cube)
    np.testing.assert_array_equal(year.image[0, 1, 0, 0], composite[0, 1, 0, 0])
    draw_film(year, views_of(cube)[0], tmp_path / "f.gif")
    with Image.open(tmp_path / "f.gif") as film:
        assert film.n_frames == cube.n_steps
    draw_n_obs("z", n_obs, names, tmp_path / "n.png")
    zones = [ObservedZone("z-1", "r", count_observations(n_obs))]
    draw_observed_months(zones, common_steps([names]), tmp_path / "o.png", cube.noun)
    for name in "no":
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5
