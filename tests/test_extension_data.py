"""A sensor, a source, a feature and a score that the package has never heard of run a whole job, to a registered model."""

import datetime as dt
import json
import re

import mlflow
import numpy as np
import pytest
import rasterio

from cropray.config import JobConfig
from cropray.datasets.manifest import load_manifest
from cropray.grid import Grid
from cropray.maps.models import load_model
from cropray.settings import load_settings
from cropray.stages.pipeline import PIPELINE, run_stages
from tests.jobs import job, write_job

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
    from tests.own_entries import data

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
