import datetime as dt
import os
import pickle

import numpy as np
import pytest
import rasterio
import rasterio.warp

from cropray.core.errors import InputError
from cropray.core.grid import Grid, Window
from cropray.imagery.sources.files.scenes import FileScenes, FilesSettings
from tests.imagery.rasters import GRID, draw_pixels, write_scene

YEAR = dt.date(2023, 1, 1), dt.date(2024, 1, 1)


def source(folder, **settings):
    return FileScenes(FilesSettings(folder=folder, **settings))


def find(folder, grid=GRID, **settings):
    return source(folder, **settings).survey(grid, *YEAR).scenes


def test_finds_scenes_in_time_order_from_start_to_before_end(tmp_path):
    for date in ("2023-02-01", "2023-01-31T23:59:59", "2023-01-05", "2022-12-31T23:59:59"):
        write_scene(tmp_path / date[:4], date)
    found = source(tmp_path).survey(GRID, dt.date(2023, 1, 1), dt.date(2023, 2, 1)).scenes
    assert [scene.acquired for scene in found] == [
        dt.datetime(2023, 1, 5, tzinfo=dt.UTC),
        dt.datetime(2023, 1, 31, 23, 59, 59, tzinfo=dt.UTC),
    ]
    assert found[0].scene_id == "S2_here_20230105T000000"


def test_reads_bands_by_description_in_any_order(tmp_path):
    pixels = draw_pixels(scl=4)
    write_scene(tmp_path, "2023-05-01", pixels[[4, 3, 0, 1, 2]], bands=("SCL", "B08", "B02", "b3", "B4"))
    (scene,) = find(tmp_path)
    bands, scl = source(tmp_path).read(scene, GRID)
    np.testing.assert_array_equal(bands, pixels[:4])
    np.testing.assert_array_equal(scl, pixels[4])
    assert (bands.dtype, scl.dtype) == (np.uint16, np.uint8)


@pytest.mark.parametrize(
    "window", [Window(-3, -2, 8, 9), Window(9, 12, 8, 9), Window(2, 3, 4, 5), Window(-2, -2, 40, 40)]
)
def test_window_beyond_the_scene_is_no_data(tmp_path, window):
    pixels = draw_pixels(scl=5)
    write_scene(tmp_path, "2023-05-01", pixels)
    grid = GRID.crop(window)
    (scene,) = find(tmp_path, grid)
    bands, scl = source(tmp_path).read(scene, grid)
    padded = np.pad(pixels, [(0, 0), (50, 50), (50, 50)])
    rows, cols = Window(window.row + 50, window.col + 50, window.height, window.width).slices
    np.testing.assert_array_equal(np.concatenate([bands, scl[None]]), padded[:, rows, cols])


def test_a_band_without_data_takes_the_scene_class_away(tmp_path):
    pixels = draw_pixels(scl=4)
    pixels[2, 1, 1] = 0
    write_scene(tmp_path, "2023-05-01", pixels)
    (scene,) = find(tmp_path)
    _, scl = source(tmp_path).read(scene, GRID)
    assert scl[1, 1] == 0
    assert (scl == 4).sum() == scl.size - 1


def test_another_no_data_value_becomes_0(tmp_path):
    pixels = draw_pixels(scl=4)
    pixels[0, 2, 2] = 65_535
    write_scene(tmp_path, "2023-05-01", pixels, nodata=65_535)
    (scene,) = find(tmp_path)
    bands, scl = source(tmp_path).read(scene, GRID)
    assert (bands[0, 2, 2], scl[2, 2]) == (0, 0)


def test_saturated_numbers_are_none(tmp_path):
    pixels = draw_pixels(scl=4)
    pixels[3, 2, 2] = 65_535
    write_scene(tmp_path, "2023-05-01", pixels)
    (scene,) = find(tmp_path)
    bands, scl = source(tmp_path).read(scene, GRID)
    assert (bands[3, 2, 2], scl[2, 2]) == (0, 0)


def test_leaves_out_scenes_elsewhere_in_any_utm_zone(tmp_path):
    write_scene(tmp_path, "2023-05-01")
    write_scene(tmp_path, "2023-05-02", grid=Grid(32631, GRID.x_min + 170, GRID.y_max, 12, 17))  # touches
    write_scene(tmp_path, "2023-05-03", grid=Grid(32630, GRID.x_min, GRID.y_max, 12, 17))  # 6° to the west
    assert [scene.acquired.day for scene in find(tmp_path)] == [1]


def test_pickles_and_reads_elsewhere(tmp_path):
    write_scene(tmp_path, "2023-05-01")
    there = pickle.loads(pickle.dumps(source(tmp_path)))
    (scene,) = pickle.loads(pickle.dumps(there.survey(GRID, *YEAR).scenes))
    np.testing.assert_array_equal(there.read(scene, GRID)[0], source(tmp_path).read(scene, GRID)[0])


def test_a_replaced_file_is_looked_at_again(tmp_path):
    path = write_scene(tmp_path, "2023-05-01")
    assert find(tmp_path)
    write_scene(tmp_path, "2023-05-01", grid=Grid(32631, GRID.x_min + 90_000, GRID.y_max, 12, 17))
    os.utime(path, (0, 0))
    assert not find(tmp_path)


def test_finds_every_spelling_of_tif_and_follows_links(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    write_scene(elsewhere / "archive", "2023-05-01", name="a_20230501T000000.TIF")
    write_scene(elsewhere, "2023-05-02", name="b_20230502T000000.tiff")
    folder = tmp_path / "scenes"
    write_scene(folder / "2023", "2023-05-03", name="c_20230503T000000.Tif")
    (folder / "linked").symlink_to(elsewhere / "archive")
    (folder / "2023" / "b_20230502T000000.tiff").symlink_to(elsewhere / "b_20230502T000000.tiff")
    (folder / "2023" / "again").symlink_to(folder)  # a circle
    assert [scene.acquired.day for scene in find(folder)] == [1, 2, 3]
    assert [scene.acquired.day for scene in find(folder, pattern="*/c_*.tif")] == [3]


def test_refuses_a_link_that_leads_nowhere(tmp_path):
    write_scene(tmp_path, "2023-05-01")
    (tmp_path / "b_20230502T000000.tif").symlink_to(tmp_path / "gone.tif")
    refuse(tmp_path, "b_20230502T000000.tif", "cannot be read", "restore it")


def test_refuses_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    write_scene(tmp_path, "2023-05-01")
    closed = PermissionError(13, "Permission denied", str(tmp_path / "closed"))
    monkeypatch.setattr(os, "walk", lambda _, onerror, **__: iter(onerror(closed) or ()))
    refuse(tmp_path, "closed", "cannot be listed", "Permission denied")


def refuse(folder, *said):
    with pytest.raises(InputError) as error:
        find(folder)
    for text in said:
        assert text in str(error.value)


def test_refuses_a_missing_or_empty_folder(tmp_path):
    refuse(tmp_path / "nowhere", "nowhere", "does not exist")
    refuse(tmp_path, "no file that matches", "**/*.tif")


@pytest.mark.parametrize("name", ["labels_CT.tif", "S2_here_20231345T000000.tif"])
def test_refuses_a_file_without_date(tmp_path, name):
    write_scene(tmp_path, "2023-05-01", name=name)
    refuse(tmp_path, name, "no date in its name", "pattern")
    write_scene(tmp_path, "2023-05-01", name="scenes/S2_20230501T000000.tif")
    assert len(find(tmp_path, pattern="scenes/*.tif")) == 1


def placed_in(epsg, step):
    """Profile of a scene over the middle of GRID in another coordinate system."""
    (x,), (y,) = rasterio.warp.transform("EPSG:32631", f"EPSG:{epsg}", *np.transpose([GRID.centre(6, 8)]))
    return {"crs": f"EPSG:{epsg}", "transform": rasterio.Affine(step, 0, x - step, 0, -step, y + step)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"crs": None}, ("no coordinate system", "gdal_edit")),
        (placed_in(4326, 1e-4), ("EPSG:4326", "warp")),
        (placed_in(32632, 10), ("EPSG:32632", "EPSG:32631", "warp")),
        ({"transform": rasterio.Affine(10, 0, 600_005, 0, -10, 5_400_000)}, ("do not line up", "0.5 columns")),
        ({"transform": rasterio.Affine(20, 0, 600_000, 0, -20, 5_400_000)}, ("20 m", "10 m")),
        ({"transform": rasterio.Affine(10, 1, 600_000, 1, -10, 5_400_000)}, ("north up",)),
        ({"bands": ("B2", "B3", "B4", "B8A", "SCL")}, ("['B08']", "B8A")),
        ({"bands": (None,) * 5}, ("'B02'", "'SCL'")),
        ({"pixels": draw_pixels().astype(np.float32)}, ("float32", "uint16")),
        ({"pixels": draw_pixels().astype(np.int16)}, ("int16", "uint16", "gdal_translate")),
        ({"pixels": (draw_pixels() % 256).astype(np.uint8)}, ("uint8", "the bands must be uint16")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refuses_a_scene_that_does_not_fit(tmp_path, change, said):
    path = write_scene(tmp_path, "2023-05-01", **change)
    refuse(tmp_path, path.name, *said)


@pytest.mark.parametrize("pixel", [10.000000000001, 9.9999999999, 10.0000003])
def test_pixels_that_are_a_little_off_by_rounding_are_accepted(tmp_path, pixel):
    pixels = draw_pixels(scl=4)
    write_scene(tmp_path, "2023-05-01", pixels, transform=rasterio.Affine(pixel, 0, GRID.x_min, 0, -10, GRID.y_max))
    grid = GRID.crop(Window(3, 5, 9, 12))
    (scene,) = find(tmp_path, grid)
    np.testing.assert_array_equal(source(tmp_path).read(scene, grid)[0], pixels[:4, 3:, 5:])


def test_refuses_pixels_hidden_by_a_mask(tmp_path):
    path = write_scene(tmp_path, "2023-05-01", nodata=None)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.arange(dataset.width)[None] > np.zeros((dataset.height, 1)))
    refuse(tmp_path, path.name, "mask band", "gdalwarp -dstnodata 0")


def test_numbers_of_a_refusal_are_written_in_full(tmp_path):
    write_scene(tmp_path, "2023-05-01", transform=rasterio.Affine(10.001, 0, 600_000, 0, -10.001, 5_400_000))
    refuse(tmp_path, "EPSG:32631 at 10.001 m and EPSG:32631 at 10 m", "corner 600000, 5400000")


@pytest.mark.parametrize("share_kept", [0.0, 0.01, 0.6, 0.99])
@pytest.mark.parametrize("driver", ["GTiff", "COG"])  # the directory of a COG stands at its beginning and survives
def test_refuses_a_corrupt_scene_before_pixels_are_read(tmp_path, driver, share_kept):
    grid = Grid(32631, GRID.x_min, GRID.y_max, 200, 200)
    path = write_scene(tmp_path, "2023-05-01", draw_pixels((200, 200)), grid, driver=driver)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share_kept)])
    refuse(tmp_path, path.name, "fetch it again")


def test_refuses_pixels_that_cannot_be_decoded(tmp_path):
    smooth = np.broadcast_to(np.arange(1, 201, dtype=np.uint16), (5, 200, 200))  # well compressed: each byte matters
    path = write_scene(tmp_path, "2023-05-01", smooth, Grid(32631, GRID.x_min, GRID.y_max, 200, 200))
    (scene,) = find(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read"):
        source(tmp_path).read(scene, Grid(32631, GRID.x_min, GRID.y_max, 200, 200))


@pytest.mark.parametrize(
    "bands", [("B02", "b02", "B03", "B04", "B08", "SCL"), ("B8", "B02", "B03", "B04", "SCL", "B08")]
)
def test_refuses_a_band_that_stands_twice(tmp_path, bands):
    pixels = np.concatenate([draw_pixels(), draw_pixels(seed=9)[:1]])
    path = write_scene(tmp_path, "2023-05-01", pixels, bands=bands)
    with pytest.raises(InputError, match=rf"{path.name}' has \['B0[28]'\] more than once: its bands are described as"):
        FileScenes(FilesSettings(folder=tmp_path)).survey(GRID, *YEAR)


def test_the_old_names_of_esa_begin_with_the_time_of_processing(tmp_path):
    name = "S2A_USER_PRD_MSIL2A_PDMC_20160504T211318_R051_V20160501T105031_20160501T105031.tif"
    write_scene(tmp_path, "2016-05-01", name=name)
    (scene,) = FileScenes(FilesSettings(folder=tmp_path)).survey(GRID, dt.date(2016, 5, 1), dt.date(2016, 5, 2)).scenes
    assert scene.acquired == dt.datetime(2016, 5, 1, 10, 50, 31, tzinfo=dt.UTC)


def test_packed_and_unfinished_files_are_named_among_those_left_out(tmp_path):
    write_scene(tmp_path, "2023-05-01")
    others = {"S2_20230506T105031.tif.part", "S2_20230511T105031.tar.gz", "S2_20230516T105031.h5"}
    for name in (*others, "S2_20230501T105031.json"):
        (tmp_path / name).write_bytes(b"x")
    (names,) = (
        FileScenes(FilesSettings(folder=tmp_path))
        .never_used(FileScenes(FilesSettings(folder=tmp_path)).survey(GRID, *YEAR).scenes)
        .values()
    )
    assert set(names) == others


def test_says_that_a_file_went_away(tmp_path):
    path = write_scene(tmp_path, "2023-05-01")
    (scene,) = find(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        source(tmp_path).read(scene, GRID)
