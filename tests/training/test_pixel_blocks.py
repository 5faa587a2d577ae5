"""Rows of blocks: shares of workers, class indices, and what is refused."""

import gc
import weakref

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cropray.core.errors import AccountingError, SchemaError
from cropray.core.legend import legend_from_names
from cropray.training.pixel_blocks import (
    PixelBlock,
    TreeData,
    checked_rows,
    class_indices,
    features,
    in_batches,
    worker_rows,
)
from tests.training.tree_rows import draw_rows, tree_data


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 7))
def test_workers_share_every_row_once_and_evenly(sizes: list[int], n_workers: int) -> None:
    blocks = {f"z{i}": PixelBlock(pa.table({}), n) for i, n in enumerate(sizes)}
    data = TreeData(blocks, legend_from_names(["a"]).classes, "")
    shares = [
        [(part.zone_id, row) for part in worker_rows(data, rank, n_workers) for row in range(part.start, part.stop)]
        for rank in range(n_workers)
    ]
    assert [row for share in shares for row in share] == [
        (f"z{i}", row) for i, n in enumerate(sizes) for row in range(n)
    ]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_features_come_in_the_order_of_their_names() -> None:
    rows = draw_rows(0, 7)
    shuffled = rows.select(rows.column_names[::-1])
    np.testing.assert_array_equal(features(shuffled), features(rows))
    assert features(rows).dtype == np.uint16
    np.testing.assert_array_equal(features(rows)[:, 13], rows["B03_02"].to_numpy())


def test_class_ids_become_dense_indices() -> None:
    data = tree_data(a=draw_rows(0, 5))  # the dataset's classes have the ids 0, 2, 3, 4
    rows = pa.table({"label": np.array([0, 4, 2], np.uint8)})
    np.testing.assert_array_equal(class_indices(rows, data.lookup()), [0, 3, 1])


def test_a_class_outside_the_dataset_is_refused() -> None:
    data = tree_data(a=draw_rows(0, 5))
    with pytest.raises(SchemaError, match=r"class ids \[1, 255\]"):
        class_indices(pa.table({"label": np.array([0, 1, 255], np.uint8)}), data.lookup())


def test_lost_rows_are_noticed() -> None:
    rows = draw_rows(0, 5)
    with pytest.raises(AccountingError, match="zone 'a' has 5 rows in its pixel table and 6 in the manifest"):
        checked_rows("a", PixelBlock(rows, 6), rows)


class Rows:
    """As much of a table as batches need; a slice keeps its table alive."""

    def __init__(self, values, parent=None):
        self.values, self.parent = values, parent
        self.num_rows = len(values)

    def slice(self, start, length):
        return Rows(self.values[start : start + length], self)


def test_one_block_is_held_at_a_time(monkeypatch) -> None:
    monkeypatch.setattr("cropray.training.pixel_blocks.BATCH_ROWS", 4)
    alive = weakref.WeakSet()

    def tables():
        for start in (0, 10, 13):
            gc.collect()
            assert not alive, "the block before is still held"
            block = Rows(range(start, 10 if start == 0 else start + 3))
            alive.add(block)
            yield block
            del block

    batches = list(map(lambda rows: list(rows.values), in_batches(tables())))  # noqa: C417 - a loop holds its last batch
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [10, 11, 12], [13, 14, 15]]
