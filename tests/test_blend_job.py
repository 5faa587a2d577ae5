"""A whole job with a family that is built from the others: one table, one registry, and a model served by MLflow alone."""

import io
import json

import mlflow
import numpy as np
import pandas as pd
import pytest

from cropray.config import JobConfig
from cropray.core.progress import Progress
from cropray.datasets.manifest import load_manifest
from cropray.datasets.storage import read_pixels
from cropray.evaluation.models import load_model
from cropray.evaluation.out_of_fold import read_out_of_fold
from cropray.io.job_file import load_settings
from cropray.stages import search
from cropray.stages.pipeline import PIPELINE, run_stages
from cropray.training.blend.mean import average
from cropray.training.pixel_blocks import samples
from tests.jobs import write_job
from tests.test_extension_families import points

SEARCH = {
    "models": ["blend", "xgboost", "forest"],
    "xgboost": {"n_estimators": [2, 4], "learning_rate": [0.3]},
    "forest": {"n_estimators": [8]},
    "leave_region_out": False,
}


@pytest.mark.slow
@pytest.mark.ray
def test_a_mean_of_trees_runs_a_whole_job(ray_local, tmp_path):
    content = {
        "name": "mean", "workspace": str(tmp_path / "work"), "points": points(tmp_path), "search": SEARCH,
        "blend": {"mean": "geometric", "weighting": "greedy"}, "cluster": {"num_cpus": 2, "object_store_gb": 0.2},
    }  # fmt: skip
    config = write_job(content, tmp_path)
    run_stages(tuple(stage for stage in PIPELINE if stage not in ("acquire", "labels", "map", "zones")), config, ())
    job = load_settings(JobConfig, config)
    workspace, manifest = job.artefacts, load_manifest(job.artefacts.manifest)
    scores = {
        model: json.loads((workspace.evaluation(model) / "scores.json").read_text()) for model in SEARCH["models"]
    }
    assert len({found["metrics"]["test_pixels"] for found in scores.values()}) == 1
    assert scores["blend"]["metrics"]["test_accuracy"] > 0.9
    parts = {}
    for model in SEARCH["models"]:
        paths = [workspace.out_of_fold(model, zone.zone_id) for zone in manifest.of_split("train")]
        true, parts[model], _ = read_out_of_fold(paths)
    expected = average("geometric", [1, 1], [parts["xgboost"], parts["forest"]])
    np.testing.assert_array_equal(parts["blend"], expected)
    # All points are kept out of fold: the search's own counts are of the same predictions.
    results = json.loads(workspace.search_result("blend").read_text())
    folds = [json.loads((workspace.unit("blend", name) / "result.json").read_text()) for name in results["units"]]
    hits = sum(np.trace(np.array(result["confusion"])) for (result,) in folds)
    assert hits == (expected.argmax(1) == true).sum()
    mlflow.set_tracking_uri(f"sqlite:///{workspace.mlflow_database}")
    rows = read_pixels(workspace, "t1")
    x = samples(rows, manifest.cube.columns)
    answer = mlflow.pyfunc.load_model("models:/mean@blend").predict(pd.DataFrame(x, columns=manifest.cube.columns))
    np.testing.assert_array_equal(answer.to_numpy(), load_model(workspace.model("blend")).predict_samples(x))
    log = io.StringIO()
    search.run(job, Progress(log))
    assert "up to date and skipped" in log.getvalue()
    assert "units  " not in log.getvalue()  # nothing is fitted or scored again
    assert all(not artefact.why_stale() for artefact in search.artefacts(job))
