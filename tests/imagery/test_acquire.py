import datetime as dt
import json

import numpy as np
import pytest
import rasterio

from cropray.core.cube import STUDY_CUBE, Season
from cropray.core.errors import InputError
from cropray.core.grid import Grid, Window
from cropray.imagery.acquire import (
    acquire_zone,
    acquisitions_by_month,
    describe_empty_months,
    describe_left_out,
    gather_left_out,
    remove_unfinished,
    survey_zones,
)
from cropray.imagery.composites import read_composite, read_n_obs
from cropray.imagery.scenes import Found, Scene
from cropray.imagery.sources.files.scenes import FileScenes, FilesSettings
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from tests import oracles
from tests.imagery.rasters import GRID, draw_pixels, write_scene

ZONE = Zone("here", "north", "train", GRID)


def acquire(folder, workspace, zone=ZONE, first_month="2023-01", **settings):
    return acquire_zone(FileScenes(FilesSettings(folder=folder, **settings)), zone, first_month, Workspace(workspace))


def expect(stacks):
    """Composite and counts of 12 lists of [5, H, W] scenes, by the oracles."""
    medians, counts = [], []
    for scenes in stacks:
        pixels = np.array(scenes, np.uint16).reshape(len(scenes), 5, *scenes[0].shape[1:]) if scenes else None
        shape = next(scene.shape[1:] for month in stacks for scene in month)
        pixels = np.zeros((0, 5, *shape), np.uint16) if pixels is None else pixels
        scl = np.where((pixels[:, :4] == 0).any(axis=1), 0, pixels[:, 4]).astype(np.uint8)
        median, n_obs = oracles.monthly_median(pixels[:, :4], scl)
        medians.append(median)
        counts.append(n_obs)
    n_obs = np.array(counts)
    return oracles.fill_gaps(np.array(medians), n_obs > 0), n_obs


def test_composite_equals_the_slow_one(tmp_path):
    stacks = [[] for _ in range(12)]
    n_scenes = (0, 3, 1, 4, 0, 0, 2, 5, 1, 2, 3, 1)
    for month, n in enumerate(n_scenes):
        for day in range(n):
            pixels = draw_pixels(seed=31 * month + day)
            pixels[:4, 0, :5] = 0
            stacks[month].append(pixels)
            write_scene(tmp_path / "scenes", f"2023-{month + 1:02d}-{day * 5 + 1:02d}", pixels)
    record = acquire(tmp_path / "scenes", tmp_path)
    composite, n_obs = expect(stacks)
    np.testing.assert_array_equal(read_composite(tmp_path / "composites/here.tif"), composite)
    np.testing.assert_array_equal(read_n_obs(tmp_path / "composites/here.nobs.tif"), n_obs)
    assert record.n_scenes == n_scenes
    assert record.n_clear == tuple((n_obs > 0).sum(axis=(1, 2)))
    assert record.n_never_clear == (n_obs == 0).all(axis=0).sum()
    assert record.n_filled == ((composite > 0).all(axis=1) & (n_obs == 0)).sum()
    assert record.share_clear == pytest.approx((n_obs > 0).mean())
    assert json.loads(json.dumps(record.to_record()))["n_filled"] == record.n_filled


def test_parts_of_one_acquisition_count_once(tmp_path):
    west, east = GRID.crop(Window(0, 0, 12, 10)), GRID.crop(Window(0, 5, 12, 12))
    pixels = draw_pixels(scl=4)
    write_scene(tmp_path, "2023-05-01", pixels[:, :, :10], west, name="a_20230501T105031.tif")
    write_scene(tmp_path, "2023-05-01", pixels[:, :, 5:] + 1, east, name="b_20230501T105031.tif")
    record = acquire(tmp_path, tmp_path / "work")
    n_obs = read_n_obs(tmp_path / "work/composites/here.nobs.tif")
    assert record.n_scenes[4] == 1
    assert (n_obs[4] == 1).all()
    composite = read_composite(tmp_path / "work/composites/here.tif")
    np.testing.assert_array_equal(composite[4, :, :, :10], pixels[:4, :, :10])
    np.testing.assert_array_equal(composite[4, :, :, 10:], pixels[:4, :, 10:] + 1)


def test_tiles_named_by_their_own_time_count_once(tmp_path):
    """14 s lie between the two; the next satellite comes 50 minutes later, the same one 100 minutes."""
    pixels = draw_pixels(scl=4)
    names = ("31UES_20230501T105331", "31UFS_20230501T105345", "S2A_31UES_20230501T105345", "31UES_20230501T123400")
    for name in names:
        write_scene(tmp_path, "2023-05-01", pixels, name=f"{name}.tif")
    assert acquire(tmp_path, tmp_path / "work").n_scenes[4] == 3
    assert (read_n_obs(tmp_path / "work/composites/here.nobs.tif")[4] == 3).all()


def test_the_last_processing_counts_and_the_other_is_named(tmp_path):
    old, new = draw_pixels(seed=1, scl=4), draw_pixels(seed=2, scl=4)
    old[:4], new[:4] = old[:4] // 20 + 50, new[:4] // 20 + 1050
    new[:4, 0, 0] = 0
    write_scene(tmp_path, "2021-05-01", old, name="S2A_MSIL2A_20210501T105031_N0300_R051_T31UES_20210501T140000.tif")
    name = "S2A_MSIL2A_20210501T105031_N0500_R051_T31UES_20230301T140000.tif"
    place = rasterio.Affine(10.0000000001, 0, GRID.x_min, 0, -10, GRID.y_max)  # off by rounding
    write_scene(tmp_path, "2021-05-01", new, name=name, tags=(1.0, 0.0), transform=place)
    record = acquire(tmp_path, tmp_path / "work", first_month="2021-01")
    composite = read_composite(tmp_path / "work/composites/here.tif")[4]
    np.testing.assert_array_equal(composite[:, 0, 0], old[:4, 0, 0])
    np.testing.assert_array_equal(composite[:, 1:], new[:4, 1:] - 1000)
    written = json.loads((tmp_path / "work/composites/here.json").read_text())
    assert written["n_scenes"] == list(record.n_scenes)
    assert written["months_without_scene"] == [f"2021-{month:02d}" for month in (1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12)]
    assert len(written["scenes"]) == 2
    ((remark, names),) = written["left_out"].items()
    assert "same tile and instant as a newer one" in remark
    assert names == ["S2A_MSIL2A_20210501T105031_N0300_R051_T31UES_20210501T140000.tif"]


def test_says_what_no_zone_uses(tmp_path):
    write_scene(tmp_path / "scenes", "2023-05-01")
    write_scene(tmp_path / "scenes", "2032-05-01")
    write_scene(tmp_path / "scenes", "2023-05-02", grid=Grid(32631, 300_000.0, 4_800_000.0, 5, 5))
    (tmp_path / "scenes/b").mkdir()
    (tmp_path / "scenes/b/S2_20230601T105031.jp2").touch()
    (tmp_path / "scenes/b/notes.txt").touch()
    source = FileScenes(FilesSettings(folder=tmp_path / "scenes"))
    found = survey_zones(source, [ZONE], "2023-01")
    assert describe_left_out(gather_left_out(found.values(), source.never_used(found["here"].scenes))) == [
        "files that no zone needs in its season: 2 (S2_here_20230502T000000.tif, S2_here_20320501T000000.tif)",
        "files left out by the pattern '**/*.tif': 1 (S2_20230601T105031.jp2)",
    ]
    assert describe_empty_months({"a": ["2023-02", "2023-03"], "b": [], "c": ["2023-02", "2023-03", "2023-09"]}) == [
        "no scene in 2023-02, 2023-03, filled from other months: 2 zones (a, c)",
        "no scene in 2023-09, filled from other months: 1 zones (c)",
    ]


def test_what_another_zone_uses_is_not_left_out_but_what_is_used_otherwise_is_told():
    scene = Scene("s", dt.datetime(2023, 5, 1, tzinfo=dt.UTC), "s.tif")
    here = Found((scene,), remarks={"older": ("s",)})
    there = Found((), {"of another UTM system": ("s", "t")})
    assert gather_left_out([here, there], {"idle": ("u",)}) == {
        "older": ["s"],
        "of another UTM system": ["t"],
        "idle": ["u"],
    }


def test_refuses_more_acquisitions_than_can_be_counted():
    day = dt.datetime(2023, 5, 1, tzinfo=dt.UTC)
    scenes = [Scene(f"s{i}", day + dt.timedelta(hours=2 * i), f"{i}.tif") for i in range(256)]
    season = Season("2023-01", STUDY_CUBE)
    assert [len(step) for step in acquisitions_by_month(scenes[:-1], season)][4] == 255
    with pytest.raises(InputError, match=r"256 acquisitions in 2023-05; at most 255 .*'cube.step'"):
        acquisitions_by_month(scenes, season)


def test_tidies_what_a_killed_run_left_of_these_zones(tmp_path):
    folder = tmp_path / "composites"
    folder.mkdir()
    unique = "0123456789abcdef" * 2
    left = [f".here.{unique}.tif", f".here.nobs.{unique}.tif", f".here.{unique}.json"]
    kept = [f".there.{unique}.tif", "here.tif", ".here.tif"]
    for name in (*left, *kept):
        (folder / name).touch()
    assert remove_unfinished(Workspace(tmp_path), {"here"}) == 3
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)


def test_the_zones_own_season_comes_first(tmp_path):
    write_scene(tmp_path, "2021-11-15", draw_pixels(scl=4))
    zone = Zone("here", "north", "train", GRID, season_start="2021-10")
    assert acquire(tmp_path, tmp_path / "work", zone).n_scenes == (0, 1) + (0,) * 10


def test_refuses_a_zone_without_scene(tmp_path):
    write_scene(tmp_path, "2023-05-01")
    with pytest.raises(InputError, match=r"no scene reaches into 'here' from 2022-01-01 to 2023-01-01"):
        acquire(tmp_path, tmp_path / "work", first_month="2022-01")
    assert not (tmp_path / "work").exists()


def test_refuses_a_zone_that_is_never_clear(tmp_path):
    for day in (1, 6):
        write_scene(tmp_path, f"2023-05-{day:02d}", draw_pixels(scl=9))
    with pytest.raises(InputError, match=r"'here': none of its 204 pixels is clear .* 2 scenes"):
        acquire(tmp_path, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_check_names_all_zones_without_scenes(tmp_path):
    write_scene(tmp_path, "2023-05-01")
    away = [Zone(name, "south", "train", Grid(32631, 300_000.0, 4_800_000.0, 5, 5)) for name in ("a", "b")]
    source = FileScenes(FilesSettings(folder=tmp_path))
    survey_zones(source, [ZONE], "2023-01")
    with pytest.raises(InputError, match="'a', 'b'") as error:
        survey_zones(source, [away[0], ZONE, away[1]], "2023-01")
    assert "'here'" not in str(error.value)


@pytest.mark.parametrize(("chip", "first_month"), [("00002806639B424A", "2017-12"), ("0000280849BAC91C", "2018-12")])
def test_real_scenes_equal_a_plain_recomputation(real_data, tmp_path, chip, first_month):
    folder = real_data / "flanders_chips" / chip / "scenes"
    stacks = [[] for _ in range(12)]
    for path in sorted(folder.glob("*.tif")):
        year, month_of_year = int(path.stem[-15:-11]), int(path.stem[-11:-9])
        month = (year - int(first_month[:4])) * 12 + month_of_year - int(first_month[5:])
        with rasterio.open(path) as dataset:
            if 0 <= month < 12:
                stacks[month].append(dataset.read())
            grid = Grid(32631, dataset.transform.c, dataset.transform.f, 64, 64)
    assert sum(map(len, stacks)) > 50
    composite, n_obs = expect(stacks)
    window = Window(32, 0, 32, 32)
    for name, part in (("whole", grid), ("quarter", grid.crop(window))):
        acquire(folder.parent, tmp_path, Zone(name, "flanders", "test", part), first_month, pattern="scenes/*.tif")
        rows, cols = window.slices if name == "quarter" else (slice(None), slice(None))
        np.testing.assert_array_equal(read_composite(tmp_path / f"composites/{name}.tif"), composite[..., rows, cols])
        np.testing.assert_array_equal(read_n_obs(tmp_path / f"composites/{name}.nobs.tif"), n_obs[..., rows, cols])
