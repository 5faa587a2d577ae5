"""Cubes: their steps fill any season, and they come back from records and settings as they were."""

import datetime as dt
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cropray.core.cube import STEPS, STUDY_CUBE, CubeSpec, Season, recorded_cube
from cropray.core.cube_settings import CubeSettings
from cropray.core.errors import ConfigError
from cropray.core.sensors import SENSORS, SENTINEL_1, SENTINEL_2, Band, Sensor, known_band
from cropray.io.job_file import dump_yaml, load_settings

B02 = SENTINEL_2.band("B02")
NDVI = Band("NDVI", "index", 1e-4, -1.0)
first_months = st.dates(dt.date(1990, 1, 1), dt.date(2060, 1, 1)).map(lambda day: f"{day:%Y-%m}")
cubes = st.builds(CubeSpec, st.just((B02, NDVI)), st.sampled_from(STEPS), st.integers(1, 24))


@given(first_months, cubes)
def test_steps_fill_the_season_without_gap_or_overlap(first_month, cube):
    season = Season(first_month, cube)
    steps = season.steps
    assert (steps[0][0], steps[-1][1]) == (season.start, season.end)
    assert all(start < end for start, end in steps)
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(steps))
    assert len(steps) == cube.n_steps == len(season.names) == len(set(season.names))
    assert list(season.names) == sorted(season.names)
    year, month = map(int, first_month.split("-"))
    months = (season.end.year - year) * 12 + season.end.month - month
    assert (season.start, season.end.day, months) == (dt.date(year, month, 1), 1, cube.months)


@pytest.mark.parametrize(
    ("step", "months", "longest", "shortest"),
    [
        ("month", 12, 31, 29),
        ("half-month", 12, 16, 14),
        ("dekad", 12, 11, 9),
        ("16d", 12, 16, 14),
        ("season", 6, 182, 182),
    ],
)
def test_lengths_of_steps_in_a_leap_year(step, months, longest, shortest):
    days = [(end - start).days for start, end in Season("2024-01", CubeSpec((B02,), step, months)).steps]
    assert (max(days), min(days)) == (longest, shortest)
    assert sum(days) == (366 if months == 12 else 182)


def test_february_of_half_months_and_dekads_keeps_its_own_days():
    half = Season("2023-02", CubeSpec((B02,), "half-month", 1))
    assert half.steps == (
        (dt.date(2023, 2, 1), dt.date(2023, 2, 16)),
        (dt.date(2023, 2, 16), dt.date(2023, 3, 1)),
    )
    dekads = Season("2024-02", CubeSpec((B02,), "dekad", 1))
    assert dekads.names == ("2024-02-01", "2024-02-11", "2024-02-21")
    assert (dekads.steps[-1][1] - dekads.steps[-1][0]).days == 9


def test_sixteen_days_over_a_year_end_with_the_season():
    steps = Season("2022-09", CubeSpec((B02,), "16d", 12)).steps
    assert len(steps) == 23
    assert {(end - start).days for start, end in steps[:-1]} == {16}
    assert steps[-1] == (dt.date(2023, 8, 19), dt.date(2023, 9, 1))


def test_columns_stand_band_by_band_and_steps_have_as_many_digits_as_the_last_one():
    assert STUDY_CUBE.columns[:2] == ("B02_01", "B02_02")
    assert (STUDY_CUBE.columns[12], STUDY_CUBE.columns[-1], len(STUDY_CUBE.columns)) == ("B03_01", "B08_12", 48)
    long = CubeSpec((B02, NDVI), "dekad", 36)
    assert (long.columns[0], long.columns[-1], long.shape) == ("B02_001", "NDVI_108", (108, 2))
    assert long.n_features == len(long.columns) == 216


@given(cubes)
def test_a_record_comes_back_and_the_fingerprint_is_of_what_numbers_mean(cube):
    back = CubeSpec.from_record(json.loads(json.dumps(cube.to_record())))
    assert back == cube
    assert back.fingerprint() == cube.fingerprint()
    assert recorded_cube({"cube": cube.to_record()}) == cube
    renamed = CubeSpec((Band("B02", "reflectance", 1e-4, 0.0, "another name"), NDVI), cube.step, cube.months)
    assert renamed.fingerprint() == cube.fingerprint()
    shifted = CubeSpec((Band("B02", "reflectance", 1e-4, -0.1), NDVI), cube.step, cube.months)
    assert shifted.fingerprint() != cube.fingerprint()
    assert cube.in_content() == {"cube": cube.fingerprint()}


def test_what_says_nothing_is_of_the_study_and_adds_nothing_to_keys():
    assert recorded_cube({}) is STUDY_CUBE
    assert STUDY_CUBE.in_content() == {}


@pytest.mark.parametrize(
    ("bands", "step", "months", "said"),
    [
        ((), "month", 12, "unlike ids"),
        ((B02, B02), "month", 12, "unlike ids"),
        ((B02,), "month", 0, "at least 1 month"),
        ((B02,), "dekad", 100, "at most 255 steps, got 300"),
    ],
)
def test_what_is_no_cube_is_refused(bands, step, months, said):
    with pytest.raises(ValueError, match=said):
        CubeSpec(bands, step, months)


def read(tmp_path, text):
    (tmp_path / "cube.yaml").write_text(text)
    return load_settings(CubeSettings, tmp_path / "cube.yaml")


def test_settings_name_known_bands_and_describe_own_ones(tmp_path):
    text = "bands: [VV, B11, {id: LAI, unit: m2/m2, scale: 0.001}]\nstep: half-month\nmonths: 9\n"
    settings = read(tmp_path, text)
    assert settings.spec == CubeSpec(
        (SENTINEL_1.band("VV"), SENTINEL_2.band("B11"), Band("LAI", "m2/m2", 0.001, 0.0)), "half-month", 9
    )
    assert read(tmp_path, dump_yaml(settings)) == settings
    assert read(tmp_path, "{}").spec == STUDY_CUBE


def test_a_band_of_two_sensors_that_mean_different_things_is_not_guessed(tmp_path):
    SENSORS.add(Sensor("mine", (Band("B11", "reflectance", 2e-5, -0.1), SENTINEL_2.band("B12"))))
    try:
        assert read(tmp_path, "bands: [B12, {id: B11, unit: reflectance, scale: 0.0001}]").spec.n_bands == 2
        with pytest.raises(ConfigError, match=r"band 'B11' is of several sensors, .*mine.*describe it"):
            read(tmp_path, "bands: [B11]")
    finally:
        SENSORS.remove("mine")


def test_a_known_band_that_is_written_out_is_the_known_one(tmp_path):
    known = read(tmp_path, "bands: [{id: B11, unit: reflectance, scale: 0.0001}]").spec.bands[0]
    assert known == SENTINEL_2.band("B11")
    other = read(tmp_path, "bands: [{id: B11, unit: reflectance, scale: 0.0002}]").spec.bands[0]
    assert (other.scale, other.resolution_m) == (0.0002, Band("x", "y", 1.0, 0.0).resolution_m)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bands: [B02, B09]", r"band 'B09' is not known; known are sentinel-2: B02, .*B12; sentinel-1: VV, VH"),
        ("bands: [{id: a_b, unit: x, scale: 1}]", "bands.*id"),
        ("bands: [{id: a, unit: x, scale: 0}]", "scale"),
        ("bands: [{id: a, unit: x, scale: 1, ofset: 2}]", "did you mean 'offset'"),
        ("step: week", "step.*'month'"),
        ("bands: []", "unlike ids"),
        ("{step: dekad, months: 100}", "at most 255 steps"),
    ],
)
def test_settings_that_make_no_cube_are_refused(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, text)


def test_every_known_band_can_be_described_and_found():
    for sensor in (SENTINEL_1, SENTINEL_2):
        for band in sensor.bands:
            assert known_band(band.id) == band
    own = Band("B02", "reflectance", 1e-4, -0.1)
    assert (
        CubeSpec((own,), "season", 5).describe() == "B02 (reflectance = number × 0.0001 + -0.1) × 1 season of 5 months"
    )
    assert STUDY_CUBE.describe() == "B02 B03 B04 B08 × 12 months"
    assert STUDY_CUBE.positions(["B08", "B02"]) == (3, 0)
    assert STUDY_CUBE.positions(["B11"]) is None
