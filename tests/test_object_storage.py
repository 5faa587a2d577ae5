"""A whole job whose workspace or raw inputs lie on an S3 server gives what one on a disk gives."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from cropray.config import JobConfig
from cropray.datasets.schema import pixel_schema
from cropray.io.job_file import load_settings
from cropray.io.storage import as_location, file_hash, files_below, relative, whole_file
from cropray.io.workspace import Workspace
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


RUN_STAGES = "import sys; from cropray.stages.pipeline import run_stages; run_stages(sys.argv[2:], sys.argv[1], ())"
LOAD_PIXELS = """
import sys, ray
from cropray.cluster.settings import ClusterSettings
from cropray.datasets.loading import load_pixels
from cropray.cluster.session import ray_session
from cropray.io.storage import as_location
from cropray.io.workspace import Workspace

with ray_session(ClusterSettings(num_cpus=2, object_store_gb=0.2)):
    print(ray.get(load_pixels(Workspace(as_location(sys.argv[1])), ["a-1"])["a-1"]).num_rows)
"""


def python(code, *arguments):
    """Python in a process of its own, whose Ray knows the server."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    line = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_raw_inputs_on_s3_give_the_dataset_that_those_on_a_disk_give(landscape, finished, server, tmp_path):
    raw = as_location(f"s3://{server.bucket}/raw")
    for file in files_below(landscape.folder):
        raw.fs.put_file(str(file), (raw / relative(file, landscape.folder)).path)
    places = [
        f"{raw}/{relative(place, landscape.folder)}" for place in (landscape.zones, landscape.scenes, landscape.parcels)
    ]
    inputs = {"zone_table": places[0], "imagery": {"folder": places[1]}, "parcels": {"path": places[2]}}
    (raw / "job.yaml").write_text(yaml.safe_dump(job(landscape, tmp_path / "work", **inputs)))
    server.fail(4, "/raw/", status=503)
    server.fail(2, ".tif", method="GET", wait_s=0.5)
    server.fail(2, ".tif", method="GET", keep=0.5)
    python(RUN_STAGES, f"{raw}/job.yaml", "acquire", "labels", "dataset")
    assert server.n_faults_left() == 0
    local = load_settings(JobConfig, finished).artefacts.root
    for part in ("composites", "labels", "parcels", "dataset/pixels", "dataset/tiles"):
        ours, theirs = (
            {file.name: file_hash(file) for file in files_below(root / part)} for root in (tmp_path / "work", local)
        )
        assert ours == theirs
        assert ours


def test_trees_fetch_only_the_columns_that_they_learn_from(server):
    workspace = Workspace(as_location(f"s3://{server.bucket}/wide"))
    rng, n = np.random.default_rng(0), 100_000
    heavy = {"parcel", "row", "col"}
    columns = [
        rng.integers(0, 30_000, n) if field.name in heavy else ["a-1" if field.type == pa.string() else 1] * n
        for field in pixel_schema()
    ]
    arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, pixel_schema(), strict=True)]
    with whole_file(workspace.pixels("a-1") / "part-0.parquet") as path:
        pq.write_table(pa.table(arrays, schema=pixel_schema()), path)
        size = path.stat().st_size
    assert python(LOAD_PIXELS, str(workspace.root)).split()[-1] == str(n)
    assert 0 < server.n_sent("/wide/") < 0.5 * size
