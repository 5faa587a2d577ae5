"""A network and its recipe that the package has never heard of run a whole job, and its model is served without either."""

import json
import os
import pickle
import subprocess
import sys

import mlflow
import numpy as np
import pytest

from cropray.config import JobConfig
from cropray.core.registry import entries_outside
from cropray.datasets.manifest import load_manifest
from cropray.maps.models import load_model
from cropray.settings import load_settings
from cropray.stages.pipeline import PIPELINE, run_stages
from cropray.tracking.model_code import model_code
from tests.jobs import job, write_job
from tests.maps.registered import REFUSED
from tests.own_entries.recipe import JOB

SEARCH = {"models": ["cnn"], "cnn": {"learning_rate": [0.01], "loss": [JOB["loss"], "cross_entropy"]}}
PREDICT = """
import sys
sys.modules.update(dict.fromkeys({refused!r}))
import mlflow, numpy as np
mlflow.set_tracking_uri({uri!r})
model = mlflow.pyfunc.load_model("models:/small@champion")
np.save("answer.npy", model.predict(np.load("tiles.npy")))
"""


def test_another_process_is_told_with_the_job(tmp_path):
    """Of what this process has registered; the classes travel by their names."""
    assert ("network", "toy_net") in entries_outside()
    code = """
import pickle, sys
job = pickle.load(open(sys.argv[1], "rb"))
print(job.settings_of("cnn").net["name"], "tests.own_entries.net" in sys.modules)
"""
    content = {
        "name": "small", "workspace": "work", "imagery": {"folder": "s"}, "parcels": {"path": "p"},
        "cnn": {"net": JOB["net"]},
    }  # fmt: skip
    for sent in (JobConfig.model_validate(content), JobConfig.model_validate(content).settings_of("cnn")):
        (tmp_path / "sent").write_bytes(pickle.dumps(sent))
        text = code if isinstance(sent, JobConfig) else code.replace('.settings_of("cnn")', "")
        done = subprocess.run(
            [sys.executable, "-c", text, tmp_path / "sent"], capture_output=True, text=True, check=False
        )
        assert done.stdout == "toy_net True\n", done.stderr


def test_a_network_s_module_is_carried_with_the_loader_s():
    code = model_code("cropray.training.cnn.served", ["tests.own_entries.net"])
    assert code.loader == f"{code.package}.training.cnn.served"
    assert f"from {code.package}.nets.registry import" in code.files["plugin/tests/own_entries/net.py"]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_own_entries_run_every_stage(landscape, tmp_path):
    content = job(landscape, tmp_path / "work", search=SEARCH, cnn={**JOB, "loss": "cross_entropy"}, xgboost=None)
    del content["cnn"]["loss"]
    config = write_job(content, tmp_path)
    run_stages(PIPELINE, config, ())
    workspace = load_settings(JobConfig, config).artefacts
    scores = json.loads((workspace.evaluation("cnn") / "scores.json").read_text())
    zones = load_manifest(workspace.manifest).of_split("test")
    assert scores["metrics"]["test_pixels"] == sum(zone.n_labelled for zone in zones)
    assert all(workspace.map("cnn", zone.zone_id).exists() for zone in zones)
    mlflow.set_tracking_uri(f"sqlite:///{workspace.mlflow_database}")
    runs = mlflow.search_runs(experiment_names=["small"], filter_string="tags.`cropray.kind` = 'fold'")
    assert len(runs) == 2 * load_manifest(workspace.manifest).n_folds
    model = load_model(workspace.model("cnn"))
    tiles = np.random.default_rng(0).integers(1, 4000, (3, 12, 4, 16, 16)).astype(np.uint16)
    np.save(tmp_path / "tiles.npy", tiles)
    script = PREDICT.format(refused=[*REFUSED, "tests"], uri=f"sqlite:///{workspace.mlflow_database}")
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=kept, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), model.predict_tiles(tiles), rtol=1e-5, atol=1e-6)
