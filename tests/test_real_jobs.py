"""The job files that come with cropray are valid; those of `real_jobs` run on real data to scores and maps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cropray.config import JobConfig
from cropray.datasets import loading
from cropray.datasets.manifest import load_manifest
from cropray.evaluation.models import load_model
from cropray.io.job_file import load_settings
from cropray.stages.pipeline import PIPELINE, run_stages

ROOT = Path(__file__).resolve().parents[1]
REAL_JOBS = ROOT / "tests" / "real_jobs"
CONFIGS = sorted((ROOT / "ray_jobs" / "configs").glob("*"))
SUBMIT = ROOT / "ray_jobs" / "submit.py"
SCRIPTS = sorted(path for path in (ROOT / "ray_jobs").glob("*.py") if path != SUBMIT)


@pytest.mark.parametrize("path", [*CONFIGS, *REAL_JOBS.glob("*.yaml")], ids=lambda path: path.stem)
def test_job_file_is_valid(path):
    assert load_settings(JobConfig, path).name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_job_file_of_users_names_nothing_beside_the_repository(path):
    assert path.suffix == ".yaml"
    assert "../" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_job_script_is_a_stage(path):
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "job file (YAML)" in done.stdout


def test_every_stage_has_a_script():
    stages = {stage for stage in PIPELINE if stage != "search"} | {"search_cnn", "search_xgboost"}
    assert {path.stem for path in SCRIPTS} == stages | {"doctor", "plan", "run"}


def own_copy(path, real_data, workspace):
    """The job with absolute inputs and a workspace of its own."""
    text = path.read_text().replace("../shared/real", str(real_data))
    content = yaml.safe_load(text) | {"workspace": str(workspace), "cluster": {"num_cpus": 2, "object_store_gb": 0.2}}
    if "zone_table" in content:
        content["zone_table"] = str(ROOT / content["zone_table"])
    copy = workspace.parent / path.name
    copy.write_text(yaml.safe_dump(content))
    return copy


def metrics_of(path):
    return json.loads(path.read_text())["metrics"]


@pytest.mark.slow
@pytest.mark.ray
def test_flanders_runs_every_stage_on_real_scenes(real_data, ray_local, tmp_path):
    config = own_copy(REAL_JOBS / "flanders.yaml", real_data, tmp_path / "work")
    run_stages(PIPELINE, config, ())
    workspace = load_settings(JobConfig, config).artefacts
    manifest = load_manifest(workspace.manifest)
    assert {zone.zone_id for zone in manifest.of_split("test")} == {"chip-a-4", "chip-b-4"}
    # Zones of a chip touch and share parcels: the training side gave way, the test side lost nothing.
    assert all(zone.n_trimmed == 0 for zone in manifest.of_split("test"))
    assert sum(zone.n_trimmed for zone in manifest.of_split("train")) > 0
    for model in ("cnn", "xgboost"):
        metrics = metrics_of(workspace.evaluation(model) / "scores.json")
        assert metrics["test_pixels"] == sum(zone.n_labelled for zone in manifest.of_split("test"))
        assert all(workspace.map(model, zone.zone_id).exists() for zone in manifest.of_split("test"))
    # Guessing the commonest of the seven classes everywhere would be about 0.4.
    assert metrics_of(workspace.evaluation("xgboost") / "scores.json")["test_accuracy"] > 0.55


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "shape"), [("argentina", (12, 4)), ("argentina_6x24", (24, 6))])
def test_networks_and_trees_meet_on_the_same_points_of_any_cube(real_data, ray_local, tmp_path, name, shape):
    config = own_copy(REAL_JOBS / f"{name}.yaml", real_data, tmp_path / "work")
    run_stages(PIPELINE, config, ())
    workspace = load_settings(JobConfig, config).artefacts
    models = ("xgboost", "lightgbm", "forest", "temp_cnn", "blend")
    found = {model: metrics_of(workspace.evaluation(model) / "scores.json") for model in models}
    assert {load_model(workspace.model(model)).cube.shape for model in models} == {shape}
    assert len({metrics["test_pixels"] for metrics in found.values()}) == 1
    assert all(metrics["test_accuracy"] > 0.76 for metrics in found.values())
    # 298 points: which has the better macro-F1 is chance; the network is much less often sure of what is wrong.
    assert max(found["temp_cnn"]["test_loss"], found["blend"]["test_loss"]) < found["xgboost"]["test_loss"]


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.ray
def test_arkansas_reaches_the_score_of_the_plain_recipe(real_data, ray_local, tmp_path):
    config = own_copy(REAL_JOBS / "arkansas.yaml", real_data, tmp_path / "work")
    run_stages(PIPELINE, config, ())
    metrics = metrics_of(load_settings(JobConfig, config).artefacts.evaluation("xgboost") / "scores.json")
    assert metrics["test_accuracy"] >= 0.945
    assert metrics["test_macro_f1"] >= 0.69


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("name", ["arkansas_families", pytest.param("argentina_families", marks=pytest.mark.nightly)])
def test_every_family_of_pixels_reaches_its_score_on_real_points(real_data, ray_local, tmp_path, monkeypatch, name):
    reads, load = [], loading._load
    monkeypatch.setattr(loading, "_load", lambda *given: reads.append(given) or load(*given))
    config = own_copy(REAL_JOBS / f"{name}.yaml", real_data, tmp_path / "work")
    run_stages(PIPELINE, config, ())
    workspace = load_settings(JobConfig, config).artefacts
    argentina, arkansas = (0.76, 0.60), {"xgboost": (0.945, 0.69), "lightgbm": (0.945, 0.67), "forest": (0.92, 0.60)}
    for model in ("xgboost", "lightgbm", "forest"):
        accuracy, macro_f1 = arkansas[model] if name == "arkansas_families" else argentina
        metrics = metrics_of(workspace.evaluation(model) / "scores.json")
        assert metrics["test_accuracy"] >= accuracy, model
        assert metrics["test_macro_f1"] >= macro_f1, model
    assert len(reads) == 1  # the families share their samples
