import numpy as np
import pytest
import rasterio

from cropray.core.errors import MissingArtefactError, SchemaError
from cropray.core.grid import Grid
from cropray.imagery.composites import read_composite, read_n_obs, write_composite, write_n_obs
from tests.study import FEATURE_COLUMNS

GRID = Grid(32631, 600_000.0, 5_400_000.0, 300, 17)  # taller than one block of 256


@pytest.fixture
def composite():
    return np.random.default_rng(0).integers(0, 65_536, (12, 4, *GRID.shape)).astype(np.uint16)


def test_composite_is_a_cog_on_the_grid(tmp_path, composite):
    write_composite(tmp_path / "z.tif", composite, GRID)
    with rasterio.open(tmp_path / "z.tif") as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.descriptions == FEATURE_COLUMNS
        assert (dataset.nodata, dataset.dtypes[0], dataset.crs.to_epsg()) == (0, "uint16", 32631)
        assert dataset.transform[:6] == GRID.transform
        assert dataset.compression.name == "deflate"
        np.testing.assert_array_equal(dataset.read(dataset.descriptions.index("B03_02") + 1), composite[1, 1])
    np.testing.assert_array_equal(read_composite(tmp_path / "z.tif"), composite)
    assert [path.name for path in tmp_path.iterdir()] == ["z.tif"]  # no sidecar, no temporary file


def test_counts_come_back(tmp_path):
    n_obs = np.random.default_rng(0).integers(0, 256, (12, *GRID.shape)).astype(np.uint8)
    write_n_obs(tmp_path / "z.nobs.tif", n_obs, GRID)
    np.testing.assert_array_equal(read_n_obs(tmp_path / "z.nobs.tif"), n_obs)


def test_says_what_is_wrong_with_a_file(tmp_path, composite):
    path = tmp_path / "z.tif"
    with pytest.raises(MissingArtefactError, match="cropray acquire"):
        read_composite(path)
    write_n_obs(path, composite[:, 0].astype(np.uint8), GRID)
    with pytest.raises(SchemaError, match=r"12 uint8 bands.*48 uint16"):
        read_composite(path)
    write_composite(path, composite, GRID)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(SchemaError, match="damaged"):
        read_composite(path)


def test_refuses_arrays_of_another_shape(tmp_path, composite):
    with pytest.raises(ValueError, match="300, 17"):
        write_composite(tmp_path / "z.tif", composite[:11], GRID)
    with pytest.raises(ValueError, match="300, 17"):
        write_n_obs(tmp_path / "z.tif", composite[:, 0, 1:].astype(np.uint8), GRID)
