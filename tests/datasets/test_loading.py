"""Reading a dataset whose readers are lost."""

import pytest
import ray

from cropray.core.errors import SchemaError
from cropray.datasets import loading


@pytest.fixture
def losses(monkeypatch):
    """A read that loses its process so many times; the calls."""
    calls = []

    def lose(n):
        def read(files, _columns):
            calls.append(files)
            if len(calls) <= n:
                raise ray.exceptions.WorkerCrashedError
            return ["block"], [["a"]]

        monkeypatch.setattr(loading, "_read_once", read)
        return calls

    return lose


def test_a_reader_that_is_lost_is_replaced_and_the_loss_is_logged(losses, caplog):
    calls = losses(loading.READ_ATTEMPTS - 1)
    assert loading._read(["shard"], ["label"]) == (["block"], [["a"]])
    assert len(calls) == loading.READ_ATTEMPTS
    assert len(caplog.records) == loading.READ_ATTEMPTS - 1


def test_what_fails_every_time_ends_the_search_and_is_named(losses, tmp_path):
    (tmp_path / "part-0.parquet").write_bytes(b"PAR1")
    calls = losses(99)
    with pytest.raises(SchemaError, match=r"shard '.*part-0.parquet' cannot be read \(.*died.*\), 3 times"):
        loading._read([tmp_path / "part-0.parquet"], ["label"])
    assert len(calls) == loading.READ_ATTEMPTS


def test_only_failures_of_reading_are_tried_again(monkeypatch):
    def wrong(_files, _columns):
        raise TypeError("a mistake of ours")

    monkeypatch.setattr(loading, "_read_once", wrong)
    with pytest.raises(TypeError):
        loading._read(["shard"], ["label"])
