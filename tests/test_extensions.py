"""What the package has never heard of runs one whole job, to models that are served without it.

A sensor, a source, a feature, a score, a network with its recipe, and a family.
"""

import datetime as dt
import json
import os
import re
import subprocess
import sys

import mlflow
import numpy as np
import pytest
import rasterio

from cropray.config import JobConfig
from cropray.core.grid import Grid
from cropray.datasets.manifest import load_manifest
from cropray.evaluation.models import load_model
from cropray.io.job_file import load_settings
from cropray.stages.pipeline import PIPELINE, run_stages
from tests.jobs import job, write_job
from tests.maps.registered import PREDICT, REFUSED
from tests.own_entries.job import JOB

BANDS = ("T1", "T2", "SCL")


def write_toy_scenes(folder, scenes):
    """The landscape's scenes, of which two bands are the toy sensor's."""
    folder.mkdir()
    for path in sorted(scenes.rglob("*.tif")):
        with rasterio.open(path) as dataset:
            names = list(dataset.descriptions)
            pixels = dataset.read([names.index(name) + 1 for name in ("B4", "B8", "SCL")]).astype(np.uint16)
            grid = Grid.of_transform(dataset.crs.to_epsg(), dataset.transform, dataset.shape)
        stamp = re.search(r"\d{8}T\d{6}", path.stem)[0]
        acquired = dt.datetime.strptime(stamp, "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
        place = np.array([grid.epsg, grid.x_min, grid.y_max, *grid.shape], object)
        np.savez(
            folder / f"{path.stem}.npz", pixels=pixels, bands=BANDS, grid=place, acquired=np.array(acquired, object)
        )
    return folder


SEARCH = {
    "models": ["xgboost", "cnn", "centroid"],
    "objective": "val_balance",
    "xgboost": {"n_estimators": [4], "learning_rate": [0.3]},
    "cnn": {"learning_rate": [0.01], "loss": [JOB["loss"], "cross_entropy"]},
    "centroid": {"reach": [50.0, 200.0, 800.0]},
}
N_TRIALS = {"xgboost": 1, "cnn": 2, "centroid": 3}


@pytest.fixture(scope="module")
def finished(landscape, ray_local, own_data, centroid_family, tmp_path_factory):
    """The workspace of a job of toys."""
    folder = tmp_path_factory.mktemp("toys")
    content = job(
        landscape,
        folder / "work",
        imagery={"source": "toy_scenes", "folder": str(write_toy_scenes(folder / "scenes", landscape.scenes))},
        cube={"bands": ["T2", "T1"]},
        search=SEARCH,
        xgboost={"max_depth": 3, "features": ["bands", "toy_slope"]},
        cnn={name: value for name, value in JOB.items() if name != "loss"},
    )
    config = write_job(content, folder)
    run_stages(PIPELINE, config, ())
    workspace = load_settings(JobConfig, config).artefacts
    mlflow.set_tracking_uri(f"sqlite:///{workspace.mlflow_database}")
    return workspace


pytestmark = [pytest.mark.slow, pytest.mark.ray]


def test_the_dataset_is_of_the_sensor_and_the_source(finished):
    from tests.own_entries.sensor import NEAR, RED

    manifest = load_manifest(finished.manifest)
    assert manifest.cube.bands == (NEAR, RED)
    assert sum(zone.n_labelled for zone in manifest.zones) > 0


@pytest.mark.parametrize("model", SEARCH["models"])
def test_each_family_is_searched_scored_and_mapped(finished, model):
    from tests.own_entries.score import balance  # registered for these tests alone

    scores = json.loads((finished.evaluation(model) / "scores.json").read_text())
    zones = load_manifest(finished.manifest).of_split("test")
    assert scores["metrics"]["test_pixels"] == sum(zone.n_labelled for zone in zones)
    cube = np.load(finished.evaluation(model) / "cube.npy")
    assert scores["metrics"]["test_balance"] == pytest.approx(balance(cube.sum(0), None))
    assert all(finished.map(model, zone.zone_id).exists() for zone in zones)
    kind = f"tags.`cropray.kind` = 'fold' and tags.`cropray.model` = '{model}'"
    folds = mlflow.search_runs(experiment_names=["small"], filter_string=kind)
    assert len(folds) == N_TRIALS[model] * load_manifest(finished.manifest).n_folds
    assert folds["metrics.val_balance"].notna().all()


def test_the_report_shows_them(finished):
    page = (finished.report / "index.html").read_text()
    assert "Recall beyond chance" in page
    assert "Nearest centroid" in page


def test_a_registered_model_has_the_features_and_the_columns(finished):
    from tests.own_entries import feature

    model = load_model(finished.model("xgboost"))
    assert model.features.derived == (feature.ToySlope,)
    assert model.features.columns[-2:] == ("T2_slope", "T1_slope")
    served = mlflow.pyfunc.load_model("models:/small@xgboost")
    names = [column.name for column in served.metadata.get_input_schema().inputs]
    assert names == list(model.columns) == [f"T{b}_{m:02d}" for b in (2, 1) for m in range(1, 13)]


@pytest.mark.parametrize("name", SEARCH["models"])
def test_models_are_served_where_neither_cropray_nor_the_toys_are(finished, tmp_path, name):
    model, rng = load_model(finished.model(name)), np.random.default_rng(0)
    shape = (3, *model.cube.shape, 16, 16) if name == "cnn" else (50, len(model.columns))
    numbers = rng.integers(1, 4000, shape).astype(np.uint16)
    np.save(tmp_path / "samples.npy", numbers)
    script = PREDICT.format(
        refused=[*REFUSED, "tests"],
        uri=mlflow.get_tracking_uri(),
        model=f"models:/small@{name}",
        samples=str(tmp_path / "samples.npy"),
        columns=json.dumps(model.columns),
        answer=str(tmp_path / "answer.npy"),
    )
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=kept, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), model.predict_samples(numbers), rtol=1e-5, atol=1e-6)
