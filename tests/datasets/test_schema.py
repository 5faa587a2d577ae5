"""Stored schemas survive Parquet and Ray Data."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cropray.core.errors import SchemaError
from cropray.datasets.schema import SCHEMA_VERSION, check_version, pixel_schema, tile_schema
from tests.study import FEATURE_COLUMNS

N_TILES, SIZE = 3, 8


def _tiles() -> tuple[pa.Table, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.integers(0, 2**16, (N_TILES, 12, 4, SIZE, SIZE), np.uint16),
        "labels": rng.integers(0, 256, (N_TILES, SIZE, SIZE), np.uint8),
        "valid": rng.integers(0, 2, (N_TILES, 12, SIZE, SIZE), np.uint8),
    }
    keys = {"zone_id": ["a-1"] * N_TILES, "region": ["a"] * N_TILES, "row": [0, 8, 16], "col": [0, 0, 0]}
    tensors = {name: pa.FixedShapeTensorArray.from_numpy_ndarray(array) for name, array in arrays.items()}
    return pa.table({**keys, **tensors}, schema=tile_schema(SIZE)), arrays


def test_pixel_schema_names_the_columns_of_the_design() -> None:
    keys = ["zone_id", "region", "parcel", "row", "col", "label", "n_clear"]
    assert pixel_schema().names == [*keys, *FEATURE_COLUMNS]


def test_tiles_survive_parquet(tmp_path: Path) -> None:
    table, arrays = _tiles()
    pq.write_table(table, tmp_path / "tiles.parquet")
    back = pq.read_table(tmp_path / "tiles.parquet")
    assert back.schema.equals(tile_schema(SIZE))
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name].combine_chunks().to_numpy_ndarray(), array)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_tiles_survive_ray_data(tmp_path: Path) -> None:
    import ray

    table, arrays = _tiles()
    folder = tmp_path / "zone_id=a-1"
    folder.mkdir()
    pq.write_table(table, folder / "part-0.parquet")
    batch = ray.data.read_parquet(str(tmp_path)).take_batch(N_TILES, batch_format="numpy")
    for name, array in arrays.items():
        assert batch[name].dtype == array.dtype
        np.testing.assert_array_equal(batch[name], array)
    assert list(batch["zone_id"]) == ["a-1"] * N_TILES


def test_another_version_is_refused() -> None:
    check_version(SCHEMA_VERSION, "dataset")
    with pytest.raises(SchemaError, match="rebuild it with `cropray dataset"):
        check_version(SCHEMA_VERSION - 1, "dataset")
