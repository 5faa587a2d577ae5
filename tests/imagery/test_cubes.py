"""Ready cubes become composites: their numbers, gaps, counts and places, and what is refused of them."""

import pickle

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from pydantic import ValidationError

from cropray.core.cube import STUDY_CUBE, CubeSpec, Season
from cropray.core.errors import InputError
from cropray.core.grid import Grid, Window
from cropray.core.sensors import Band
from cropray.imagery.composites import read_composite, read_n_obs, write_composite, write_n_obs
from cropray.imagery.cubes import acquire_cube
from cropray.imagery.gapfill import fill_gaps
from cropray.imagery.sources.cubes import CubeFiles, CubesSettings
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone

GRID = Grid(32631, 600_000.0, 5_400_000.0, 9, 14)
ZONE = Zone("beauce-1", "beauce", "train", GRID)
STUDY = Season("2023-01")
EMBEDDING = CubeSpec(tuple(Band(f"A{n:02d}", "embedding", 1.0, -129.0) for n in range(5)), "season")
YEAR = Season("2023-01", EMBEDDING)


def source(folder, **settings):
    return CubeFiles(CubesSettings(source="cubes", folder=folder, **settings))


def write(path, bands, names=None, grid=GRID, **profile):
    """A GeoTIFF [B, H, W]; `tags` are scale and offset."""
    tags = profile.pop("tags", (1, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff", "dtype": bands.dtype, "count": len(bands), "height": grid.height, "width": grid.width,
        "crs": f"EPSG:{grid.epsg}", "transform": rasterio.Affine(*grid.transform),
    } | profile  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(bands)
        if names is not None:
            dataset.descriptions = names
        dataset.scales, dataset.offsets = [tags[0]] * len(bands), [tags[1]] * len(bands)
    return path


def drawn(seed=0, shape=GRID.shape, gaps=0.3):
    """[T, C, H, W] of the study's cube, 0 where nothing was seen."""
    rng = np.random.default_rng(seed)
    cube = rng.integers(1, 9000, (12, 4, *shape)).astype(np.uint16)
    cube[np.broadcast_to(rng.random((12, 1, *shape)) < gaps, cube.shape)] = 0
    return cube


def band_major(cube):
    return cube.swapaxes(0, 1).reshape(-1, *cube.shape[2:])


def test_composites_of_another_workspace_are_taken_over_as_they_are(tmp_path):
    cube, n_obs = drawn(), np.random.default_rng(1).integers(0, 9, (12, *GRID.shape)).astype(np.uint8)
    filled = fill_gaps(cube, (cube > 0).all(axis=1))
    write_composite(tmp_path / "beauce-1.tif", filled, GRID)
    write_n_obs(tmp_path / "beauce-1.nobs.tif", n_obs, GRID)
    own, workspace = source(tmp_path), Workspace(tmp_path / "work")
    assert not own.survey([(ZONE, STUDY)])
    record = acquire_cube(own, ZONE, STUDY, workspace)
    np.testing.assert_array_equal(read_composite(workspace.composite("beauce-1"), GRID), filled)
    np.testing.assert_array_equal(read_n_obs(workspace.n_obs("beauce-1"), GRID), n_obs)
    assert record.n_clear == tuple((n_obs > 0).sum(axis=(1, 2)))
    assert own.files(ZONE, STUDY) == ("beauce-1.tif", "beauce-1.nobs.tif")
    assert pickle.loads(pickle.dumps(own)) == own


def test_gaps_are_filled_in_time_and_steps_with_data_count(tmp_path):
    cube = drawn()
    cube[3, 1, 2, 5] = 0  # of one band alone
    write(tmp_path / "beauce-1.tif", band_major(cube), STUDY_CUBE.columns, nodata=0)
    own = source(tmp_path)
    composite, n_obs = own.read(ZONE, STUDY)
    for band in range(4):
        np.testing.assert_array_equal(composite[:, [band]], fill_gaps(cube[:, [band]], cube[:, band] > 0))
    np.testing.assert_array_equal(n_obs, (cube > 0).all(axis=1))
    ((remark, names),) = own.survey([(ZONE, STUDY)]).items()
    assert (names, remark[:32]) == (("beauce-1",), "zones without counts of observat")


def test_gaps_can_be_left(tmp_path):
    cube = drawn()
    write(tmp_path / "beauce-1.tif", band_major(cube), STUDY_CUBE.columns)
    own, workspace = source(tmp_path, fill=False), Workspace(tmp_path / "work")
    record = acquire_cube(own, ZONE, STUDY, workspace)
    np.testing.assert_array_equal(read_composite(workspace.composite("beauce-1")), cube)
    assert record.to_record()["n_filled"] == 0
    assert record.n_scenes == (1,) * 12


def test_bands_are_found_by_their_names_and_counts_beside_them(tmp_path):
    cube, n_obs = drawn(), np.random.default_rng(1).integers(0, 256, (12, *GRID.shape)).astype(np.uint16)
    bands = np.concatenate([band_major(cube), n_obs, band_major(cube)[:1]])
    names = (*STUDY_CUBE.columns, *(f"n_obs_{step:02d}" for step in range(1, 13)), "NDVI_05")
    order = np.random.default_rng(2).permutation(len(names))
    write(tmp_path / "beauce-1.tif", bands[order], [names[index].lower() for index in order])
    own = source(tmp_path, fill=False)
    composite, counts = own.read(ZONE, STUDY)
    np.testing.assert_array_equal(composite, cube)
    np.testing.assert_array_equal(counts, n_obs)
    assert own.survey([(ZONE, STUDY)]) == {"bands that the job's cube does not have": ("ndvi_05",)}


@pytest.mark.parametrize("names", [None, ("A00", "A01", "A02", "A03", "A04"), tuple(f"a0{n}_01" for n in range(5))])
def test_embeddings_of_bytes(tmp_path, names):
    values = np.random.default_rng(0).integers(-127, 128, (5, *GRID.shape)).astype(np.int8)
    values[:, 4, 3:6] = -128
    values[2, 0, 0] = -128
    write(tmp_path / "beauce-1.tif", values, names, nodata=-128)
    composite, n_obs = source(tmp_path).read(ZONE, YEAR)
    workspace = Workspace(tmp_path / "work")
    acquire_cube(source(tmp_path), ZONE, YEAR, workspace)
    np.testing.assert_array_equal(read_composite(workspace.composite("beauce-1"), GRID, EMBEDDING), composite)
    stored = values.astype(int) + 129  # scale 1, offset −129
    np.testing.assert_array_equal(composite[0], np.where(values == -128, 0, stored))
    np.testing.assert_array_equal(n_obs[0], (values != -128).all(axis=0))


def test_real_numbers_are_stored_by_the_affine_of_the_cube(tmp_path):
    cube = CubeSpec((Band("VV", "dB", 0.002, -80.0), Band("A00", "embedding", 2**-15, -1.0)), "season")
    values = (
        np.stack([np.linspace(-79.9, 40, 126), np.linspace(-0.9, 0.9, 126)]).reshape(2, *GRID.shape).astype(np.float32)
    )
    values[0, 0, 0] = np.nan
    values[1, 0, 1] = -9999
    write(tmp_path / "beauce-1.tif", values, ("VV", "A00"), nodata=-9999)
    composite, _ = source(tmp_path).read(ZONE, Season("2023-01", cube))
    back = composite[0] * np.array([0.002, 2**-15])[:, None, None] + np.array([-80.0, -1.0])[:, None, None]
    assert composite[0, 0, 0, 0] == composite[0, 1, 0, 1] == 0
    back[0, 0, 0], back[1, 0, 1] = np.nan, -9999
    np.testing.assert_allclose(back, values, atol=0.0011)


def test_scale_tags_of_a_file_say_what_its_numbers_are(tmp_path):
    cube = drawn(gaps=0)
    write(tmp_path / "a" / "beauce-1.tif", band_major(cube).astype(np.float32), STUDY_CUBE.columns, tags=(1e-4, 0))
    write(tmp_path / "b" / "beauce-1.tif", band_major(cube), STUDY_CUBE.columns, tags=(1e-4, 0))
    write(tmp_path / "c" / "beauce-1.tif", band_major(cube) + np.uint16(1000), STUDY_CUBE.columns, tags=(1e-4, -0.1))
    write(tmp_path / "d" / "beauce-1.tif", band_major(cube) / 1e4, STUDY_CUBE.columns)
    for folder in "abcd":
        np.testing.assert_array_equal(source(tmp_path / folder).read(ZONE, STUDY)[0], cube)


def test_values_that_cannot_be_stored_are_refused_by_number_and_band(tmp_path):
    values = np.full((48, *GRID.shape), 0.1)
    values[17, 2, 3:8] = [0, -0.2, 6.6, np.inf, 1e-5]
    values[40, 0, 0] = 7
    write(tmp_path / "beauce-1.tif", values, STUDY_CUBE.columns)
    with pytest.raises(
        InputError, match=r"5 values of B03_06 \(and values of B08_05\) lie outside of 0.0001 to 6.5535 refl"
    ):
        source(tmp_path).read(ZONE, STUDY)
    values[17, 2, 3:8] = values[40, 0, 0] = -1
    write(tmp_path / "beauce-1.tif", values, STUDY_CUBE.columns, nodata=-1)
    assert source(tmp_path, fill=False).read(ZONE, STUDY)[0][5, 1, 2].tolist() == [1000] * 3 + [0] * 5 + [1000] * 6


def test_names_may_stand_in_the_job(tmp_path):
    cube = drawn()
    write(tmp_path / "beauce-1.tif", cube.reshape(48, *GRID.shape))  # month by month
    names = [f"{band}_{step:02d}" for step in range(1, 13) for band in STUDY_CUBE.band_ids]
    np.testing.assert_array_equal(source(tmp_path, bands=names, fill=False).read(ZONE, STUDY)[0], cube)
    with pytest.raises(InputError, match=r"lacks 48 bands of the cube \(B02_01, .*'imagery.bands'"):
        source(tmp_path).survey([(ZONE, STUDY)])
    with pytest.raises(InputError, match=r"has 48 bands and 'imagery.bands' names 47"):
        source(tmp_path, bands=names[1:]).survey([(ZONE, STUDY)])


def test_a_mosaic_serves_many_zones(tmp_path):
    whole = Grid(32631, GRID.x_min - 200, GRID.y_max + 100, 60, 80)
    cube = drawn(shape=whole.shape, gaps=0.1)
    write(tmp_path / "france.tif", band_major(cube), STUDY_CUBE.columns, whole)
    east = Zone("east", "beauce", "test", whole.crop(Window(2, 31, 20, 40)))
    for pattern in ("france.tif", "*.tif", "{season}*.tif", "france.vrt"):
        if pattern.startswith("{"):
            (tmp_path / "france.tif").rename(tmp_path / "2023-01_france.tif")
        elif pattern.endswith("vrt"):
            rasterio.shutil.copy(tmp_path / "2023-01_france.tif", tmp_path / pattern, driver="VRT")
        own = source(tmp_path, pattern=pattern, fill=False)
        own.survey([(ZONE, STUDY), (east, STUDY)])
        for zone in (ZONE, east):
            np.testing.assert_array_equal(own.read(zone, STUDY)[0], cube[:, :, *whole.window_of(zone.grid).slices])
    before = own.fingerprint(east, STUDY)
    write(tmp_path / "2023-01_france.tif", band_major(cube)[::-1], STUDY_CUBE.columns, whole)
    assert own.fingerprint(east, STUDY) != before
    (tmp_path / "2023-01_france.tif").unlink()
    with pytest.raises(InputError, match=r"france.vrt' points to 1 files that are not there: .*2023-01_france.tif"):
        own.survey([(east, STUDY)])


def test_files_that_a_mosaic_of_mosaics_points_to_are_known(tmp_path):
    write(tmp_path / "deep.tif", band_major(drawn()), STUDY_CUBE.columns)
    rasterio.shutil.copy(tmp_path / "deep.tif", tmp_path / "inner.vrt", driver="VRT")
    (tmp_path / "outer.vrt").write_text((tmp_path / "inner.vrt").read_text().replace("deep.tif", "inner.vrt"))
    own = source(tmp_path, pattern="outer.vrt", fill=False)
    assert "files that no zone needs" not in own.survey([(ZONE, STUDY)])
    before = own.fingerprint(ZONE, STUDY)
    write(tmp_path / "deep.tif", band_major(drawn())[::-1], STUDY_CUBE.columns)
    assert own.fingerprint(ZONE, STUDY) != before
    (tmp_path / "deep.tif").unlink()
    with pytest.raises(InputError, match=r"inner.vrt' points to 1 files that are not there: .*deep.tif"):
        own.survey([(ZONE, STUDY)])
    (tmp_path / "inner.vrt").write_text(
        '<VRTDataset><SourceFilename relativeToVRT="1">outer.vrt</SourceFilename></VRTDataset>'
    )
    with pytest.raises(InputError, match=r"outer.vrt' points to itself"):
        own.survey([(ZONE, STUDY)])


def test_of_several_files_one_must_cover_a_zone(tmp_path):
    away = Grid(32631, GRID.x_min + 5000, GRID.y_max, *GRID.shape)
    write(tmp_path / "a.tif", band_major(drawn()), STUDY_CUBE.columns)
    write(tmp_path / "b.tif", np.zeros((1, *GRID.shape), np.uint8), grid=away)  # no cube, and of no zone
    own = source(tmp_path, pattern="*.tif")
    assert own.files(ZONE, STUDY) == ("a.tif",)
    assert own.survey([(ZONE, STUDY)])["files that no zone needs"] == ("b.tif",)
    between = Zone("between", "beauce", "train", Grid(32631, GRID.x_min + 20, GRID.y_max, *GRID.shape))
    with pytest.raises(
        InputError, match=r"a.tif' does not fit zone 'between': it covers .*1 other files.*gdalbuildvrt"
    ):
        own.survey([(ZONE, STUDY), (between, STUDY)])
    write(tmp_path / "c.tif", band_major(drawn()), STUDY_CUBE.columns)
    with pytest.raises(InputError, match=r"covered by 2 files that match '\*.tif': .*a.tif, .*c.tif"):
        own.survey([(ZONE, STUDY)])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crs": "EPSG:32630"}, "does not fit zone 'beauce-1': grids differ: EPSG:32630"),
        ({"crs": None}, "needs an EPSG system"),
        ({"transform": rasterio.Affine(10, 0, 600_004, 0, -10, 5_400_000)}, "pixels do not line up"),
        ({"transform": rasterio.Affine(20, 0, 600_000, 0, -20, 5_400_000)}, "grids differ: EPSG:32631 at 20 m"),
        ({"transform": rasterio.Affine(10, 1, 600_000, 0, -10, 5_400_000)}, "north up"),
        ({"dtype": "complex64"}, "holds complex64; whole or real numbers"),
    ],
)
def test_files_that_do_not_fit(tmp_path, changes, said):
    write(tmp_path / "beauce-1.tif", band_major(drawn()), STUDY_CUBE.columns, **changes)
    with pytest.raises(InputError, match=said) as error:
        source(tmp_path).survey([(ZONE, STUDY)])
    assert "beauce-1.tif" in str(error.value)


def test_files_that_are_damaged_or_masked(tmp_path):
    path = tmp_path / "beauce-1.tif"
    write_composite(path, drawn(), GRID)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(InputError, match="is cut off"):
        source(tmp_path).survey([(ZONE, STUDY)])
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is no readable raster"):
        source(tmp_path).survey([(ZONE, STUDY)])
    write(path, band_major(drawn()), [STUDY_CUBE.columns[0]] * 48)
    with pytest.raises(InputError, match="lacks 47 bands"):
        source(tmp_path).survey([(ZONE, STUDY)])
    write(path, band_major(drawn())[[*range(48), 0]], [*STUDY_CUBE.columns, "b02_01"])
    with pytest.raises(InputError, match="has B02_01 twice"):
        source(tmp_path).survey([(ZONE, STUDY)])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(path, band_major(drawn()), STUDY_CUBE.columns)
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(np.eye(*GRID.shape, dtype=bool))
    with pytest.raises(InputError, match="has a mask or alpha band"):
        source(tmp_path).survey([(ZONE, STUDY)])


def test_composites_of_a_workspace_with_another_cube(tmp_path):
    there = CubeSpec((Band("VV", "dB", 0.001, -50.0), Band("VH", "dB", 0.002, -80.0)), "dekad", 1)
    write_composite(tmp_path / "beauce-1.tif", np.ones((3, 2, *GRID.shape), np.uint16), GRID, there)
    same = CubeSpec(there.bands[::-1], "dekad", 1)
    assert not source(tmp_path).read(ZONE, Season("2023-05", same))[0].max() - 1
    other = CubeSpec((Band("VV", "dB", 0.002, -80.0),), "dekad", 1)
    with pytest.raises(InputError, match="1 months in steps of a dekad, and stores VV by another scale or offset"):
        source(tmp_path).survey([(ZONE, Season("2023-05", other))])
    with pytest.raises(InputError, match="the job's cube has 3 months in steps of a month: mend 'cube'"):
        source(tmp_path).survey([(ZONE, Season("2023-05", CubeSpec(there.bands, "month", 3)))])


def test_zones_without_a_file_are_named_together(tmp_path):
    write(tmp_path / "beauce-1.tif", band_major(drawn()), STUDY_CUBE.columns)
    others = [(Zone(f"beauce-{n}", "beauce", "train", GRID), STUDY) for n in range(1, 9)]
    with pytest.raises(
        InputError, match=r"no file '\{zone_id\}.tif' .* for 7 of 8 zones: beauce-2, .*, …; mend 'imagery.f"
    ):
        source(tmp_path).survey(others)
    with pytest.raises(InputError, match="does not exist"):
        source(tmp_path / "none").survey(others)


def test_cubes_without_data_and_counts_that_are_none(tmp_path):
    path = write(tmp_path / "beauce-1.tif", np.zeros((48, *GRID.shape), np.uint16), STUDY_CUBE.columns)
    with pytest.raises(InputError, match="has no data of B02, B03, B04, B08 in zone 'beauce-1'"):
        source(tmp_path).read(ZONE, STUDY)
    write(path, np.concatenate([band_major(drawn())[:36], np.zeros((12, *GRID.shape), np.uint16)]), STUDY_CUBE.columns)
    with pytest.raises(InputError, match="has no data of B08 in zone 'beauce-1'"):
        source(tmp_path).read(ZONE, STUDY)
    write(path, band_major(drawn()), STUDY_CUBE.columns)
    for counts, said in (
        (np.full((12, *GRID.shape), 256), "hold 256 to 256"),
        (np.zeros((12, *GRID.shape)), "are 0 everywhere"),
    ):
        write(tmp_path / "beauce-1.nobs.tif", counts.astype(np.float32))
        with pytest.raises(InputError, match=said):
            source(tmp_path).read(ZONE, STUDY)
    write(tmp_path / "beauce-1.nobs.tif", counts[:7].astype(np.uint8))
    with pytest.raises(InputError, match="lacks 12 bands"):
        source(tmp_path).survey([(ZONE, STUDY)])


def test_the_fingerprint_is_of_all_that_is_read(tmp_path):
    path = write(tmp_path / "beauce-1.tif", band_major(drawn()), STUDY_CUBE.columns)
    prints = {source(tmp_path).fingerprint(ZONE, STUDY), source(tmp_path, fill=False).fingerprint(ZONE, STUDY)}
    write(tmp_path / "beauce-1.nobs.tif", np.ones((12, *GRID.shape), np.uint8))
    prints.add(source(tmp_path).fingerprint(ZONE, STUDY))
    write(path, band_major(drawn(1)), STUDY_CUBE.columns)
    prints.add(source(tmp_path).fingerprint(ZONE, STUDY))
    assert len(prints) == 4


@pytest.mark.parametrize("pattern", ["{zone}.tif", "{}.tif", "{zone_id.tif"])
def test_patterns_with_other_places(tmp_path, pattern):
    with pytest.raises(ValidationError, match=r"\{zone_id\} and \{season\}"):
        source(tmp_path, pattern=pattern)
