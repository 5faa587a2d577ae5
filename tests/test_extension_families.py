"""A family that the package has never heard of runs a whole job, registered by a script or installed as a plug-in."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from cropray.config import JobConfig
from cropray.core.errors import ConfigError
from cropray.datasets.storage import read_pixels
from cropray.io.job_file import load_settings
from cropray.io.workspace import Workspace
from cropray.stages.pipeline import PIPELINE, check_job
from cropray.tracking.model_code import model_code
from cropray.tracking.outages import RefusedError
from cropray.training import family as families
from cropray.training.pixel_blocks import features
from tests.jobs import job, write_job
from tests.maps.registered import REFUSED
from tests.nearest_centroid import served
from tests.study import FEATURE_COLUMNS
from tests.training.pixel_fits import fit_job

ROOT = Path(__file__).resolve().parents[1]
SEARCH = {"models": ["centroid"], "centroid": {"reach": [50.0, 200.0, 800.0]}}
PREDICT = """
import sys
sys.modules.update(dict.fromkeys({refused!r}))
import mlflow, numpy as np, pandas as pd
mlflow.set_tracking_uri({uri!r})
model = mlflow.pyfunc.load_model({model!r})
np.save({answer!r}, model.predict(pd.read_parquet({table!r})).to_numpy())
"""


def require_served_elsewhere(workspace, table, folder):
    """MLflow's version of the model answers as the workspace's, in a process without cropray, Ray and the toy."""
    table = pd.DataFrame(features(table), columns=list(FEATURE_COLUMNS))
    table.to_parquet(folder / "table.parquet")
    script = PREDICT.format(
        refused=[*REFUSED, "tests", "crop_centroids"],
        uri=f"sqlite:///{workspace.mlflow_database}",
        model="models:/small@champion",
        answer=str(folder / "answer.npy"),
        table=str(folder / "table.parquet"),
    )
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=folder, env=kept, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    expected = served.read(workspace.model("centroid")).predict(table.to_numpy())
    np.testing.assert_array_equal(np.load(folder / "answer.npy"), expected)


@pytest.mark.usefixtures("centroid_family")
def test_a_worker_is_told_of_a_registered_family_with_its_job_and_its_fit(tmp_path):
    content = {"name": "small", "workspace": str(tmp_path), "points": {"path": str(tmp_path)}, "search": SEARCH}
    sent = JobConfig.model_validate({**content, "centroid": {"trim": 0.1}})
    fit = fit_job(sent.settings_of("centroid"), tmp_path / "model")
    (tmp_path / "sent").write_bytes(ray.cloudpickle.dumps((sent, families.family("centroid"), fit)))
    (tmp_path / "cropray").symlink_to(ROOT / "cropray")  # and no tests beside it
    code = """
import pickle
job, family, fit = pickle.load(open("sent", "rb"))
(score,) = family.fit(fit)
print(job.search.models, job.settings_of("centroid").trim, score.confusion.sum(), family.load(fit.folder, "cpu").loader)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout == "('centroid',) 0.1 501 tests.nearest_centroid.served\n", done.stderr


def points(folder):
    """Five zones, ten kilometres apart, of 40 points of two crops."""
    rng, n = np.random.default_rng(0), 200
    zones = np.repeat(["k1", "k2", "k3", "k4", "t1"], 40)
    label = np.tile(["wheat", "maize"], n // 2)
    columns = {
        "zone_id": zones, "region": np.full(n, "plain"), "split": np.where(zones == "t1", "test", "train"),
        "label": label, "lon": 5 + 0.2 * np.unique(zones, return_inverse=True)[1] + rng.random(n) / 100,
        "lat": 45 + rng.random(n) / 100,
    }  # fmt: skip
    for i, name in enumerate(FEATURE_COLUMNS):
        level = 1000 + 40 * (i % 12) + 700 * (label == "maize") * (i % 12 > 6)
        columns[name] = (level + rng.normal(0, 300, n)).clip(1).astype(np.uint16)
    pq.write_table(pa.table(columns), folder / "points.parquet")
    return {"path": str(folder / "points.parquet")}


@pytest.mark.slow
def test_a_plug_in_is_found_by_its_entry_point(tmp_path):
    installed = tmp_path / "site"
    shutil.copytree(ROOT / "tests" / "nearest_centroid", installed / "crop_centroids")
    (info := installed / "crop_centroids-1.0.dist-info").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crop-centroids\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cropray.families]\ncentroid = crop_centroids.family:FAMILY\n")
    content = {
        "name": "small", "workspace": str(tmp_path / "work"), "points": points(tmp_path), "search": SEARCH,
        "cluster": {"num_cpus": 2, "object_store_gb": 0.2},
    }  # fmt: skip
    config = write_job(content, tmp_path)
    path = os.pathsep.join([str(installed), str(ROOT)])
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "cropray.cli", "run", str(config)]
    environment = {**kept, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    workspace = Workspace(tmp_path / "work")
    scores = json.loads((workspace.evaluation("centroid") / "scores.json").read_text())
    assert scores["metrics"]["test_accuracy"] > 0.9
    require_served_elsewhere(workspace, read_pixels(workspace, "t1"), tmp_path)


def test_a_family_without_its_library_is_refused_before_anything_runs(landscape, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    content = job(landscape, tmp_path / "work", search={"models": ["xgboost", "lightgbm"]}, cnn=None)
    found = load_settings(JobConfig, write_job(content, tmp_path))
    with pytest.raises(ConfigError, match=r"pip install 'cropray\[lightgbm\]', or take lightgbm out of search\.models"):
        check_job(found, PIPELINE)
    check_job(found, ("zones", "acquire", "labels", "dataset"))


def test_a_job_is_read_without_the_libraries_of_optional_families():
    code = "import sys; sys.modules.update(lightgbm=None, sklearn=None); from cropray.training.family import families; "
    code += "import cropray.config; print(*families(), 'xgboost' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["xgboost", "cnn", "lightgbm", "forest", "temp_cnn", "blend", "False"]


def test_a_family_is_named_by_its_own_folder_and_one_list():
    for name in ("lightgbm", "forest"):
        named = {
            path.relative_to(ROOT / "cropray").as_posix()
            for path in (ROOT / "cropray").rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text()))
            if (isinstance(node, ast.Constant) and node.value == name)
            or (isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"cropray.training.{name}"))
        }
        assert {path for path in named if not path.startswith(f"training/{name}/")} == {"training/family.py"}


def test_a_loader_s_code_is_carried_with_its_own_package():
    code = model_code("tests.nearest_centroid.served")
    assert code.loader == f"{code.package}.plugin.tests.nearest_centroid.served"
    assert {"core/cube.py", "training/serving.py", "plugin/tests/nearest_centroid/served.py"} <= code.files.keys()
    assert {line.partition("==")[0] for line in code.requirements} == {"numpy", "pandas"}
    for nowhere in ("crop_nothing.served", "os", "json.decoder", "tests.nearest_centroid.none", "a-b", "../cropray"):
        with pytest.raises(RefusedError, match="is not at hand"):
            model_code(nowhere)
