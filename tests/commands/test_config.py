"""`cropray config` and `cropray new`: every setting with its meaning, and where a job's values come from."""

from pathlib import Path

import pytest
import yaml

from cropray.cli import main
from cropray.commands.config import sections
from cropray.config import JobConfig, complete_job
from cropray.core.settings import Settings
from cropray.io.job_file import load_settings
from tests.jobs import write_job

POINTS = {"name": "plain", "workspace": "w", "points": {"path": "p.parquet"}, "search": {"models": ["xgboost"]}}


def test_every_setting_says_what_it_is():
    found = [(section.path, setting) for section in sections(complete_job()) for setting in section.settings]
    assert len(found) > 200
    assert [f"{path}.{setting.name}" for path, setting in found if not setting.doc or not setting.type] == []


def test_types_and_bounds_are_in_words():
    class Below(Settings):
        """Something below."""

        n: int = 3
        """How many; None: all."""

    class Top(Settings):
        """All."""

        share: float | None = None
        below: Below = Below()
        pair: tuple[Below, ...] = ()

    top, below, entry = sections(Top)
    assert [setting.type for setting in top.settings] == ["number or null", "section", "list of section"]
    assert [setting.default for setting in top.settings] == ["null", None, "[]"]
    assert top.settings[1].doc == "Something below."
    assert (below.path, entry.path, below.settings[0].doc) == ("below", "pair", "How many; null: all.")


def test_a_job_s_values_say_where_they_come_from(tmp_path, capsys):
    config = write_job(
        {**POINTS, "cnn": {"epochs": 7}, "dataset": {"n_folds": 4}, "xgboost": {"max_depth": 4}}, tmp_path
    )
    assert (
        main(["config", str(config), "--set", "dataset.buffer_m=20", "--set", "search.xgboost={max_depth: [2]}"]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert f"cnn.epochs: 7   # {config}; default 50" in lines
    assert "cnn.batch_size: 64   # default" in lines
    assert f"dataset.n_folds: 4   # {config}; default 3" in lines
    assert "dataset.buffer_m: 20.0   # --set; default 500" in lines
    assert "search.xgboost.max_depth: [2]   # --set; default null" in lines
    assert f"points.path: p.parquet   # {config}" in lines
    assert f"name: plain   # {config}" in lines
    assert not any(line.startswith("imagery.") for line in lines)


def test_without_a_job_required_ones_are_named(capsys):
    assert main(["config"]) == 0
    out = capsys.readouterr().out
    assert "\nworkspace:   # required\n" in out
    assert "imagery (source: safe)" in out
    assert "\ndataset.tile_size: 32\n    Height and width of a tile, pixels. (whole number, ≥ 8, ≤ 512)\n" in out


def test_a_job_that_is_refused_says_why(tmp_path, capsys):
    assert main(["config", str(write_job({**POINTS, "sed": 1}, tmp_path))]) == 1
    assert "did you mean 'seed'?" in capsys.readouterr().err


def test_a_new_job_has_the_defaults_commented_and_not(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my wheat"]) == 0
    assert "cropray doctor 'my wheat.yaml'" in capsys.readouterr().out
    text = Path("my wheat.yaml").read_text()
    new = load_settings(JobConfig, "my wheat.yaml")
    least = yaml.safe_load(text)
    assert least.keys() == {"name", "workspace", "imagery", "parcels"}
    head, rest = text.split("\n\n", 1)
    rest = "\n".join(line.removeprefix("# ") for line in rest.splitlines())
    Path("whole.yaml").write_text(f"{head}\n\n{rest}")
    whole = load_settings(JobConfig, "whole.yaml")
    assert whole.model_dump(mode="json") == new.model_dump(mode="json")
    assert len(yaml.safe_load(f"{head}\n\n{rest}")) > len(least) + 8


@pytest.mark.parametrize("name", ["", "../wheat", "a/b", "-a"])
def test_a_name_that_is_none_is_refused(tmp_path, name, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "--", name]) == 1
    assert "cannot name a dataset" in capsys.readouterr().err


def test_a_name_may_look_like_a_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "2024"]) == 0
    assert load_settings(JobConfig, "2024.yaml").name == "2024"


def test_a_job_file_is_not_written_over(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("wheat.yaml").write_text("mine")
    assert main(["new", "wheat"]) == 1
    assert "'wheat.yaml' exists" in capsys.readouterr().err
    assert Path("wheat.yaml").read_text() == "mine"


def test_values_of_a_recipe_are_told_from_those_of_the_job(tmp_path, capsys):
    config = tmp_path / "job.yaml"
    config.write_text(
        "{name: a, workspace: /w, points: {path: /p.parquet}, recipe: best, forest: {n_estimators: 7}}",
        encoding="utf-8",
    )
    assert main(["config", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"forest.n_estimators: 7   # {config}; default 400" in lines
    assert "xgboost.subsample: 0.65   # recipe best; default 1.0" in lines
    assert "decision.rule: prior   # recipe best; default argmax" in lines
    assert "forest.max_depth: null   # default" in lines


def test_what_the_data_cannot_give_of_a_recipe_is_told_with_the_value(tmp_path, capsys):
    config = tmp_path / "job.yaml"
    static = "static: [{id: height, unit: m, scale: 1}]"
    config.write_text(
        f"{{name: a, workspace: /w, points: {{path: /p.parquet, {static}}}, recipe: best}}", encoding="utf-8"
    )
    assert main(["config", str(config), "--set", "cube.step=season"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (models,) = [line for line in lines if line.startswith("search.models: ")]
    assert models.startswith(
        "search.models: [xgboost, forest, blend]   # recipe best without temp_cnn (it reads the series"
    )
    (features,) = [line for line in lines if line.startswith("forest.features: ")]
    assert "# recipe best without differences (there is one step), quantiles (there is one step)" in features
