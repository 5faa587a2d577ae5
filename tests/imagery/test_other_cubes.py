"""Composites of cubes that are not the study's: which bands are read, which steps are made, and how files are told apart."""

import copy
import datetime as dt
import json
from functools import partial

import numpy as np
import pytest
import rasterio

from cropray.config import JobConfig
from cropray.core.cube import STUDY_CUBE, CubeSpec, Season
from cropray.core.errors import InputError, SchemaError
from cropray.core.grid import Grid
from cropray.core.sensors import SENTINEL_2, Band, known_band
from cropray.imagery.acquire import acquire_zone, describe_clear, describe_empty_months, months_without
from cropray.imagery.composites import CUBE_TAG, read_composite, read_n_obs, write_composite, write_n_obs
from cropray.imagery.offsets import offset_is_gone, visible
from cropray.imagery.sources.earth_engine.months import MonthUnit, listing_key
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings, ids_of, step_dtype
from cropray.imagery.sources.files.scenes import FileScenes, FilesSettings
from cropray.imagery.sources.stac.items import understand
from cropray.imagery.sources.stac.settings import USUAL_ASSETS, StacSettings
from cropray.io.job_file import dump_yaml, load_settings
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from tests import oracles
from tests.imagery.rasters import GRID, write_scene
from tests.imagery.test_stac_items import EARTH_SEARCH

TEN = SENTINEL_2.bands
DEKADS = CubeSpec(tuple(map(known_band, ("B11", "B02", "B8A"))), "dekad", 2)
ZONE = Zone("here", "r", "train", GRID)


def draw_scene(folder, date, seed, bands=("B8A", "B2", "SCL", "B11", "B12"), scl=None):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 10_001, (len(bands), *GRID.shape)).astype(np.uint16)
    pixels[bands.index("SCL")] = rng.integers(0, 12, GRID.shape) if scl is None else scl
    write_scene(folder, date, pixels, bands=bands)
    return dict(zip(bands, pixels, strict=True))


def test_dekads_of_any_bands_are_found_by_description_and_composited(tmp_path):
    days = {
        "2022-09-03": 0,
        "2022-09-11": 1,
        "2022-09-20T23:50:00": 1,
        "2022-09-21T10:50:00": 2,
        "2022-10-31": 5,
        "2022-11-01": None,
    }
    drawn = {day: draw_scene(tmp_path / "scenes", day, seed) for seed, day in enumerate(days)}
    source = FileScenes(FilesSettings(folder=tmp_path / "scenes"), DEKADS.bands)
    workspace = Workspace(tmp_path / "work")
    record = acquire_zone(source, ZONE, "2022-09", workspace, DEKADS)

    assert record.n_scenes == (1, 2, 1, 0, 0, 1)
    assert record.months_without() == ("2022-10-01", "2022-10-11")
    medians, n_obs = [], []
    for step in range(6):
        scenes = [drawn[day] for day, of in days.items() if of == step]
        scl = np.stack([scene["SCL"] for scene in scenes]) if scenes else np.zeros((0, *GRID.shape), np.uint16)
        names = ("B11", "B2", "B8A")
        stack = (
            np.stack([[scene[name] for name in names] for scene in scenes])
            if scenes
            else np.zeros((0, 3, *GRID.shape), np.uint16)
        )
        median, seen = oracles.monthly_median(stack.astype(np.uint16), scl)
        medians.append(median)
        n_obs.append(seen)
    n_obs = np.stack(n_obs)
    expected = oracles.fill_gaps(np.stack(medians), n_obs > 0)
    np.testing.assert_array_equal(read_composite(workspace.composite("here"), GRID, DEKADS), expected)
    np.testing.assert_array_equal(read_n_obs(workspace.n_obs("here"), GRID, DEKADS), n_obs)
    written = json.loads(workspace.acquisition_record("here").read_text())
    assert CubeSpec.from_record(written["cube"]) == DEKADS
    assert written["share_clear"] == pytest.approx((n_obs > 0).mean())
    assert describe_clear([record]).endswith("of the pixel-dekads were observed; the rest was filled in time")


def test_steps_without_a_scene_are_named_by_their_first_day():
    season = Season("2023-12", DEKADS)
    names = months_without([1, 0, 1, 0, 1, 1], season)
    assert names == ("2023-12-11", "2024-01-01")
    (line,) = describe_empty_months({"a": names}, DEKADS)
    assert line == "no scene in 2023-12-11, 2024-01-01, filled from other dekads: 1 zones (a)"


def test_a_band_that_a_file_lacks_is_named_with_all_that_are_wanted(tmp_path):
    draw_scene(tmp_path, "2022-09-03", 0, ("B2", "B8A", "SCL"))
    source = FileScenes(FilesSettings(folder=tmp_path), DEKADS.bands)
    with pytest.raises(InputError, match=r"lacks \['B11'\].*describe them as B11 B02 B8A SCL"):
        source.survey(GRID, dt.date(2022, 9, 1), dt.date(2022, 10, 1))


def test_one_file_serves_jobs_of_other_bands_in_one_process(tmp_path):
    drawn = draw_scene(tmp_path, "2022-09-03", 0, scl=4)
    for ids in (("B12",), ("B02", "B11"), ("B11", "B02")):
        source = FileScenes(FilesSettings(folder=tmp_path), tuple(map(known_band, ids)))
        (scene,) = source.survey(GRID, dt.date(2022, 9, 1), dt.date(2022, 10, 1)).scenes
        np.testing.assert_array_equal(source.read(scene, GRID)[0], [drawn[i.replace("B0", "B")] for i in ids])


def test_bands_of_one_name_and_another_meaning_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "z.tif"
    composite = rng.integers(0, 9000, (*STUDY_CUBE.shape, *GRID.shape)).astype(np.uint16)
    write_composite(path, composite, GRID)
    with rasterio.open(path) as dataset:
        assert CubeSpec.from_record(json.loads(dataset.tags()[CUBE_TAG])) == STUDY_CUBE
    half_year = CubeSpec(STUDY_CUBE.bands, "half-month", 6)
    assert half_year.columns == STUDY_CUBE.columns
    with pytest.raises(
        SchemaError, match=r"B02 B03 B04 B08 × 12 months; needed is .* × 12 half-months of 6 months: run"
    ):
        read_composite(path, GRID, half_year)
    shifted = CubeSpec((Band("B02", "reflectance", 1e-4, -0.1), *STUDY_CUBE.bands[1:]))
    with pytest.raises(SchemaError, match=r"needed is B02 \(reflectance = number × 0\.0001 \+ -0\.1\) B03"):
        read_composite(path, GRID, shifted)
    write_n_obs(path, np.ones((12, *GRID.shape), np.uint8), GRID, half_year)
    with pytest.raises(SchemaError, match="of another cube"):
        read_n_obs(path, GRID)


@pytest.mark.parametrize("cube", [CubeSpec(STUDY_CUBE.bands, "half-month", 6), STUDY_CUBE], ids=["halves", "study"])
def test_a_raster_that_says_nothing_is_the_studys(tmp_path, cube):
    path, composite = tmp_path / "z.tif", np.ones((*cube.shape, *GRID.shape), np.uint16)
    write_composite(path, composite, GRID, cube)
    with rasterio.open(path) as dataset:
        profile, bands, names = dataset.profile, dataset.read(), dataset.descriptions
    with rasterio.open(path, "w", **{**profile, "driver": "GTiff"}) as dataset:
        dataset.write(bands)
        dataset.descriptions = names
    np.testing.assert_array_equal(read_composite(path, GRID), composite)
    with pytest.raises(SchemaError, match="of another cube"):
        read_composite(path, GRID, CubeSpec(STUDY_CUBE.bands, "half-month", 6))


@pytest.mark.parametrize("tag", ["[", "{}", '{"bands": [], "step": "month", "months": 12}'])
def test_a_damaged_tag_is_told(tmp_path, tag):
    path = tmp_path / "z.tif"
    write_composite(path, np.ones((*DEKADS.shape, *GRID.shape), np.uint16), GRID, DEKADS)
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.update_tags(**{CUBE_TAG: tag})
    with pytest.raises(SchemaError, match="is no cube"):
        read_composite(path, GRID, DEKADS)


def ten_band_item(names):
    item = copy.deepcopy(EARTH_SEARCH)
    item["assets"] = {name: {"href": f"https://cogs.example/{name}.tif"} for name in names}
    return item


@pytest.mark.parametrize("catalogue", [0, 1, 2], ids=["planetary-computer", "earth-search", "data-space"])
def test_catalogues_name_all_ten_bands(catalogue):
    item = ten_band_item([keys[catalogue] for keys in USUAL_ASSETS.values()])
    ids = [band.id for band in TEN]
    assets = understand(item, None, None, ids).scene.assets
    assert [band for band, _ in assets] == [*ids, "SCL"]
    assert dict(assets)["B05"].endswith(("/B05.tif", "/rededge1.tif", "/B05_20m.tif")[catalogue])
    with pytest.raises(InputError, match=r"no asset B11 \(B11 or swir16 or B11_20m\)"):
        understand(ten_band_item(["B02", "SCL"]), None, None, ["B02", "B11"])


def test_assets_of_any_bands_are_named_and_old_job_files_are_read(tmp_path):
    (tmp_path / "old.yaml").write_text("source: stac\nassets: {B02: a, B03: b, B04: c, B08: d, SCL: e}\n")
    old = load_settings(StacSettings, tmp_path / "old.yaml")
    assert old.assets.model_dump() == {"SCL": "e", "B02": "a", "B03": "b", "B04": "c", "B08": "d"}
    assert old.band_ids == STUDY_CUBE.band_ids
    new = StacSettings(source="stac", assets={"SCL": "s", "B12": "swir"})
    assert new.band_ids == ("B12",)
    assert len({hash(old), hash(new), hash(StacSettings(source="stac"))}) == 3
    (tmp_path / "new.yaml").write_text(dump_yaml(new))
    assert load_settings(StacSettings, tmp_path / "new.yaml") == new


def job(cube, **imagery):
    return JobConfig.model_validate(
        {"name": "j", "workspace": "w", "imagery": imagery, "parcels": {"path": "p.gpkg"}, "cube": cube}
    )


@pytest.mark.parametrize(
    ("imagery", "bands", "said"),
    [
        ({"source": "stac"}, ["B02", "VV"], r"VV, and scenes hold bands of reflectance × 10 000 only"),
        (
            {"folder": "."},
            [{"id": "B02", "unit": "reflectance", "scale": 1e-4, "offset": -0.1}],
            "B02, and scenes hold",
        ),
        ({"source": "stac", "assets": {"SCL": "s", "B02": "b"}}, ["B02", "B11"], "has no B11.*imagery.assets"),
        (
            {"source": "earth_engine", "project": "p"},
            [{"id": "B09", "unit": "reflectance", "scale": 1e-4}],
            "has no B09",
        ),
    ],
)
def test_a_source_refuses_bands_that_it_cannot_have(imagery, bands, said):
    with pytest.raises(ValueError, match=said):
        job({"bands": bands}, **imagery)


def test_files_may_hold_other_bands_of_reflectance():
    found = job({"bands": ["B8A", {"id": "B09", "unit": "reflectance", "scale": 1e-4}], "months": 3}, folder=".")
    assert (found.cube_spec.band_ids, found.cube_spec.n_steps) == (("B8A", "B09"), 3)


def test_earth_engine_keeps_its_keys_for_the_study_and_has_others_for_other_cubes():
    settings = EarthEngineSettings(source="earth_engine", project="p")
    unit = partial(MonthUnit, "z", "2023-05", GRID, (("a",),))
    # Months and listings that were asked for before there were other cubes: another key would ask for them again.
    assert unit().key()[:16] == unit(ids_of(STUDY_CUBE.bands)).key()[:16] == "6791e56808284484"
    assert listing_key(settings, ZONE, Season("2023-01")).startswith("9f5ef105986583df")
    assert unit().key() != unit(("B2", "B11")).key()
    keys = {listing_key(settings, ZONE, Season("2023-01", cube)) for cube in (STUDY_CUBE, DEKADS)}
    assert len(keys) == 2
    assert step_dtype(("B8A", "B11")).names == ("B8A", "B11", "n_obs")
    assert ids_of(TEN) == ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")


def test_land_shows_by_any_bands_that_the_offset_is_gone():
    scl = np.full((20, 20), 4, np.uint8)
    dark = np.full((20, 20), 400, np.uint16)
    bright = np.full((20, 20), 3000, np.uint16)
    infrared_first = tuple(map(known_band, ("B08", "B12", "B03")))
    assert visible(infrared_first) == [2]
    assert not offset_is_gone(np.stack([dark, dark, bright])[visible(infrared_first)], scl)
    assert offset_is_gone(np.stack([bright, bright, dark])[visible(infrared_first)], scl)
    assert visible(infrared_first[:2]) == [0, 1]


def test_bands_of_20_m_are_repeated_on_the_grid(tmp_path):
    from cropray.imagery.sources.stac.read import read_band
    from cropray.io.retry import RetryPolicy
    from tests.servers.stac_items import write_band

    coarse = Grid(32631, 600_000.0, 5_400_000.0, 8, 9, 20.0)
    values = np.random.default_rng(0).integers(1, 9000, coarse.shape).astype(np.uint16)
    write_band(tmp_path / "swir.tif", values, coarse)
    wanted = Grid(32631, 600_030.0, 5_399_990.0, 5, 7)
    out = np.empty(wanted.shape, np.uint16)
    read_band(str(tmp_path / "swir.tif"), wanted, out, RetryPolicy(1, 0, 0), 10)
    rows, cols = (np.arange(5) + 1) // 2, (np.arange(7) + 3) // 2
    np.testing.assert_array_equal(out, values[rows[:, None], cols])
