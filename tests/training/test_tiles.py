"""Gathering, orienting and normalising tiles."""

import numpy as np
import pytest
import torch

import cropray.core.legend
from cropray.core import sensors
from cropray.training.deep import tiles
from cropray.training.deep.tiles import ChannelStats, TileSet
from tests.training.small_fits import LOOKUP, N_CLASSES, STATS, Block, block, tile_set

CPU = torch.device("cpu")


def test_constants_are_those_of_their_owners():
    assert tiles.IGNORE == cropray.core.legend.IGNORE
    assert tiles.NODATA == sensors.NODATA


def test_normalise_is_per_band_and_missing_is_the_mean():
    x = np.zeros((1, 2, 2, 1, 2), np.uint16)
    x[0, 0, 0, 0] = [100, 300]
    x[0, 1, 1, 0] = [65_535, 0]
    normal = ChannelStats((200.0, 65_535.0), (100.0, 5.0)).normalise(torch.from_numpy(x))
    assert normal.dtype == torch.float32
    assert normal[0, 0, 0, 0].tolist() == [-1.0, 1.0]
    assert normal[0, 1, 1, 0].tolist() == [0.0, 0.0]
    assert normal.count_nonzero() == 2


def test_batches_find_tiles_across_zones():
    first, second = block(0), block(1)
    empty = Block(first.x[:0], first.labels[:0])
    both = TileSet([empty, first, empty, second], LOOKUP, STATS)
    assert len(both) == len(first.x) + len(second.x)
    batch = both.batch(np.array([len(first.x), len(first.x) - 1, len(both) - 1]), CPU)
    assert torch.equal(
        batch.labels, torch.from_numpy(np.stack([second.labels[0], first.labels[-1], second.labels[-1]])).long()
    )
    expected = STATS.normalise(torch.from_numpy(np.stack([second.x[0], first.x[-1], second.x[-1]])))
    assert torch.equal(batch.x, expected)


def test_eight_symmetries_move_inputs_and_labels_alike():
    x = np.arange(1, 17, dtype=np.uint16).reshape(1, 1, 1, 4, 4).repeat(12, 1).repeat(4, 2)
    one = TileSet(
        [Block(x, x[:, 0, 0].astype(np.uint8))],
        np.arange(256, dtype=np.uint8),
        ChannelStats((0.0,) * 4, (1.0,) * 4),
    )
    seen = set()
    for turn in range(8):
        batch = one.batch(np.array([0]), CPU, turn)
        assert torch.equal(batch.x[0, 5, 2], batch.labels[0].float())
        seen.add(tuple(batch.labels.flatten().tolist()))
    assert len(seen) == 8


def test_oblong_tiles_keep_their_shape():
    x = np.arange(1, 9, dtype=np.uint16).reshape(1, 1, 1, 2, 4)
    oblong = TileSet(
        [Block(x, x[:, 0, 0].astype(np.uint8))], np.arange(256, dtype=np.uint8), ChannelStats((0.0,), (1.0,))
    )
    seen = {tuple(oblong.batch(np.array([0]), CPU, turn).labels.flatten().tolist()) for turn in range(8)}
    assert len(seen) == 4


def test_class_counts_are_pixels():
    one = tile_set(0)
    counts = one.class_counts(N_CLASSES)
    assert counts.tolist() == [int((one.blocks[0].labels == i).sum()) for i in range(N_CLASSES)]
    with pytest.raises(ValueError, match=r"\[3\].*only 3 classes"):
        one.class_counts(3)


def test_mismatched_arrays_are_refused():
    good = block(0)
    with pytest.raises(ValueError, match="of the same tiles"):
        TileSet([Block(good.x, good.labels[:1])], LOOKUP, STATS)
    with pytest.raises(ValueError, match="one shape"):
        TileSet([good, block(0, size=12)], LOOKUP, STATS)
