"""Registered models in an environment that holds what they ask for, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

from cropray.io.workspace import Workspace
from tests.maps.registered import NAME, predict_elsewhere, register, samples

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("family", ["xgboost", "cnn"])
def test_a_model_predicts_where_only_its_requirements_are_installed(tmp_path, family):
    tracker, trained = register(Workspace(tmp_path / "work"), family)
    mlflow.set_tracking_uri(tracker.uri)
    requirements = mlflow.pyfunc.get_model_dependencies(f"models:/{NAME}@{family}")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True)
    python = tmp_path / "fresh" / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True, env=clean)
    listed = subprocess.run([python, "-m", "pip", "list"], check=True, env=clean, capture_output=True, text=True).stdout
    installed = {line.split()[0].lower() for line in listed.splitlines()}
    assert not installed & {"cropray", "ray", "rasterio", "geopandas", "torch" if family == "xgboost" else "xgboost"}
    Path(tmp_path / "elsewhere").mkdir()
    answer = predict_elsewhere(python, tracker.uri, family, tmp_path / "elsewhere")
    np.testing.assert_allclose(answer, trained.predict_samples(samples(family)), atol=1e-6)
