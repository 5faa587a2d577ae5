"""`ablate` shows what each change of a recipe is worth, on training zones, and repeats nothing."""

import json

import pytest
import yaml

from cropray.cli import main
from cropray.config import JobConfig
from cropray.datasets.manifest import load_manifest
from cropray.io.job_file import load_settings
from tests.commands.test_nested import write_points

pytestmark = [pytest.mark.ray, pytest.mark.slow]
BLIND = {"n_estimators": 1, "learning_rate": 1e-6}
SEEING = {"n_estimators": 6, "learning_rate": 0.3, "max_depth": 2}


@pytest.fixture(scope="module")
def config(ray_local, tmp_path_factory):
    """A job whose recipe goes from trees that know nothing to trees that do, and to another family."""
    folder = tmp_path_factory.mktemp("ablate")
    write_points(folder / "points.parquet")
    way = [
        {"name": "blind", "model": "xgboost", "settings": {"xgboost": BLIND}},
        {"name": "seeing", "model": "xgboost", "settings": {"xgboost": SEEING}},
        {"name": "a forest", "model": "forest", "settings": {"forest": {"n_estimators": 5}}},
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


def test_finished_rows_are_kept_and_the_job_s_own_models_are_left_alone(config, capsys):
    before = table_of(config)
    assert main(["ablate", str(config)]) == 0
    said = capsys.readouterr().out
    assert said.count("finished before") == 3
    assert "search" not in [line.split()[0] for line in said.splitlines() if line]
    assert table_of(config) == before
    assert not load_settings(JobConfig, config).artefacts.model("xgboost").exists()


def test_the_search_of_the_job_shares_the_fits_of_its_rows(config, capsys):
    assert main(["search", str(config), "--set", "search.models=[forest]"]) == 0
    assert "forest: 2 units of (configuration, fold), 2 finished before" in capsys.readouterr().out


def test_a_job_with_the_study_s_recipe_has_nothing_to_compare(config, capsys):
    assert main(["ablate", str(config), "--set", "recipe=study"]) == 1
    assert "set 'recipe' to best" in capsys.readouterr().err


def test_another_workspace_may_use_the_dataset_and_makes_none(config, capsys):
    work = load_settings(JobConfig, config).artefacts.root
    elsewhere = [f"workspace={work.parent / 'other'}", f"dataset_of={work}"]
    set_ = [text for change in elsewhere for text in ("--set", change)]
    assert main(["dataset", str(config), *set_]) == 1
    assert f"'dataset_of' says that '{work}' has what `cropray dataset` makes" in capsys.readouterr().err
