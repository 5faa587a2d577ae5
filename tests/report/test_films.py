"""Films: what their frames show, pixel by pixel."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from cropray.core.cube import STUDY_CUBE, Season
from cropray.report import films
from cropray.report.drawing import common_steps, step_names
from cropray.report.films import draw_film, fit, stretch, views_of, zone_year

VIEWS = views_of(STUDY_CUBE)
MONTHS = step_names(Season("2022-11"))
TRUE_COLOUR, RED = VIEWS[0], next(view for view in VIEWS if view.name == "B04")


def draw_zone(shape=(40, 40), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(200, 3000, (12, 4, *shape)).astype(np.uint16), np.ones((12, *shape), np.uint8)


def frames_of(path):
    """[T, height, width, 3]."""
    with Image.open(path) as film:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)])


def image_part(frames, height, width):
    return frames[:, films._HEAD : films._HEAD + height, films._MARGIN : films._MARGIN + width].astype(int)


def test_months_of_a_season_have_names():
    assert MONTHS[:3] == ("Nov 2022", "Dec 2022", "Jan 2023")
    assert common_steps([MONTHS, step_names(Season("2021-11"))])[:3] == ("Nov", "Dec", "Jan")
    assert common_steps([MONTHS, step_names(Season("2022-10"))])[:3] == ("1", "2", "3")


def test_a_large_image_is_averaged_down_and_a_small_one_enlarged():
    image = np.arange(24 * 36, dtype=np.float32).reshape(24, 36)
    blocks = image.reshape(8, 3, 12, 3).mean((1, 3))
    np.testing.assert_allclose(fit(image, 12), blocks, rtol=1e-6)
    np.testing.assert_array_equal(fit(image, 80), image.repeat(2, 0).repeat(2, 1))


def test_no_data_does_not_darken_its_neighbours():
    composite, n_obs = draw_zone((480, 480))
    composite[:] = 1000
    composite[:, :, ::2, ::4] = 0  # an eighth of every block
    composite[:, :, :240, :240] = 0
    n_obs[3, 240:, :] = 0
    year = zone_year("z", MONTHS, composite, n_obs, 240)
    assert np.isnan(year.image[:, :, :120, :120]).all()
    np.testing.assert_allclose(year.image[:, :, 121:, 121:], 1000, rtol=1e-5)
    assert year.filled[3, 120:].all()
    assert not year.filled[3, :120].any()
    assert year.share_filled[3] == 0.5


@pytest.mark.parametrize("shape", [(40, 40), (30, 50), (600, 400)])
@pytest.mark.parametrize("view", [TRUE_COLOUR, RED], ids=lambda view: view.name)
def test_a_film_has_twelve_frames_of_one_size(tmp_path, shape, view):
    composite, n_obs = draw_zone(shape)
    draw_film(zone_year("z", MONTHS, composite, n_obs, 240), view, tmp_path / "z.gif")
    frames = frames_of(tmp_path / "z.gif")
    assert len(frames) == 12
    with Image.open(tmp_path / "z.gif") as film:
        assert film.info["loop"] == 0
        assert film.info["duration"] == films.FRAME_MS


def test_the_same_value_has_the_same_colour_in_every_month(tmp_path):
    composite, n_obs = draw_zone()
    composite[:, :, :20] = 1500
    composite[6] = np.where(composite[6] == 1500, 1500, 9000)  # a bright month must not change the others
    draw_film(zone_year("z", MONTHS, composite, n_obs, 240), RED, tmp_path / "z.gif")
    image = image_part(frames_of(tmp_path / "z.gif"), 240, 240)
    constant = image[:, :120].reshape(-1, 3)
    assert (constant == constant[0]).all()


def test_the_stretch_comes_from_what_was_observed():
    composite, n_obs = draw_zone()
    composite[2] = 9000
    n_obs[2] = 0
    composite[:, :, 0, :5] = 0
    low, high = stretch(zone_year("z", MONTHS, composite, n_obs, 40), "B04")
    observed = composite[np.arange(12) != 2, 2]
    assert (low, high) == pytest.approx(tuple(np.percentile(observed[observed > 0], (2, 98))))


def test_filled_pixels_are_hatched_and_missing_ones_are_a_checkerboard(tmp_path):
    composite, n_obs = draw_zone()
    composite[:] = np.where(np.arange(40) < 20, 500, 2500).astype(np.uint16)
    n_obs[4, :, :20] = 0
    composite[:, :, :10, 30:] = 0
    year = zone_year("z", MONTHS, composite, n_obs, 240)
    draw_film(year, RED, tmp_path / "z.gif")
    image = image_part(frames_of(tmp_path / "z.gif"), 240, 240)[..., 0]
    rows, cols = np.indices((240, 240))
    lines = (rows + cols) % films._HATCH_PX == 0
    assert image[4, :, :120][lines[:, :120]].min() > image[4, :, :120][~lines[:, :120]].max() + 50
    assert np.ptp(image[3, :, :120]) == 0  # observed: no lines
    assert set(np.unique(image[:, :60, 180:])) == set(films._CHECKER)


def test_true_colour_keeps_grey_grey(tmp_path):
    composite, n_obs = draw_zone()
    composite[:] = np.linspace(300, 2500, 40).astype(np.uint16)  # all bands alike
    composite[:, 0, :3] = 6000  # but blue reaches higher somewhere
    draw_film(zone_year("z", MONTHS, composite, n_obs, 240), TRUE_COLOUR, tmp_path / "z.gif")
    image = image_part(frames_of(tmp_path / "z.gif"), 240, 240)[:, 24:]
    assert np.ptp(image, axis=-1).max() <= 2
    assert np.ptp(image[0, 0, :, 0]) > 50


def test_each_frame_marks_its_month(tmp_path):
    composite, n_obs = draw_zone()
    draw_film(zone_year("z", MONTHS, composite, n_obs, 240), RED, tmp_path / "z.gif")
    frames = frames_of(tmp_path / "z.gif")
    bar = frames[:, films._HEAD + 240 + 5, films._MARGIN : films._MARGIN + 240, 0]
    assert [int(row.reshape(12, 20).mean(1).argmin()) for row in bar] == list(range(12))
    heads = {frame[: films._HEAD, :150].tobytes() for frame in frames}
    assert len(heads) == 12  # each names another month


def test_a_zone_never_seen_is_a_film_too(tmp_path):
    composite, n_obs = draw_zone()
    year = zone_year("z", MONTHS, composite * np.uint16(0), n_obs * np.uint8(0), 240)
    for view in VIEWS:
        draw_film(year, view, tmp_path / "z.gif")
    assert set(np.unique(image_part(frames_of(tmp_path / "z.gif"), 240, 240))) == set(films._CHECKER)


def test_the_same_zone_gives_the_same_bytes(tmp_path):
    composite, n_obs = draw_zone()
    for name in ("a.gif", "b.gif"):
        draw_film(zone_year("z", MONTHS, composite, n_obs, 240), TRUE_COLOUR, tmp_path / name)
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
