"""A zone's pixel table and shards on disk."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cropray.core.errors import MissingArtefactError, SchemaError
from cropray.datasets.pixels import pixel_table
from cropray.datasets.storage import TILES_PER_SHARD, read_pixels, read_tiles, write_tiles
from cropray.datasets.tiles import cut_tiles
from cropray.io.workspace import Workspace
from tests.synthetic import zone, zone_arrays

ZONE = zone()
ARRAYS = zone_arrays((72, 72))
TILES = cut_tiles(ARRAYS, 8)


@pytest.fixture
def workspace(tmp_path):
    """A workspace that holds 81 tiles of 8 × 8 px and the pixels of one zone."""
    workspace = Workspace(tmp_path)
    folder = workspace.tiles(ZONE.zone_id)
    folder.mkdir(parents=True)
    write_tiles(TILES, ZONE, folder)
    pixels = workspace.pixels(ZONE.zone_id)
    pixels.mkdir(parents=True)
    pq.write_table(pixel_table(ARRAYS, ZONE.zone_id, ZONE.region), pixels / "part-0.parquet")
    return workspace


def test_tiles_are_sharded_and_read_back_in_order(workspace):
    shards = sorted(workspace.tiles(ZONE.zone_id).iterdir())
    assert [pq.read_metadata(shard).num_rows for shard in shards] == [TILES_PER_SHARD, 81 - TILES_PER_SHARD]
    back = read_tiles(workspace, ZONE.zone_id, 8)
    for field in dataclasses.fields(back):
        written, read = getattr(TILES, field.name), getattr(back, field.name)
        assert read.dtype == written.dtype, field.name
        np.testing.assert_array_equal(read, written, err_msg=field.name)


def test_pixels_read_back(workspace):
    assert read_pixels(workspace, ZONE.zone_id).equals(pixel_table(ARRAYS, ZONE.zone_id, ZONE.region))


def test_a_zone_without_labels_reads_back_without_tiles(workspace):
    for shard in workspace.tiles(ZONE.zone_id).iterdir():
        shard.unlink()
    assert read_tiles(workspace, ZONE.zone_id, 8).x.shape[0] == 0


def test_a_missing_zone_names_the_stage(workspace):
    with pytest.raises(MissingArtefactError, match="run `cropray dataset"):
        read_pixels(workspace, "atlantis-1")


def test_a_truncated_shard_is_named(workspace):
    shard = workspace.tiles(ZONE.zone_id) / "shard-0001.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(SchemaError, match=r"shard-0001\.parquet' cannot be read .* run `cropray dataset"):
        read_tiles(workspace, ZONE.zone_id, 8)


def test_a_shard_whose_pages_are_damaged_is_named(workspace):
    shard = workspace.tiles(ZONE.zone_id) / "shard-0000.parquet"
    data = bytearray(shard.read_bytes())
    middle = len(data) // 2  # inside a page: the footer stays readable
    data[middle : middle + 5000] = bytes(5000)
    shard.write_bytes(data)
    with pytest.raises(SchemaError, match=r"shard-0000\.parquet' cannot be read"):
        read_tiles(workspace, ZONE.zone_id, 8)


def test_other_columns_are_refused(workspace):
    part = workspace.pixels(ZONE.zone_id) / "part-0.parquet"
    pq.write_table(pq.ParquetFile(part).read().drop_columns("B04_05"), part)
    with pytest.raises(SchemaError, match=r"part-0\.parquet' has other columns .*\['B04_05'\]"):
        read_pixels(workspace, ZONE.zone_id)


def test_other_types_are_refused(workspace):
    part = workspace.pixels(ZONE.zone_id) / "part-0.parquet"
    table = pq.ParquetFile(part).read()
    pq.write_table(table.set_column(5, "label", table["label"].cast(pa.int64())), part)
    with pytest.raises(SchemaError, match="types differ"):
        read_pixels(workspace, ZONE.zone_id)


def test_tiles_of_another_size_are_refused(workspace):
    with pytest.raises(SchemaError, match="types differ"):
        read_tiles(workspace, ZONE.zone_id, 16)
