"""Training data against the object store and the disk behind it."""

import pickle
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest

from cropray.cluster.placement import Node
from cropray.core.errors import ConfigError
from cropray.datasets.manifest import BandSums, Manifest, ZoneEntry
from cropray.datasets.storage import training_tiles, write_tiles
from cropray.datasets.tiles import cut_tiles
from cropray.search.store import data_bytes, scratch_bytes, store_line, tile_bytes
from tests.synthetic import zone, zone_arrays


class Usage(NamedTuple):
    """As `shutil.disk_usage` gives it."""

    total: float
    used: float
    free: float


def manifest(n_zones=4, counts=50_000_000, n_tiles=10_000, tile_size=64):
    sums = BandSums((0,) * 4, (0.0,) * 4, (0.0,) * 4)
    zones = tuple(
        ZoneEntry(
            f"z{i}", "r", "test" if i == 0 else "train", None if i == 0 else i, {"a": counts}, 0, n_tiles, sums, {}
        )
        for i in range(n_zones)
    )
    return Manifest("m", "parcels", (), "h", tile_size, 3, zones)


@pytest.fixture
def line(monkeypatch, tmp_path):
    """`store_line` on disks of 1 TB with so much left beside the part that Ray leaves alone."""

    def line(samples, nodes, free=100e9, n_tile_workers=0):
        monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1e12, 0, free + 50e9))
        return store_line(manifest(), samples, nodes, tmp_path, n_tile_workers)

    return line


def test_the_training_zones_are_counted():
    trees, tiles = 3 * 50e6 * 97, 3 * 10_000 * 64 * 64 * 97  # bytes: 14.6 and 11.9 GB; the test zone is not there
    assert data_bytes("pixel", 3 * 50e6, 0, 0) == trees
    assert data_bytes("tile", 0, 3 * 10_000, 64) == tiles
    assert scratch_bytes(3 * 10_000, 64, 2) == 2 * 3 * 10_000 * 64 * 64 * 97


def test_a_tile_in_the_store_is_what_models_read(tmp_path):
    drawn = cut_tiles(zone_arrays((48, 64)), 16)
    write_tiles(drawn, zone(size=64), tmp_path)
    tiles = training_tiles(pq.read_table(tmp_path, columns=["x", "labels"]))
    parts = []
    pickle.dumps(tiles, protocol=5, buffer_callback=parts.append)  # as Ray keeps it
    assert sum(part.raw().nbytes for part in parts) == len(drawn.row) * tile_bytes(16)
    np.testing.assert_array_equal(tiles.x, drawn.x)
    np.testing.assert_array_equal(tiles.labels, drawn.labels)


def test_what_the_store_holds(line):
    nodes = [Node(4, object_store_bytes=30e9)] * 2
    assert line(["pixel"], nodes) == "dataset 15 of 60 GB object store"
    assert line(["pixel", "pixel"], nodes) == line(["pixel"], nodes)  # families share what they read
    assert line(["pixel", "tile"], nodes) == "dataset 26 of 60 GB object store"
    # No node can hold all that a unit reads.
    assert line(["pixel"], [Node(4, 0, 12e9)] * 9).endswith("some of it will go through the disk, which is slower")
    # A head without CPUs trains nothing.
    assert "through" not in line(["pixel"], [Node(0, 0, 1e9), *nodes])


def test_what_goes_through_the_disk(line):
    # 29.1 GB while trees' rows are read, 10 GB of them in the store.
    assert line(["pixel"], [Node(4, 0, 10e9)]) == (
        "dataset 15 of 10 GB object store; 19 GB of it will go through the disk, which is slower"
    )
    assert line(["pixel"], [Node(4, 0, 10e9)], free=19.2e9)
    with pytest.raises(
        ConfigError, match=r"takes 29.1 GB .* store holds 10 GB; 19.1 GB go to disk.* room for 19 GB on each of 1 node"
    ):
        line(["pixel"], [Node(4, 0, 10e9)], free=19e9)
    assert line(["pixel"], [Node(4, 0, 5e9)] * 2, free=10e9)  # two disks


def test_scratch_files_of_the_cnn_are_counted(line):
    assert line(["tile"], [Node(4, 0, 30e9)], free=24e9, n_tile_workers=2)  # 2 × 11.9 GB
    with pytest.raises(ConfigError, match=r"35.8 GB go to disk"):
        line(["tile"], [Node(4, 0, 30e9)], free=24e9, n_tile_workers=3)
    assert line(["pixel"], [Node(4, 0, 30e9)], free=0)
