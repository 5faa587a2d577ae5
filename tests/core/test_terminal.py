"""A terminal that does not know all signs gets others, and no command ends by it."""

import io
import os
import subprocess
import sys

import pytest

from cropray.core.terminal import print_with_what_there_is

ROW = "blé d’hiver – Gemüse … 2 × 3 ≥ 5 → œuf 小麦"


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("ascii", "ble d'hiver - Gemuse ... 2 x 3 >= 5 -> oeuf ?"),
        ("iso8859-1", "blé d'hiver - Gemüse ... 2 × 3 >= 5 -> oeuf ?"),
        ("cp1252", "blé d’hiver – Gemüse … 2 × 3 >= 5 -> œuf ?"),
        ("utf-8", ROW),
    ],
)
def test_the_nearest_signs(monkeypatch, encoding, printed):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    print_with_what_there_is()
    for stream in (sys.stdout, sys.stderr):
        print(ROW, file=stream, flush=True)
        assert stream.buffer.getvalue().decode(encoding).rstrip("\n") == printed


def test_a_stream_of_another_kind_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    print_with_what_there_is()
    print(ROW)
    assert sys.stdout.getvalue() == f"{ROW}\n"


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1"])
def test_an_error_with_a_name_that_the_terminal_lacks(tmp_path, encoding):
    command = [sys.executable, "-m", "cropray.cli", "zones", str(tmp_path / "été–小麦.yaml")]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 1
    assert b"does not exist" in done.stderr
    assert b"Traceback" not in done.stderr
