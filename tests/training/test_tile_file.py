"""Tiles in a scratch file are the tiles themselves, and the file cannot be left behind."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cropray.core.errors import ConfigError
from cropray.training.deep.tile_file import FileBlock, TileFile
from cropray.training.deep.tiles import TileSet
from tests.training.small_fits import LOOKUP, N_CLASSES, STATS, Block

CPU = torch.device("cpu")


def drawn_block(n, size, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 10_000, (n, 12, 4, size, size)).astype(np.uint16)
    return Block(x, rng.choice([0, 1, 2, 3, 255], (n, size, size)).astype(np.uint8))


def in_file(file, block):
    return FileBlock(file.append(block.x), file.append(block.labels))


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any),
    st.sampled_from([32, 64]),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_a_file_gives_what_arrays_give(sizes, size, seed, turned):
    blocks = [drawn_block(n, size, seed + i) for i, n in enumerate(sizes)]
    arrays = TileSet(blocks, LOOKUP, STATS)
    rng = np.random.default_rng(seed)
    order = rng.integers(0, len(arrays), 7)
    turns = rng.integers(0, 8, 7) if turned else 0
    with TileFile() as file:
        filed = TileSet([in_file(file, block) for block in blocks], LOOKUP, STATS)
        assert len(filed) == len(arrays)
        expected, found = arrays.batch(order, CPU, turns), filed.batch(order, CPU, turns)
        assert torch.equal(found.x, expected.x)
        assert torch.equal(found.labels, expected.labels)
        assert np.array_equal(filed.class_counts(N_CLASSES), arrays.class_counts(N_CLASSES))


def test_rows_are_indexed_like_an_array():
    array = np.arange(7 * 3, dtype=np.uint16).reshape(7, 3)
    with TileFile() as file:
        file.append(np.zeros(5, np.uint8))
        rows = file.append(array)
        assert (rows.shape, rows.ndim, rows.dtype, len(rows)) == ((7, 3), 2, np.uint16, 7)
        for index in (0, 6, -1, -7, slice(2, 5), slice(5, 99), slice(3, 3), slice(None)):
            assert np.array_equal(rows[index], array[index])
        for index in (7, -8):
            with pytest.raises(IndexError):
                rows[index]


def test_the_file_has_no_name_and_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with TileFile() as file:
        rows = file.append(np.ones(1000, np.uint8))
        assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="closed"):
        rows[0]


def test_a_full_disk_is_named(monkeypatch):
    full = Path("/dev/full")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full.open("wb"))
    with TileFile() as file, pytest.raises(ConfigError, match=r"is full.*set TMPDIR"):
        file.append(np.ones(100_000, np.uint8))
