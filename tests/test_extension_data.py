"""A sensor, a source, a feature and a score that the package has never heard of run a whole job, to a registered model."""

import datetime as dt
import json
import os
import re
import subprocess
import sys

import mlflow
import numpy as np
import pandas as pd
import pytest
import rasterio

from cropray.config import JobConfig
from cropray.datasets.manifest import load_manifest
from cropray.grid import Grid
from cropray.maps.models import load_model
from cropray.settings import load_settings
from cropray.stages.pipeline import PIPELINE, run_stages
from tests.jobs import job, write_job
from tests.maps.registered import REFUSED
from tests.test_extension_families import PREDICT

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


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_own_entries_of_data_run_every_stage(landscape, tmp_path):
    from tests.own_entries import data, feature

    scenes = write_toy_scenes(tmp_path / "toys", landscape.scenes)
    content = job(
        landscape,
        tmp_path / "work",
        imagery={"source": "toy_scenes", "folder": str(scenes)},
        cube={"bands": ["T2", "T1"]},
        search={
            "models": ["xgboost"],
            "objective": "val_balance",
            "xgboost": {"n_estimators": [4], "learning_rate": [0.3]},
        },
        xgboost={"max_depth": 3, "features": ["bands", "toy_slope"]},
        cnn=None,
    )
    config = write_job(content, tmp_path)
    run_stages(PIPELINE, config, ())
    workspace = load_settings(JobConfig, config).artefacts
    manifest = load_manifest(workspace.manifest)
    assert manifest.cube.bands == (data.NEAR, data.RED)
    zone = manifest.of_split("test")[0]
    scores = json.loads((workspace.evaluation("xgboost") / "scores.json").read_text())
    cube = np.load(workspace.evaluation("xgboost") / "cube.npy")
    assert scores["metrics"]["test_balance"] == pytest.approx(data.balance(cube.sum(0), None))
    assert "Recall beyond chance" in (workspace.report / "index.html").read_text()
    mlflow.set_tracking_uri(f"sqlite:///{workspace.mlflow_database}")
    folds = mlflow.search_runs(experiment_names=["small"], filter_string="tags.`cropray.kind` = 'fold'")
    assert folds["metrics.val_balance"].notna().all()
    registered = mlflow.pyfunc.load_model("models:/small@champion")
    names = [column.name for column in registered.metadata.get_input_schema().inputs]
    assert (
        names
        == list(load_model(workspace.model("xgboost")).columns)
        == [f"T{b}_{m:02d}" for b in (2, 1) for m in range(1, 13)]
    )
    assert workspace.map("xgboost", zone.zone_id).exists()
    model = load_model(workspace.model("xgboost"))
    assert model.features.columns[-2:] == ("T2_slope", "T1_slope")
    assert model.features.derived == (feature.ToySlope,)
    require_served_elsewhere(workspace, model, tmp_path)


def require_served_elsewhere(workspace, model, folder):
    """MLflow's version of the model answers as the workspace's where neither cropray nor the toys are."""
    numbers = np.random.default_rng(0).integers(0, 4000, (50, len(model.columns))).astype(np.uint16)
    table = pd.DataFrame(numbers, columns=list(model.columns))
    table.to_parquet(folder / "table.parquet")
    script = PREDICT.format(
        refused=[*REFUSED, "tests"],
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
    np.testing.assert_array_equal(np.load(folder / "answer.npy"), model.predict_samples(numbers))
