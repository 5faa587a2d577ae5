"""`ablate` shows what each change of a recipe is worth, on training zones, and repeats nothing."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from cropray.cli import main
from cropray.commands import ablate
from cropray.config import JobConfig
from cropray.core.errors import ConfigError
from cropray.core.progress import Progress
from cropray.datasets.loading import shown_until
from cropray.datasets.manifest import load_manifest
from cropray.datasets.storage import read_pixels
from cropray.evaluation.models import load_model, prefix_of
from cropray.evaluation.out_of_fold import write_out_of_fold
from cropray.evaluation.zone_counts import CountJob
from cropray.io.job_file import load_settings
from cropray.io.storage import write_json
from cropray.search.calibration import learn_temperature
from cropray.search.decision import DecisionSettings
from cropray.search.fit import SearchData
from cropray.search.recipe import Change
from cropray.search.results import save_results
from cropray.search.run import RESULT_FILE
from cropray.stages import dataset
from cropray.stages.family_search import FamilySearch, Samples
from cropray.stages.search import _fit as fit_and_note
from tests.commands.test_nested import write_points
from tests.search.drawn_predictions import drawn

BLIND = {"n_estimators": 1, "learning_rate": 1e-6}
SEEING = {"n_estimators": 6, "learning_rate": 0.3, "max_depth": 2}


def imitate(stages, config, overrides):
    """The dataset as it is, and a search whose units are fitted here, one after the other."""
    job = load_settings(JobConfig, config, overrides)
    if "dataset" in stages:
        dataset.run(job, Progress())
        return
    manifest, workspace, (model,) = load_manifest(job.artefacts.manifest), job.artefacts, job.search.models
    search = FamilySearch(job, manifest, model, Samples(workspace, manifest))
    zones = [zone for zone in manifest.zones if zone.split == "train"]
    blocks = {zone.zone_id: read_pixels(workspace, zone.zone_id, manifest.cube) for zone in zones}
    if job.until_step is not None:
        blocks = {zone: shown_until(block, manifest.cube, job.until_step)[0] for zone, block in blocks.items()}
    data = {model: SearchData(search.family, manifest, search.settings, blocks, job.seed)}
    for unit in search.units:
        if not unit.is_finished:
            unit.folder.mkdir(parents=True)
            found = fit_and_note(unit.unit, unit.folder, None, None, data, job.until_step)
            save_results(unit.folder / RESULT_FILE, found)
    every, best = search._configurations()
    for zone in zones:
        unit, step = search._folds_of_winner()[zone.fold]
        fitted = load_model(unit.folder)
        fitted = fitted if search.family.prefix is None else prefix_of(fitted, search.family.prefix, step)
        counts = CountJob(workspace, manifest.lookup(), job.map)
        workspace.out_of_fold(model, zone.zone_id).parent.mkdir(parents=True, exist_ok=True)
        path = workspace.out_of_fold(model, zone.zone_id)
        write_out_of_fold(path, fitted, zone, counts, (job.search.oof_rows, job.seed), is_points=True)
    summary = {"best": dict(best.params), "units": [unit.folder.name for unit in search.units]}
    write_json(
        workspace.search_result(model), {**summary, "configurations": [{"params": dict(c.params)} for c in every]}
    )


def make_config(folder, *more, n_trees=5):
    """A job whose recipe goes from trees that know nothing to trees that do, and to another family."""
    write_points(folder / "points.parquet")
    way = [
        {"name": "blind", "model": "xgboost", "settings": {"xgboost": BLIND}},
        {"name": "seeing", "model": "xgboost", "settings": {"xgboost": SEEING}},
        {"name": "a forest", "model": "forest", "settings": {"forest": {"n_estimators": n_trees}}},
        *more,
    ]
    recipe = {"xgboost": SEEING, "forest": {"n_estimators": 5}, "search": {"models": ["xgboost", "forest"]}}
    (folder / "own.yaml").write_text(yaml.safe_dump({**recipe, "ablation": way}))
    content = {
        "name": "small", "workspace": str(folder / "work"), "points": {"path": str(folder / "points.parquet")},
        "dataset": {"n_folds": 2}, "recipe": str(folder / "own.yaml"),
        "cluster": {"num_cpus": 2, "object_store_gb": 0.2},
    }  # fmt: skip
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A job whose table is there."""
    path = make_config(tmp_path_factory.mktemp("ablate"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ablate, "run_stages", imitate)
        assert main(["ablate", str(path)]) == 0
    return path


def table_of(config):
    return json.loads((load_settings(JobConfig, config).artefacts.ablation / "table.json").read_text())["rows"]


def test_each_row_is_scored_out_of_fold_on_training_zones(config):
    manifest = load_manifest(load_settings(JobConfig, config).artefacts.manifest)
    rows = table_of(config)
    assert [(row["name"], row["model"]) for row in rows] == [("blind", "xgboost"), ("seeing", "xgboost"), ("a forest", "forest")]  # fmt: skip
    for row in rows:
        assert set(row["zone_ids"]) == {zone.zone_id for zone in manifest.of_split("train")}
        assert row["metrics"]["val_pixels"] == row["labelled_pixels"] == 7 * 24
    assert rows[0]["metrics"]["val_macro_f1"] < 0.5
    assert rows[1]["metrics"]["val_macro_f1"] > 0.9
    assert "to_first" not in rows[0]
    gain = rows[1]["to_first"]["macro_f1"]
    assert gain == rows[1]["to_row_before"]["macro_f1"]
    assert (
        0
        < gain["low"]
        < gain["value"]
        == pytest.approx(rows[1]["metrics"]["val_macro_f1"] - rows[0]["metrics"]["val_macro_f1"])
    )
    assert abs(rows[2]["to_row_before"]["macro_f1"]["value"]) < gain["value"]


def test_finished_rows_are_kept_and_the_job_s_own_search_shares_their_fits(config, capsys, monkeypatch):
    before, searched = table_of(config), []
    monkeypatch.setattr(ablate, "run_stages", lambda stages, *_: searched.extend(set(stages) - {"dataset"}))
    assert main(["ablate", str(config)]) == 0
    assert capsys.readouterr().out.count("finished before") == 3
    assert (searched, table_of(config)) == ([], before)
    job = load_settings(JobConfig, config)
    assert not job.artefacts.search_result("forest").exists()
    manifest = load_manifest(job.artefacts.manifest)
    own = FamilySearch(job, manifest, "forest", Samples(job.artefacts, manifest))
    assert [unit.is_finished for unit in own.units] == [True, True]


def test_a_job_that_keeps_no_rows_is_told_how_many_are_scored(config, capsys, monkeypatch):
    monkeypatch.setattr(ablate, "run_stages", lambda *_: None)
    assert main(["ablate", str(config), "--set", "search.oof_rows=0"]) == 0
    said = capsys.readouterr().out
    assert said.count("search.oof_rows is 0") == 1
    assert "500 of each class and zone" in said
    assert said.count("finished before") == 3
    written = json.loads((load_settings(JobConfig, config).artefacts.ablation / "table.json").read_text())
    assert written["oof_rows"] == 500


def test_a_job_with_the_study_s_recipe_has_nothing_to_compare(config, capsys):
    assert main(["ablate", str(config), "--set", "recipe=study", "--set", "search.models=[xgboost]"]) == 1
    assert "set 'recipe' to best" in capsys.readouterr().err


def test_rows_of_families_that_the_data_do_not_allow_are_left_out(config, tmp_path, capsys):
    job = load_settings(JobConfig, config)
    way = [
        (Change(name="tiles", model="cnn"), {}),
        (Change(name="a mean", model="blend", beside=("xgboost", "cnn", "forest")), {}),
        (Change(name="no mean", model="blend", beside=("xgboost", "cnn")), {}),
    ]
    kept = ablate._possible(job, way, Progress())
    assert [change.models for change, _ in kept] == [["xgboost", "forest", "blend"]]
    out = capsys.readouterr().out
    assert "row 'tiles': left out of its families: cnn (points have no tiles)" in out
    assert "row 'no mean': left out of its families: cnn (points have no tiles), blend (too few" in out
    with pytest.raises(ConfigError, match="no row of the ablation of"):
        ablate._possible(job, way[:1], Progress())


def test_another_workspace_may_use_the_dataset_and_makes_none(config, capsys):
    work = load_settings(JobConfig, config).artefacts.root
    elsewhere = [f"workspace={work.parent / 'other'}", f"dataset_of={work}"]
    set_ = [text for change in elsewhere for text in ("--set", change)]
    assert main(["dataset", str(config), *set_]) == 1
    assert f"'dataset_of' says that '{work}' has what `cropray dataset` makes" in capsys.readouterr().err


def test_rows_that_were_drawn_count_for_the_pixels_that_they_stand_for(tmp_path, monkeypatch):
    """Few of a frequent class are kept: each of them is many pixels."""
    found = drawn(600, n_zones=4, seed=2)
    kept = np.flatnonzero((found.labels > 0) | (np.arange(600) % 10 == 0))
    n_all = np.array([[((found.zones == z) & (found.labels == k)).sum() for k in range(5)] for z in range(4)])
    zones, labels = found.zones[kept], found.labels[kept]
    n_kept = np.array([[((zones == z) & (labels == k)).sum() for k in range(5)] for z in range(4)])
    few = replace(
        found, labels=labels, zones=zones, probabilities=found.probabilities[kept],
        weights=n_all[zones, labels] / n_kept[zones, labels],
    )  # fmt: skip
    monkeypatch.setattr(ablate, "read_evidence", lambda *_: few)
    entries = [SimpleNamespace(zone_id=name, n_labelled=1) for name in "abcd"]
    classes = [SimpleNamespace(name=str(k)) for k in range(5)]
    manifest = SimpleNamespace(of_split=lambda _: entries, classes=classes)
    place = SimpleNamespace(out_of_fold=lambda *_: tmp_path)
    counted = ablate._count(SimpleNamespace(artefacts=place, decision=DecisionSettings()), "xgboost", manifest)
    np.testing.assert_array_equal(counted.cube.sum(2), n_all)
    predicted, loss = few.decided(0.0), 0.0
    weighted = np.zeros((4, 5, 5))
    for zone, label, said, weight, p in zip(zones, labels, predicted, few.weights, few.probabilities, strict=True):
        weighted[zone, label, said] += weight
        loss -= weight * np.log(float(p[label]))
    assert np.abs(counted.cube - weighted).max() < 5  # rounded to whole pixels, the rest to the largest
    assert np.abs(counted.cube - weighted).sum() < 60
    assert counted.loss_sum == pytest.approx(loss, rel=1e-5)


def test_the_loss_of_a_row_is_of_tempered_probabilities_where_its_job_tempers(tmp_path, monkeypatch):
    """By the temperature that the other folds teach, as the row's classes are decided for."""
    found = drawn(900, n_zones=4, seed=5, sureness=3.0)
    monkeypatch.setattr(ablate, "read_evidence", lambda *_: found)
    entries = [SimpleNamespace(zone_id=name, n_labelled=1) for name in "abcd"]
    classes = [SimpleNamespace(name=str(k)) for k in range(5)]
    manifest = SimpleNamespace(of_split=lambda _: entries, classes=classes)
    place, expected = SimpleNamespace(out_of_fold=lambda *_: tmp_path), 0.0
    sums = [
        ablate._count(SimpleNamespace(artefacts=place, decision=decision), "xgboost", manifest).loss_sum
        for decision in (DecisionSettings(), DecisionSettings(calibrate=True))
    ]
    for fold in range(3):
        here = found.folds[found.zones] == fold
        heat = learn_temperature(found.probabilities[~here], found.labels[~here], found.weights[~here])
        powers = found.probabilities[here].astype(float) ** (1 / heat)
        expected -= np.log(powers[np.arange(len(powers)), found.labels[here]] / powers.sum(1)).sum()
    assert sums[1] == pytest.approx(expected, rel=1e-4)
    assert sums[1] < 0.8 * sums[0]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.nightly
def test_rows_are_searches_like_any_other(ray_local, tmp_path, capsys):
    path = make_config(tmp_path)
    assert main(["ablate", str(path)]) == 0
    rows = table_of(path)
    assert [row["name"] for row in rows] == ["blind", "seeing", "a forest"]
    assert rows[1]["to_first"]["macro_f1"]["low"] > 0
    capsys.readouterr()
    assert main(["search", str(path), "--set", "search.models=[forest]"]) == 0
    assert "forest: 2 units of (configuration, fold), 2 finished before" in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.nightly
def test_a_row_of_a_mean_changes_with_its_members(ray_local, tmp_path, monkeypatch):
    searched, run_stages = [], ablate.run_stages

    def note_and_run(stages, config, overrides):
        searched.extend([load_settings(JobConfig, config, overrides).search.models] if "search" in stages else [])
        run_stages(stages, config, overrides)

    mean = {"name": "the mean", "model": "blend", "beside": ["xgboost", "forest"], "settings": {"blend": {}}}
    path = make_config(tmp_path, mean)
    assert main(["ablate", str(path)]) == 0
    assert table_of(path)[3]["metrics"]["val_macro_f1"] > 0.9
    make_config(tmp_path, mean, n_trees=6)
    monkeypatch.setattr(ablate, "run_stages", note_and_run)
    assert main(["ablate", str(path)]) == 0
    assert searched == [("forest",), ("xgboost", "forest", "blend")]
