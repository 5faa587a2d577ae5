"""Overview pictures: what they hold and leave out."""

import numpy as np
import pytest
from PIL import Image

from cropray.core.cube import STUDY_CUBE, Season
from cropray.core.legend import bundled_legend
from cropray.report.drawing import step_names
from cropray.report.observation_pictures import (
    MAX_ROWS,
    NEVER_SEEN,
    ObservedZone,
    add_observations,
    draw_n_obs,
    draw_observed_months,
    observed_rows,
)
from cropray.report.profile_pictures import MAX_CLASSES, ProfileData, draw_band_profiles, draw_ndvi_profiles
from cropray.report.summary import N_BINS, Observations, Profiles, series_of
from tests.report.builders import REGIONS
from tests.study import N_MONTHS

SERIES = series_of(STUDY_CUBE)
MONTHS = tuple(name[:3] for name in step_names(Season("2023-01")))


def draw_profile_data(n_classes, seed=0):
    """Classes of the legend with a hump of NDVI and reflectance through the year; one class has no pixel."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((n_classes, len(SERIES), N_MONTHS, N_BINS), np.int64)
    centre = 500 + 250 * np.sin((np.arange(N_MONTHS) - rng.uniform(0, 8, (n_classes, 1))) / 2)
    for k, month in np.ndindex(n_classes - 1, N_MONTHS):
        for s in range(len(SERIES)):
            bins = rng.normal(centre[k, month] / (1 if s == 0 else 6 - s), 30, 50).clip(0, N_BINS - 1)
            np.add.at(counts[k, s, month], bins.astype(int), 1)
    counts[0, 2, 5] = 0  # a month without data in one band
    totals = (counts * (np.arange(N_BINS) / N_BINS)).sum(-1)
    n_pixels = np.where(np.arange(n_classes) < n_classes - 1, 10_000 // (1 + np.arange(n_classes)), 0)
    return ProfileData(Profiles(counts, totals), bundled_legend().classes[:n_classes], n_pixels, MONTHS)


def observations(mean):
    return Observations(100, np.full(12, round(100 * mean)), np.full(12, min(100, round(100 * mean))))


@pytest.mark.parametrize("draw", [draw_ndvi_profiles, draw_band_profiles])
@pytest.mark.parametrize("n_classes", [2, 6])
def test_profiles_are_drawn(tmp_path, draw, n_classes):
    draw(draw_profile_data(n_classes), tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5


def test_the_most_frequent_classes_get_a_panel_and_the_others_are_counted():
    data = draw_profile_data(MAX_CLASSES + 4)
    assert data.shown == list(range(MAX_CLASSES))
    assert data.left_out == " (3 rarer classes not shown)"
    few = draw_profile_data(5)
    assert few.shown == [0, 1, 2, 3]  # the fifth has no pixel in the training zones
    assert few.left_out == ""


def test_zones_are_listed_singly_and_many_of_them_by_region():
    zones = [ObservedZone(f"{r}-{i}", r, observations(i)) for r in REGIONS for i in range(3)]
    assert list(observed_rows(zones)) == [zone.zone_id for zone in zones]
    many = [ObservedZone(f"z-{i}", REGIONS[i % 2], observations(i % 2)) for i in range(MAX_ROWS + 1)]
    rows = observed_rows(many)
    assert list(rows) == list(REGIONS[:2])
    assert rows[REGIONS[1]].n_clear[0] / rows[REGIONS[1]].n_pixels == 1
    assert rows[REGIONS[0]].share_filled == 1


def test_observations_add_up():
    total = add_observations([observations(1), observations(3)])
    assert (total.n_pixels, total.n_clear[0], total.n_seen[0]) == (200, 400, 200)


def test_observed_months_are_drawn_even_if_there_are_none(tmp_path):
    draw_observed_months([ObservedZone("z-1", "north", observations(0))], MONTHS, tmp_path / "o.png")
    with Image.open(tmp_path / "o.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5


def rgb(colour):
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


@pytest.mark.parametrize(("shape", "top"), [((40, 40), 3), ((700, 500), 30), ((30, 60), 0)])
def test_never_seen_stands_out_by_its_area(tmp_path, shape, top):
    n_obs = np.full((12, *shape), top, np.uint8)
    n_obs[:6] = 0  # half of the year
    draw_n_obs("z-1", n_obs, MONTHS, tmp_path / "n.png")
    with Image.open(tmp_path / "n.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    orange, dark = ((pixels == colour).all(1).sum() for colour in (rgb(NEVER_SEEN), (8, 29, 88)))  # YlGnBu's last
    assert orange > 0.2 * len(pixels)
    if top:
        assert dark == pytest.approx(orange, rel=0.05)  # six months each, and one field of the scale
