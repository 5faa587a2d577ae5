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
from cropray.storage import as_location, files_below, relative
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


@pytest.fixture(scope="module")
def remote(landscape, server, tmp_path_factory):
    """(config, workspace) of a job that ran on the server while that was busy now and then."""
    folder = tmp_path_factory.mktemp("remote")
    tracking = f"sqlite:///{folder}/mlflow.db"
    content = job(landscape, f"s3://{server.bucket}/job", tracking_uri=tracking)
    config = write_job(content, folder)
    server.fail(20, "/job/", status=503)
    done = cropray("run", config, folder)
    assert done.returncode == 0, done.stderr + done.stdout
    assert server.n_faults_left() == 0
    return config, Workspace(as_location(content["workspace"]))


def test_a_workspace_on_s3_gives_what_one_on_a_disk_gives(finished, remote):
    _, workspace = remote
    local = load_settings(JobConfig, finished).artefacts
    for model in ("cnn", "xgboost"):
        cube = (workspace.evaluation(model) / "cube.npy").read_bytes()
        np.testing.assert_array_equal(np.load(io.BytesIO(cube)), np.load(local.evaluation(model) / "cube.npy"))
        scores = [json.loads((w.evaluation(model) / "scores.json").read_text()) for w in (workspace, local)]
        assert scores[0] == scores[1]
    assert made(workspace.root) == made(local.root)


def made(root):
    """Artefacts by name, but those that other tests change in the job that they share."""
    names = [relative(file, root) for file in files_below(root)]
    folders = ("composites", "labels", "parcels", "dataset/pixels", "dataset/tiles", "search/cnn", "search/xgboost")
    return sorted(name for name in names if name.startswith((*folders, "models", "maps")))


def test_a_second_run_makes_nothing_again(remote, server):
    config, workspace = remote
    start = len(server.requests())
    assert cropray("run", config, config.parent).returncode == 0
    written = {path.partition("/job/")[2] for method, path in server.requests()[start:] if method in {"PUT", "POST"}}
    kept = (
        "composites",
        "labels",
        "parcels",
        "dataset/tiles",
        "dataset/pixels",
        "search/cnn",
        "search/xgboost",
        "maps",
    )
    made_again = {name for name in written if name.startswith(tuple(f"{folder}/" for folder in kept))}
    assert made_again <= {"parcels/coverage.json"}  # the account of all zones is drawn up each time
    assert files_below(workspace.root / "maps")
