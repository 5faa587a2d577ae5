"""The checks of a GPU: on one where there is one; and that the script runs without it and without cropray's libraries."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cropray.core.legend import IGNORE
from cropray.training import pixel_blocks
from cropray.training.deep import tiles
from tests.gpu import __main__ as script
from tests.gpu import checks
from tests.gpu.drawn import FULL

ROOT = Path(__file__).resolve().parents[2]
# What a machine for GPUs has: torch, numpy, xgboost and what they require. Nothing else is found.
HIDE = """
import sys

class Hide:
    there = {*sys.stdlib_module_names, 'cropray', 'tests', 'torch', 'torchgen', 'functorch', 'numpy', 'xgboost', 'scipy',
             'sympy', 'mpmath', 'networkx', 'jinja2', 'markupsafe', 'filelock', 'fsspec', 'typing_extensions'}
    finders = list(sys.meta_path)

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition('.')[0] not in cls.there and not name.startswith('_'):
            return None
        found = (finder.find_spec(name, path, target) for finder in cls.finders)
        return next((spec for spec in found if spec is not None), None)

sys.meta_path[:] = [Hide]
"""


def run(folder, *arguments):
    """The script as a process of its own that finds torch, numpy and xgboost only; its document and exit code."""
    (folder / "sitecustomize.py").write_text(HIDE)
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}
    command = [sys.executable, "-m", "tests.gpu", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.returncode


def test_nothing_else_is_found(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-c", "import numpy, cropray.training.pixel_blocks, pyarrow"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'pyarrow'"


@pytest.mark.slow
def test_the_script_needs_torch_numpy_and_xgboost_only(tmp_path):
    document, code = run(tmp_path, "--cpu")
    assert code == 0, document
    assert set(document["checks"]) == set(script.CHECKS)
    assert all(check["ok"] for check in document["checks"].values())
    # The CPU is equal to itself; two processes are equal to one but for rounding.
    found = document["checks"]
    assert found["loop"]["float32"]["measured"]["gradient"] == 0
    assert found["windows"]["measured"]["probability"] == 0
    assert found["windows"]["measured"]["accuracy_of_the_map"] > 0.25  # of six classes
    assert found["trees"]["measured"]["same_bits_when_repeated"]
    assert 0 < found["two_processes"]["measured"]["output"] < 1e-5


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_script_says_why_it_skips(tmp_path):
    document, code = run(tmp_path)
    assert code == 0
    assert "sees no CUDA device" in document["skipped"]
    assert document["machine"]["torch"] == torch.__version__


def test_what_is_out_of_tolerance_fails():
    assert checks.result({"loss": 0.2, "equal": 0.9999}, loss=0.2, least_equal=0.999)["ok"]
    failed = checks.result({"loss": 0.21, "equal": 0.99}, loss=0.2, least_equal=0.999)
    assert (failed["ok"], failed["out_of_tolerance"]) == (False, ["loss", "least_equal"])
    assert not checks.result({"loss": float("nan")}, loss=1)["ok"]


def test_what_cannot_run_is_told(monkeypatch):
    device = torch.device("cpu")
    monkeypatch.setattr(checks, "windows", lambda *_: 1 / 0)
    assert script._run("windows", device, script.time.monotonic())["error"].startswith("ZeroDivisionError")
    assert "left" in script._run("windows", device, script.time.monotonic() - script.BUDGET_S)["skipped"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "xgboost" in script._run("trees", device, script.time.monotonic())["skipped"]


def test_one_number_marks_what_has_no_class():
    assert pixel_blocks.IGNORE == tiles.IGNORE == IGNORE


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
@pytest.mark.parametrize("name", ["loop", "resume", "batch_norm", "two_processes", "windows", "trees"])
def test_a_gpu_computes_what_the_cpu_does(name):
    found = getattr(checks, name)(FULL, torch.device("cuda"))
    assert found["ok"], found
