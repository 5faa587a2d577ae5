"""What a stage makes again, and what it does not, after an interruption or a change: on a copy of a whole job."""

import json
import shutil
from dataclasses import replace

import geopandas
import pytest
import yaml
from mlflow import MlflowClient

from cropray.config import JobConfig
from cropray.core.errors import ConfigError, SchemaError
from cropray.datasets.manifest import load_manifest, save_manifest
from cropray.io.job_file import load_settings
from cropray.stages import evaluate
from cropray.stages.inputs import job_zones
from cropray.stages.map import current_previews
from cropray.stages.pipeline import run_stages
from tests.jobs import write_job

pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture
def copy(finished, tmp_path):
    """(job file, workspace) of a job of which every stage has run."""
    content = yaml.safe_load(finished.read_text())
    shutil.copytree(content["workspace"], tmp_path / "work")
    config = write_job(content | {"workspace": str(tmp_path / "work")}, tmp_path)
    return config, load_settings(JobConfig, config).artefacts


def times(folder, pattern):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob(pattern)}


def test_an_interrupted_dataset_builds_the_missing_zone_only(copy):
    config, workspace = copy
    manifest, before = workspace.manifest.read_text(), times(workspace.dataset, "*.parquet")
    zone_id = load_manifest(workspace.manifest).zone_ids[1]
    workspace.mark_stale("dataset", "all")
    workspace.mark_stale("dataset-zones", zone_id)
    workspace.manifest.unlink()
    run_stages(("dataset",), config, ())
    assert workspace.manifest.read_text() == manifest
    made = {path for path, when in times(workspace.dataset, "*.parquet").items() if before[path] != when}
    assert made
    assert {path.parent.name for path in made} == {f"zone_id={zone_id}"}


def test_an_interrupted_evaluation_counts_the_missing_zone_only(copy):
    config, workspace = copy
    scores = workspace.evaluation("xgboost") / "scores.json"
    content, zones = scores.read_text(), workspace.evaluation("xgboost").with_name("xgboost-zones")
    before = times(zones, "*.json")
    zone_id = json.loads(content)["zone_ids"][0]
    workspace.mark_stale("evaluate", "xgboost")
    workspace.mark_stale("evaluate-xgboost", zone_id)
    scores.unlink()
    run_stages(("evaluate",), config, ["search.models=[xgboost]"])
    assert scores.read_text() == content
    after = times(zones, "*.json")
    assert {path.stem for path in after if after[path] != before[path]} == {zone_id}


def test_scores_that_were_replaced_and_not_finished_are_not_up_to_date(copy, monkeypatch):
    config, workspace = copy
    with monkeypatch.context() as broken:
        broken.setattr(evaluate, "_draw", lambda *_: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            run_stages(("evaluate",), config, ["search.models=[xgboost]", "overwrite=true"])
    assert not workspace.stamp("evaluate", "xgboost").exists()


def test_a_model_of_another_dataset_is_not_scored(copy):
    """The test zone of today may have been a training zone of the model."""
    config, workspace = copy
    manifest = load_manifest(workspace.manifest)
    save_manifest(replace(manifest, zones=manifest.zones[::-1]), workspace.manifest)
    with pytest.raises(SchemaError, match=r"another version of the dataset.*run `cropray search"):
        run_stages(("evaluate",), config, ())


def test_old_scores_are_not_those_of_a_new_model(copy, capsys):
    config, workspace = copy
    job = load_settings(JobConfig, config)
    assert len(current_previews(job, "xgboost", job_zones(job))) == 2
    changed = ["search.models=[xgboost]", "search.xgboost.learning_rate=[0.1]"]
    run_stages(("search",), config, changed)
    assert current_previews(job, "xgboost", job_zones(job)) == []
    run_stages(("map",), config, changed)
    assert "maps are not added to a run of MLflow: xgboost was evaluated on an earlier model" in capsys.readouterr().out
    client = MlflowClient(f"sqlite:///{workspace.mlflow_database}")
    versions = client.search_model_versions("name='small'")
    assert sorted(v.tags["cropray.family"] for v in versions) == ["cnn", "xgboost"]  # none of the new trees


def test_another_season_is_another_zone_table(copy):
    config, workspace = copy
    run_stages(("zones",), config, ["season_start=2024-01"])
    assert set(geopandas.read_parquet(workspace.zones_table)["season_start"]) == {"2024-01"}


def test_a_map_whose_parcels_are_gone_is_made_again(copy):
    config, workspace = copy
    (zone_id, *_) = [zone.zone_id for zone in load_manifest(workspace.manifest).of_split("test")]
    mapped = workspace.mapped_parcels("xgboost", zone_id)
    content = mapped.read_bytes()
    mapped.unlink()
    run_stages(("map",), config, ["search.models=[xgboost]"])
    assert mapped.read_bytes() == content


def test_a_finished_search_asks_for_no_room(copy):
    """And how many CPUs a worker is promised is no part of a unit of the CNN: a smaller cluster goes on with them."""
    config, _ = copy
    changed = ["search.models=[cnn]", "cnn.cpus_per_worker=64"]
    run_stages(("search",), config, changed)
    with pytest.raises(ConfigError, match="64 CPUs"):
        run_stages(("search",), config, [*changed, "seed=7"])


def test_another_objective_is_another_search_of_the_same_units(copy):
    config, workspace = copy
    before = times(workspace.root / "search", "result.json")
    run_stages(("search",), config, ["search.models=[xgboost]", "search.objective=val_loss"])
    assert times(workspace.root / "search", "result.json").items() >= before.items()
    client = MlflowClient(f"sqlite:///{workspace.mlflow_database}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "small"]
    runs = client.search_runs([experiment.experiment_id], "tags.`cropray.kind` = 'search'")
    objectives = [
        run.data.params["objective"] for run in runs if run.data.tags["cropray.key"].startswith("search/xgboost")
    ]
    assert sorted(objectives) == ["val_loss", "val_macro_f1"]
