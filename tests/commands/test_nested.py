"""`nested` tests every zone once, and `compare` tells two models apart, or not."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow import MlflowClient

from cropray.cli import main
from cropray.commands import nested
from cropray.config import JobConfig
from cropray.core.folds import make_folds
from cropray.core.progress import Progress
from cropray.datasets.manifest import load_manifest
from cropray.io.job_file import dump_yaml, load_settings
from cropray.io.storage import write_text
from cropray.stages import dataset
from cropray.tracking import beside_stages, local_uri
from tests.study import FEATURE_COLUMNS

N_ZONES = 8


def write_points(path, seed=0):
    """Eight zones of 24 points in two regions, all 20 km apart; two crops that differ, and one that half of the zones have."""
    rng = np.random.default_rng(seed)
    zones = np.repeat(np.arange(N_ZONES), 24)
    label = np.where(np.arange(len(zones)) % 24 < 4, np.where(zones % 2 == 0, 2, 0), np.arange(len(zones)) % 2)
    level = 1000 + 800 * label[:, None] + 100 * rng.standard_normal((len(zones), len(FEATURE_COLUMNS)))
    columns = {
        "zone_id": [f"z{n}" for n in zones],
        "region": [f"r{n % 2}" for n in zones],
        "split": ["test" if n == 7 else "train" for n in zones],
        "label": np.array(["wheat", "maize", "hops"])[label].tolist(),
        "lon": 5.0 + 0.3 * zones,
        "lat": 45.0 + 0.0001 * np.arange(len(zones)),
        **{name: level[:, i].astype(np.uint16) for i, name in enumerate(FEATURE_COLUMNS)},
    }
    pq.write_table(pa.table(columns), path)


def write_config(folder, name, **trees):
    content = {
        "name": name, "workspace": str(folder / name), "points": {"path": str(folder / "points.parquet")},
        "dataset": {"n_folds": 2}, "search": {"models": ["xgboost"]}, "xgboost": {"learning_rate": 0.3, **trees},
        "cluster": {"num_cpus": 2, "object_store_gb": 0.2},
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def imitate(stages, config, overrides):
    """The dataset as it is, and a test in which deep trees are right and stumps call everything by the first class."""
    job = load_settings(JobConfig, config, overrides)
    dataset.run(job, Progress())
    write_text(job.artefacts.config(stages[-1]), dump_yaml(job))
    if "evaluate" not in stages:
        return
    manifest = load_manifest(job.artefacts.manifest)
    zones = manifest.of_split("test")
    right = np.stack([np.diag(manifest.class_counts([zone.zone_id])) for zone in zones])
    cube = right if job.xgboost.max_depth > 1 else right.sum(2)[..., None] * (np.arange(len(manifest.classes)) == 0)
    folder = job.artefacts.evaluation("xgboost")
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "cube.npy", cube)
    (folder / "scores.json").write_text(json.dumps({"zone_ids": [zone.zone_id for zone in zones], "loss_sum": 2.0}))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two jobs on the same points whose zones were all tested: one that is right, and one that is blind."""
    folder = tmp_path_factory.mktemp("nested")
    write_points(folder / "points.parquet")
    configs = [write_config(folder, "good", max_depth=2), write_config(folder, "blind", max_depth=1)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(nested, "run_stages", imitate)
        assert main(["nested", str(configs[0]), "--folds", "3"]) == 0
        (folder / "blind").mkdir()
        shutil.copy(folder / "good" / "mlflow.db", folder / "blind")  # tables of a store take seconds to make
        assert main(["nested", str(configs[1]), "--folds", "3"]) == 0
    return configs


def scores_of(config):
    nested = load_settings(JobConfig, config).artefacts.nested / "xgboost"
    return json.loads((nested / "scores.json").read_text()), np.load(nested / "cube.npy")


def test_every_zone_is_tested_exactly_once_by_models_that_saw_none_of_it(done):
    scores, cube = scores_of(done[0])
    assert sorted(scores["zone_ids"]) == [f"z{n}" for n in range(N_ZONES)]
    assert cube.sum() == scores["metrics"]["test_pixels"] == 24 * N_ZONES
    assert scores["metrics"]["test_macro_f1"] == 1
    assert scores["metrics"]["test_loss"] == pytest.approx(3 * 2.0 / (24 * N_ZONES))
    assert scores["intervals"]["test_macro_f1"][0] < 1
    workspace = load_settings(JobConfig, done[0]).artefacts
    counts = {zone.zone_id: zone.counts for zone in load_manifest(workspace.manifest).zones}
    outer = make_folds(counts, {f"z{n}": f"r{n % 2}" for n in range(N_ZONES)}, 3)
    for fold in range(3):
        manifest = load_manifest(workspace.nested / f"{fold + 1}-of-3" / "dataset" / "manifest.json")
        assert {zone.zone_id for zone in manifest.of_split("test")} == {z for z in outer if outer[z] == fold}
        assert {zone.fold for zone in manifest.of_split("train")} == {0, 1}


def test_the_better_one_is_told(done, capsys):
    good, blind = map(str, done)
    assert main(["compare", good, blind, "--nested"]) == 0
    said = capsys.readouterr().out
    assert "A − B on 8 zones" in said
    assert said.count("A is better") == 2
    assert {"wheat", "maize", "hops"} <= set(said.split())
    workspace = str(done[0].parent / "good")
    assert main(["compare", f"{blind}:xgboost", workspace, "--nested"]) == 0  # the other way
    assert capsys.readouterr().out.count("B is better") == 2
    (written,) = (done[0].parent / "good" / "nested").glob("xgboost-and-xgboost-of-blind-*.json")
    record = json.loads(written.read_text())
    assert record["verdict"]["macro_f1"] == "good xgboost (study) is better"


def runs_of(config, kind):
    """Of the job's own store and experiment."""
    job = load_settings(JobConfig, config)
    client = MlflowClient(local_uri(job.artefacts))
    experiment = client.get_experiment_by_name(job.name)
    return client, client.search_runs([experiment.experiment_id], f"tags.`cropray.kind` = '{kind}'")


def test_scores_of_all_zones_are_a_run_beside_the_job_s_own(done, monkeypatch, capsys):
    scores, _ = scores_of(done[0])
    client, (run,) = runs_of(done[0], "nested")
    ends = {
        f"{key}_{end}": x
        for key, found in scores["intervals"].items()
        for end, x in zip(("low", "high"), found, strict=True)
    }
    assert run.data.metrics == {**scores["metrics"], **ends}
    assert run.data.metrics["test_macro_f1_low"] < 1
    assert run.data.params == {"recipe": "study", "outer_folds": "3", "seed": "0"}
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"scores.json", "cube.npy"}
    assert run.info.status == "FINISHED"
    monkeypatch.setattr(nested, "run_stages", imitate)
    assert main(["nested", str(done[0]), "--folds", "3"]) == 0  # nothing new
    assert [each.info.run_id for each in runs_of(done[0], "nested")[1]] == [run.info.run_id]
    assert not runs_of(done[0], "evaluate")[1]
    capsys.readouterr()


def test_a_comparison_is_a_run_that_names_both(done, capsys):
    good, blind = map(str, done)
    asked = ["compare", blind, good, "--nested", "--set", "seed=4"]
    assert main(asked) == 0
    file = Path(re.search("written to (.*)", capsys.readouterr().out)[1])
    client, runs = runs_of(done[1], "compare")
    (run,) = [run for run in runs if run.data.params["seed"] == "4"]
    tags, metrics, written = run.data.tags, run.data.metrics, json.loads(file.read_text())
    assert (tags["cropray.a"], tags["cropray.b"]) == ("blind xgboost (study)", "good xgboost (study)")
    assert tags["cropray.verdict.accuracy"] == "good xgboost (study) is better"
    assert (run.data.params["b.workspace"], metrics["zones"]) == (str(done[0].parent / "good"), N_ZONES)
    of_scores = [(f"difference_{key}", "", of) for key, of in written["scores"].items()]
    of_classes = [("difference_f1", f".{name}", of) for name, of in written["classes"].items()]
    expected = {
        f"{key}{end}{which}": of[value]
        for key, which, of in (*of_scores, *of_classes)
        for end, value in (("", "value"), ("_low", "low"), ("_high", "high"))
    }
    assert metrics == {**expected, "zones": N_ZONES}
    assert [found.path for found in client.list_artifacts(run.info.run_id)] == [file.name]
    assert main(asked) == 0
    assert len(runs_of(done[1], "compare")[1]) == len(runs)


def test_a_comparison_that_the_store_misses_is_written_later(done, capsys):
    good, blind = map(str, done)
    asked = ["compare", good, blind, "--nested", "--set", "seed=5"]
    assert main([*asked, "--set", "tracking_uri=http://127.0.0.1:9"]) == 0
    assert re.search(r"up to \d writes wait in .*compare/xgboost-and-xgboost-", capsys.readouterr().out)
    job = load_settings(JobConfig, good)
    assert "5" not in {run.data.params["seed"] for run in runs_of(good, "compare")[1]}
    assert not beside_stages(job.artefacts, job.name, None).trouble()
    assert "5" in {run.data.params["seed"] for run in runs_of(good, "compare")[1]}


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        (("good.yaml", "good.yaml:xgboost"), "are the same model"),
        (("good.yaml", "blind.yaml:forest"), "searches xgboost, and not forest"),
        (("good.yaml", "gone.yaml"), "gone.yaml"),
        (("good.yaml", "."), "no stage has run in it"),
    ],
)
def test_what_cannot_be_compared_is_said(done, capsys, sides, said):
    folder = done[0].parent
    assert main(["compare", *(str(folder / side) for side in sides), "--nested"]) == 1
    assert said in capsys.readouterr().err


def test_a_model_without_scores_names_the_command(done, capsys):
    assert main(["compare", *map(str, done)]) == 1
    assert "run `cropray evaluate CONFIG.yaml` first" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.nightly
def test_the_whole_procedure_runs_for_each_fold_once(ray_local, tmp_path, capsys):
    write_points(tmp_path / "points.parquet")
    config = write_config(tmp_path, "good", n_estimators=6, max_depth=2)
    assert main(["nested", str(config), "--folds", "2"]) == 0
    before = scores_of(config)[0]
    assert before["metrics"]["test_macro_f1"] > 0.9
    capsys.readouterr()
    assert main(["nested", str(config), "--folds", "2"]) == 0
    assert capsys.readouterr().out.count("xgboost: 2 units of (configuration, fold), 2 finished before") == 2
    assert scores_of(config)[0] == before
    workspace = load_settings(JobConfig, config).artefacts
    assert not workspace.model("xgboost").exists()  # the job's own search and runs are left alone
    assert len(runs_of(config, "nested")[1]) == 1
    assert not runs_of(config, "search")[1]
