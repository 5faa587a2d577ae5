"""A whole job whose workspace lies on an S3 server gives what one on a disk gives."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cropray.config import JobConfig
from cropray.settings import load_settings
from cropray.storage import as_location, content_id, files_below, relative
from cropray.workspace import Workspace
from tests.jobs import job, write_job
from tests.servers.s3 import S3Server

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture(scope="module")
def server():
    with S3Server() as running, running.in_environment():
        yield running


def cropray(command, config, folder):
    """The command line in a process and a folder of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    line = [sys.executable, "-m", "cropray.cli", command, str(config)]
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def remote_job(landscape, server, tmp_path, name):
    tracking = f"sqlite:///{tmp_path}/mlflow.db"
    content = job(landscape, f"s3://{server.bucket}/{name}", tracking_uri=tracking)
    return write_job(content, tmp_path), Workspace(as_location(content["workspace"]))


def test_a_workspace_on_s3_gives_what_one_on_a_disk_gives(finished, landscape, server, tmp_path):
    config, workspace = remote_job(landscape, server, tmp_path, "whole")
    server.fail(20, "/whole/", status=503)
    done = cropray("run", config, tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert server.n_faults_left() == 0
    local = load_settings(JobConfig, finished).artefacts
    for model in ("cnn", "xgboost"):
        cube = (workspace.evaluation(model) / "cube.npy").read_bytes()
        np.testing.assert_array_equal(np.load(io.BytesIO(cube)), np.load(local.evaluation(model) / "cube.npy"))
        scores = [json.loads((w.evaluation(model) / "scores.json").read_text()) for w in (workspace, local)]
        assert scores[0] == scores[1]
    assert made(workspace.root) == made(local.root)
    assert not list(tmp_path.glob("cropray-*"))


def made(root):
    """Artefacts by name; hidden files and the local store are no artefacts."""
    names = [relative(file, root) for file in files_below(root)]
    own = ("search/.tune", "mlflow.db", "mlartifacts", "timings", "logs", "configs")
    return sorted(name for name in names if not name.startswith(own))


def test_a_second_run_makes_nothing_again(landscape, server, tmp_path):
    config, workspace = remote_job(landscape, server, tmp_path, "again")
    assert cropray("run", config, tmp_path).returncode == 0
    kept = ("composites", "labels", "dataset", "search/cnn", "search/xgboost", "models", "maps")
    before = {str(f): content_id(f) for f in files_below(workspace.root) if relative(f, workspace.root).startswith(kept)}
    start = len(server.requests())
    assert cropray("run", config, tmp_path).returncode == 0
    after = {str(f): content_id(f) for f in files_below(workspace.root) if relative(f, workspace.root).startswith(kept)}
    assert after == before
    writes = [path for method, path in server.requests()[start:] if method in {"PUT", "POST"}]
    assert not [path for path in writes if any(f"/again/{part}/" in path for part in ("composites", "labels", "dataset/tiles"))]
