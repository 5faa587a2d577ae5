"""Scene files with and without ESA's offset give the same numbers, or are refused."""

import datetime as dt

import numpy as np
import pytest

from cropray.core.errors import InputError
from cropray.imagery.sources.files.scenes import FileScenes, FilesSettings
from tests.imagery.rasters import GRID, draw_pixels, write_scene

YEARS = dt.date(2015, 1, 1), dt.date(2025, 1, 1)
NO_TAGS = (1.0, 0.0)
OFFSET = 1000


def land():
    """Dark vegetation, clear everywhere, a pixel of it without data."""
    pixels = draw_pixels(scl=4)
    pixels[:4] = pixels[:4] // 20 + 50
    pixels[:4, 0, 0] = 0
    return pixels


def write(folder, name, pixels, *, tags=NO_TAGS, has_offset=False):
    stored = pixels.copy()
    stored[:4] = np.where((pixels[:4] > 0) & has_offset, pixels[:4] + OFFSET, pixels[:4])
    return write_scene(folder, "2020-01-01", stored, name=name, tags=tags)


def read(folder, **settings):
    source = FileScenes(FilesSettings(folder=folder, **settings))
    (scene,) = source.survey(GRID, *YEARS).scenes
    return source.read(scene, GRID)[0]


@pytest.mark.parametrize(
    ("name", "tags", "has_offset"),
    [
        ("S2A_MSIL2A_20230714T105031_N0509_R051_T31UES_20230714T164000.tif", NO_TAGS, True),
        ("S2A_MSIL2A_20230714T105031_N0511_R051_T31UES.SAFE/stack_20230714T105031.tif", NO_TAGS, True),
        ("S2A_MSIL2A_20180714T105031_N0500_R051_T31UES_20230801T101010.tif", NO_TAGS, True),  # Collection 1
        ("T31UES_20220126T105031-N04.00.tif", NO_TAGS, True),
        ("S2A_MSIL2A_20211214T105031_N0301_R051_T31UES_20220301T164000.tif", NO_TAGS, False),
        ("here_20230714T105031.tif", (1e-4, -0.1), True),
        ("here_20230714T105031.tif", (1.0, -1000.0), True),
        ("here_20230714T105031.tif", (1e-4, 0.0), False),
        ("here_20180714T105031.tif", (1e-4, -0.1), True),
        ("S2A_20180421T100029_N9999_20230101T000000.tif", (1e-4, 0.0), False),
        ("S2A_20230421T100029_N0510_20230421T000000.tif", (1e-4, -0.1), True),
        ("here_20220124T235959.tif", NO_TAGS, False),
    ],
)
def test_tags_or_the_name_say_that_the_offset_is_there(tmp_path, name, tags, has_offset):
    pixels = land()
    write(tmp_path, name, pixels, tags=tags, has_offset=has_offset)
    np.testing.assert_array_equal(read(tmp_path), pixels[:4])


@pytest.mark.parametrize(
    "name",
    [
        "here_20220125T105031.tif",
        "S2A_MSIL2A_20180421T100029_N9999_R122_T33TWM_20230101T000000.tif",
        "S2A_20230714T105031_N0000.tif",
        "grid_N4500_E0500_20230714T105031.tif",  # 45° north
        "grid_N1230_W0145_20230714T105031.tif",  # Burkina Faso
    ],
)
def test_a_scene_that_may_hold_it_and_does_not_say_is_refused(tmp_path, name):
    path = write(tmp_path, name, land())
    with pytest.raises(InputError, match=r"set 'imagery.offset' to 0 .* or -1000") as error:
        read(tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("offset", [0, -1000, -500])
def test_the_setting_decides_whatever_names_and_tags_say(tmp_path, offset):
    pixels = land()
    write(tmp_path, "S2A_20230714T105031_N0509.tif", pixels, tags=(1e-4, 0.0), has_offset=True)
    stored = np.where(pixels[:4] > 0, pixels[:4] + OFFSET, 0).astype(int)
    np.testing.assert_array_equal(read(tmp_path, offset=offset), np.where(stored > 0, stored + offset, 0))


def test_months_do_not_jump_where_the_offset_was_introduced(tmp_path):
    pixels = land()
    write(tmp_path, "S2B_MSIL2A_20220110T105031_N0301_R051_T31UES_20220110T132000.tif", pixels)
    write(tmp_path, "S2B_MSIL2A_20220209T105031_N0400_R051_T31UES_20220209T132000.tif", pixels, has_offset=True)
    source = FileScenes(FilesSettings(folder=tmp_path))
    one, two = source.survey(GRID, *YEARS).scenes
    np.testing.assert_array_equal(source.read(one, GRID)[0], source.read(two, GRID)[0])
    prints = {source.fingerprint([scene]) for scene in (one, two)}
    assert len(prints | {FileScenes(FilesSettings(folder=tmp_path, offset=-1)).fingerprint([one])}) == 2


@pytest.mark.parametrize(
    ("name", "tags", "said"),
    [
        (
            "S2A_20230714T105031_N0301.tif",
            (1e-4, -0.1),
            "two offsets: baseline N0301 in its name means 0 .* mean -1000",
        ),
        ("S2A_20230714T105031_N0509.tif", (1e-4, 0.0), "two offsets: baseline N0509 in its name means -1000 .* mean 0"),
        ("here_20200714T105031.tif", (1e-3, 0.0), "scale 0.001 and offset 0; needed is reflectance × 10000"),
        ("here_20200714T105031.tif", (2.75e-5, -0.2), "scale 2.75e-05 and offset -0.2"),
        ("here_20200714T105031.tif", (1.0, -0.1), "scale 1 and offset -0.1"),
        ("here_20200714T105031.tif", (1e-4, 0.1), "scale 0.0001 and offset 0.1"),
        ("here_20200714T105031.tif", [(1e-4, -0.1)] * 3 + [(1e-4, 0.0), NO_TAGS], "different scale and offset tags"),
        ("here_20200714T105031.tif", [(1e-4, 0.0)] * 3 + [NO_TAGS] * 2, "different scale and offset tags"),
    ],
)
def test_contradictions_and_other_units_are_refused(tmp_path, name, tags, said):
    write(tmp_path, name, land(), tags=tags)
    with pytest.raises(InputError, match=said) as error:
        read(tmp_path)
    assert name in str(error.value)


def test_that_an_old_scene_is_taken_to_be_without_the_offset_is_told(tmp_path):
    write(tmp_path, "mine_20210714T105031.tif", land())
    write(tmp_path, "S2A_20210717T105031_N0301.tif", land())
    write(tmp_path, "tagged_20210719T105031.tif", land(), tags=(1e-4, 0.0))
    remarks = FileScenes(FilesSettings(folder=tmp_path)).survey(GRID, *YEARS).remarks
    (remark,) = remarks
    assert "say nothing of ESA's offset" in remark
    assert remarks[remark] == ("mine_20210714T105031.tif",)
    assert not FileScenes(FilesSettings(folder=tmp_path, offset=0)).survey(GRID, *YEARS).remarks


def test_tags_of_scene_classes_say_nothing(tmp_path):
    pixels = land()
    write(tmp_path, "here_20230714T105031.tif", pixels, tags=[(1e-4, -0.1)] * 4 + [(1.0, 7.0)], has_offset=True)
    np.testing.assert_array_equal(read(tmp_path), pixels[:4])


def test_land_darker_than_the_offset_contradicts_name_or_tags(tmp_path):
    pixels = land()
    write(tmp_path, "S2A_20230714T105031_N0509.tif", pixels)
    with pytest.raises(InputError, match=r"N0509.tif.*so dark that it cannot be; set 'imagery.offset' to 0"):
        read(tmp_path)
    np.testing.assert_array_equal(read(tmp_path, offset=0), pixels[:4])
