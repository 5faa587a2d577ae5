"""A whole job on points that have weights and static features, to a registered model that answers by named columns."""

import json

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.exceptions import MlflowException

from cropray.config import JobConfig
from cropray.core.errors import ConfigError
from cropray.core.progress import Progress
from cropray.datasets.manifest import load_manifest
from cropray.datasets.storage import read_pixels
from cropray.evaluation.models import load_model
from cropray.io.job_file import load_settings
from cropray.stages import dataset, search
from cropray.stages.pipeline import run_stages
from cropray.training import family as families
from tests.jobs import write_job
from tests.nearest_centroid import family as toy

ZONES = {f"z{i}": ("north" if i % 2 else "south", "test" if i > 5 else "train") for i in range(8)}
N = 60


def write_table(path, weight):
    """Bands of chance; crops change with the elevation. Of three quarters of the rows the label is a wrong one."""
    rng = np.random.default_rng(3)
    zone_id = np.repeat([*ZONES], N)
    elevation = rng.uniform(-20, 900, len(zone_id))
    label = np.where(elevation < 300, "rice", np.where(elevation < 600, "maize", "hay"))
    is_wrong = (np.arange(len(zone_id)) % 4 > 0) & np.array([ZONES[zone][1] == "train" for zone in zone_id])
    columns = {
        "zone_id": zone_id, "region": [ZONES[z][0] for z in zone_id], "split": [ZONES[z][1] for z in zone_id],
        "label": np.where(is_wrong, "hay", label), "lon": 1.0 + np.repeat(np.arange(8), N) * 0.2, "lat": np.full(8 * N, 44.0),
        "elevation": elevation,
        **{f"B0{band}_0{step}": rng.integers(200, 4000, 8 * N) for band in (4, 8) for step in (1, 2)},
        "weight": np.where(is_wrong, weight, 1.0),
    }  # fmt: skip
    pq.write_table(pa.table(columns), path)


def content(folder, models):
    return {
        "name": "hills", "workspace": str(folder / "work"), "cube": {"bands": ["B04", "B08"], "months": 2},
        "points": {
            "path": str(folder / "points.parquet"),
            "static": [{"id": "elevation", "unit": "m", "scale": 0.1, "offset": -500}],
        },
        "cluster": {"num_cpus": 2, "object_store_gb": 0.2},
        "search": {"models": models, "xgboost": {"n_estimators": [12], "learning_rate": [0.4]}},
        "xgboost": {"max_depth": 3, "features": ["ndvi", "bands"]},
    }  # fmt: skip


def test_a_family_that_cannot_weigh_is_refused_where_there_are_weights(tmp_path, monkeypatch):
    monkeypatch.setitem(families._REGISTERED, "centroid", toy.FAMILY)
    write_table(tmp_path / "points.parquet", weight=0.5)
    job = JobConfig.model_validate(content(tmp_path, ["centroid"]))
    dataset.run(job, Progress())
    with pytest.raises(
        ConfigError, match=r"column 'weight', and centroid cannot weigh them: take them out of search\.models"
    ):
        search.run(job, Progress())


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_points_with_weights_and_static_features_to_a_served_model(tmp_path):
    config = write_job(content(tmp_path, ["xgboost"]), tmp_path)
    write_table(tmp_path / "points.parquet", weight=0.01)
    run_stages(("dataset", "search", "evaluate", "report"), config, ())
    workspace = load_settings(JobConfig, config).artefacts
    scores = json.loads((workspace.evaluation("xgboost") / "scores.json").read_text())
    assert scores["metrics"]["test_pixels"] == 2 * N
    assert scores["metrics"]["test_accuracy"] > 0.9  # without weights it would learn that all is hay
    manifest = load_manifest(workspace.manifest)
    assert manifest.is_weighted
    assert any("by the column weight (0.01 to 1)" in note for note in manifest.notes)
    assert (
        "5 features per pixel (2 months × 2 bands, and static elevation)"
        in (workspace.report / "index.html").read_text()
    )

    mlflow.set_tracking_uri(f"sqlite:///{workspace.mlflow_database}")
    served = mlflow.pyfunc.load_model("models:/hills@champion")
    names = ["B04_01", "B04_02", "B08_01", "B08_02", "elevation"]
    assert served.metadata.signature.inputs.input_names() == names
    assert served.metadata.metadata["static"] == ["elevation"]
    rows = read_pixels(workspace, "z7", manifest.cube).to_pandas()
    expected = load_model(workspace.model("xgboost")).predict_samples(rows[names].to_numpy())
    answer = served.predict(rows[["elevation", "B08_02", "n_clear", "B04_01", "B08_01", "B04_02"]])
    np.testing.assert_array_equal(answer.to_numpy(), expected)
    with pytest.raises(MlflowException, match=r"missing inputs \['elevation'\]"):
        served.predict(rows.drop(columns="elevation"))
