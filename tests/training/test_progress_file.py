"""The file of an unfinished fit: whole, of its job, on a disk and in object storage; anything else is a fit from the start."""

import json
import logging

import numpy as np
import pytest
from upath import UPath

from cropray.training import progress_file
from cropray.training.progress_file import ProgressFile

ARRAYS = {
    "weights": np.arange(12, dtype=np.float32).reshape(3, 4),
    "step": np.array(7, np.int64),
    "turned": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "none": np.zeros((0, 3), np.uint8),
}
STATE = {"epoch": 3, "loss": 0.1 + 0.2, "none": None}


@pytest.fixture(params=["disk", "object storage"])
def path(request, tmp_path):
    return tmp_path / "deep" / "unit" if request.param == "disk" else UPath(f"memory://{tmp_path.name}/deep/unit")


def read(file):
    return file.unpack(file.read())


def test_what_was_kept_comes_back(path):
    file = ProgressFile(path, "job", 1)
    assert read(file) is None
    file.save({"weights": np.zeros(3)}, {"epoch": 2})
    file.save(ARRAYS, STATE)
    saved = read(file)
    assert saved.state == STATE
    assert saved.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert saved.arrays[name].dtype == array.dtype
        assert np.array_equal(saved.arrays[name], array)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_another_job_starts_again(path, caplog):
    ProgressFile(path, "job", 1).save(ARRAYS, STATE)
    with caplog.at_level(logging.WARNING):
        assert read(ProgressFile(path, "another", 1)) is None
    assert "of another job" in caplog.text


def test_every_cut_and_every_flipped_bit_is_damage(tmp_path, caplog):
    file = ProgressFile(tmp_path / "unit", "job", 1)
    file.save(ARRAYS, STATE)
    whole = file.path.read_bytes()
    damaged = [whole[:n] for n in range(len(whole))]
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        damaged.append(bytes(flipped))
    for data in damaged:
        saved = file.unpack(data)
        if saved is not None:  # a flip that changes nothing, such as padding
            assert saved.state == STATE
            assert all(np.array_equal(saved.arrays[name], array) for name, array in ARRAYS.items())
    assert sum(file.unpack(data) is None for data in damaged) > len(damaged) - 16
    assert "damaged" in caplog.text


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, b"no safetensors at all", json.dumps(STATE).encode()])
def test_something_else_is_damage(tmp_path, data):
    (tmp_path / "unit").write_bytes(data)
    assert read(ProgressFile(tmp_path / "unit", "job", 1)) is None


def test_a_file_that_cannot_be_written_or_read_ends_no_fit(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    ProgressFile(tmp_path / "file" / "unit", "job", 1).save(ARRAYS, STATE)
    assert "cannot be kept" in caplog.text
    assert read(ProgressFile(tmp_path, "job", 1)) is None
    assert "cannot be read" in caplog.text


def test_a_store_that_is_away_is_not_asked_at_every_turn(tmp_path, monkeypatch):
    clock, asked = [100.0], []

    class Away(type(tmp_path)):
        def with_name(self, name):
            asked.append(clock[0])
            clock[0] += 30.0  # it takes that long to give up
            raise ConnectionError("away")

    monkeypatch.setattr(progress_file.time, "monotonic", lambda: clock[0])
    file = ProgressFile(Away(tmp_path / "unit"), "job", 1)
    while clock[0] < 2000:
        file.save(ARRAYS, STATE)
        clock[0] += 10.0  # an epoch
    assert asked == list(range(100, 2000, 150))
