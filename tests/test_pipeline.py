"""Every stage on a drawn landscape: what is written, what is skipped, and what an interruption costs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import yaml

from cropray.config import JobConfig
from cropray.core.metrics import confusion
from cropray.datasets.manifest import classes_only_in_test, load_manifest
from cropray.io.job_file import load_settings
from cropray.stages.pipeline import PIPELINE, run_stages
from tests.jobs import job, write_job

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.ray]


def workspace_of(config):
    return load_settings(JobConfig, config).artefacts


def scores(config, model):
    return json.loads((workspace_of(config).evaluation(model) / "scores.json").read_text())


def times(folder, pattern):
    return {path: path.stat().st_mtime_ns for path in folder.rglob(pattern)}


@pytest.mark.parametrize("model", ["cnn", "xgboost"])
def test_the_cube_holds_every_labelled_test_pixel_once(finished, model):
    workspace = workspace_of(finished)
    manifest = load_manifest(workspace.manifest)
    cube = np.load(workspace.evaluation(model) / "cube.npy")
    by_zone = dict(zip(scores(finished, model)["zone_ids"], cube.sum((1, 2)).tolist(), strict=True))
    # The manifest was counted from label rasters, the cube from pixel tables and tiles.
    assert by_zone == {zone.zone_id: zone.n_labelled for zone in manifest.of_split("test")}
    n_untrained = sum(classes_only_in_test(manifest.zones).values())
    assert scores(finished, model)["metrics"]["test_untrained_pixels"] == n_untrained


@pytest.mark.parametrize("model", ["cnn", "xgboost"])
def test_the_cube_is_counted_from_the_maps(finished, model):
    workspace = workspace_of(finished)
    manifest = load_manifest(workspace.manifest)
    cube, lookup = np.load(workspace.evaluation(model) / "cube.npy"), manifest.lookup()
    for matrix, zone_id in zip(cube, scores(finished, model)["zone_ids"], strict=True):
        with rasterio.open(workspace.map(model, zone_id)) as dataset:
            mapped = dataset.read(1)
        table = pq.read_table(workspace.pixels(zone_id))
        row, col, label = (table[name].to_numpy() for name in ("row", "col", "label"))
        expected = confusion(lookup[label], lookup[mapped[row, col]], manifest.n_classes)
        np.testing.assert_array_equal(matrix, expected)


def test_two_test_zones_have_no_intervals(finished):
    found = scores(finished, "xgboost")
    assert found["intervals"] is None
    assert found["no_intervals"] == "2 test zones, an interval needs 5 or more"
    assert len(found["regions"]) == 2
    assert not [key for _, key in tracked(workspace_of(finished)) if key.endswith(("_low", "_high"))]


def test_pixel_tables_and_tiles_hold_the_same_pixels(finished):
    workspace = workspace_of(finished)
    for zone in load_manifest(workspace.manifest).zones:
        rows = sum(len(pq.ParquetFile(f).read()) for f in workspace.pixels(zone.zone_id).glob("*.parquet"))
        shards = [pq.ParquetFile(f).read(columns=["labels"]) for f in workspace.tiles(zone.zone_id).glob("*.parquet")]
        labelled = sum((shard["labels"].combine_chunks().to_numpy_ndarray() != 255).sum() for shard in shards)
        assert rows == labelled == zone.n_labelled


def test_maps_are_cogs_on_the_zone_grid(finished):
    workspace = workspace_of(finished)
    maps = sorted((workspace.root / "maps").rglob("*.tif"))
    assert len(maps) == 4  # two models × two test zones
    for path in maps:
        with rasterio.open(path) as dataset, rasterio.open(workspace.composite(path.stem)) as composite:
            assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert (dataset.crs, dataset.transform, dataset.shape) == (
                composite.crs,
                composite.transform,
                composite.shape,
            )


def test_runs_form_a_tree_and_the_champions_load_without_pickle(finished):
    workspace = workspace_of(finished)
    client = mlflow.MlflowClient(f"sqlite:///{workspace.mlflow_database}")
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    kinds = [run.data.tags["cropray.kind"] for run in runs]
    # XGBoost: 2 configurations × 3 folds; CNN: 1 × 3.
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "search": 2,
        "configuration": 3,
        "fold": 9,
        "evaluate": 2,
    }
    assert {run.info.status for run in runs} == {"FINISHED"}
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs if run.data.tags["cropray.kind"] == "fold"}
    assert parents == {run.info.run_id for run in runs if run.data.tags["cropray.kind"] == "configuration"}
    searches = {run.info.run_id for run in runs if run.data.tags["cropray.kind"] == "search"}
    tests = [run for run in runs if run.data.tags["cropray.kind"] == "evaluate"]
    assert {run.data.tags["mlflow.parentRunId"] for run in tests} == searches
    aliases = client.get_registered_model("small").aliases
    assert sorted(aliases) == ["champion", "cnn", "xgboost"]
    assert aliases["champion"] in (aliases["cnn"], aliases["xgboost"])
    assert not [p for p in workspace.mlflow_artifacts.rglob("*") if p.suffix in {".pkl", ".pickle", ".pt", ".pth"}]


def tracked(workspace):
    """(run, metric) → number of values, of every run of the experiment."""
    client = mlflow.MlflowClient(f"sqlite:///{workspace.mlflow_database}")
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id], max_results=100)
    return {
        (run.info.run_id, key): len(client.get_metric_history(run.info.run_id, key))
        for run in runs
        for key in run.data.metrics
    }


def test_a_second_run_makes_nothing_again(finished):
    workspace = workspace_of(finished)
    metrics = tracked(workspace)
    patterns = ("*.tif", "*.parquet", "result.json", "*.ubj", "*.safetensors", "scores.json")
    before = {pattern: times(workspace.root, pattern) for pattern in patterns}
    run_stages(PIPELINE[:-1], finished, ())
    assert {pattern: times(workspace.root, pattern) for pattern in patterns} == before
    assert tracked(workspace) == metrics


def test_another_seed_is_other_units_and_the_first_ones_stay(finished, tmp_path):
    workspace = workspace_of(finished)
    before = times(workspace.root / "search", "result.json")
    units = {path.parent.name for path in before}
    content = yaml.safe_load(finished.read_text())
    content |= {"seed": 1, "search": content["search"] | {"models": ["xgboost"]}, "workspace": str(tmp_path / "work")}
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "dataset").symlink_to(workspace.dataset)
    run_stages(["search"], write_job(content, tmp_path), ())
    other = {path.parent.name for path in (tmp_path / "work" / "search").rglob("result.json")}
    assert len(other) == 4  # three folds and the refit
    assert not other & units
    assert times(workspace.root / "search", "result.json") == before


def test_a_job_killed_at_any_moment_goes_on_and_ends_with_the_same_scores(finished, landscape, tmp_path):
    config = write_job(job(landscape, tmp_path / "work"), tmp_path)
    command = [sys.executable, "-m", "cropray.cli", "run", str(config)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    for patience_s, blow in ((8, signal.SIGKILL), (20, signal.SIGTERM)):
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        time.sleep(patience_s)
        process.send_signal(blow)
        assert process.wait(timeout=60) in (-signal.SIGKILL, 130, 0)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for model in ("cnn", "xgboost"):
        assert scores(config, model) == scores(finished, model)
    assert not list((tmp_path / "work").rglob(".*.tif"))  # nothing half-written stays where it could be read
