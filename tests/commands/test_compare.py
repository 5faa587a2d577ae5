"""`compare` reads evaluations as they lie in workspaces."""

from types import SimpleNamespace

import pytest

from cropray.cli import main
from cropray.commands import compare
from cropray.config import JobConfig
from cropray.core.errors import InputError
from cropray.io.job_file import load_settings


@pytest.mark.ray
def test_too_few_test_zones_tell_nothing_and_the_command_that_tests_all_is_named(finished, capsys):
    workspace = load_settings(JobConfig, finished).artefacts.root
    assert main(["compare", f"{finished}:cnn", f"{workspace}:xgboost"]) == 1
    said = capsys.readouterr().err
    assert "cannot be compared: 2 test zones, an interval needs 5 or more; `cropray nested" in said
    assert main(["compare", str(finished), f"{workspace}:cnn", "--set", "search.models=[cnn]"]) == 1
    assert "are the same model, cnn" in capsys.readouterr().err


def test_the_best_in_validation_counts_what_its_decision_adds(monkeypatch):
    """As the alias `champion` does."""
    scores = {"before": {"macro_f1": 0.5}, "after": {"macro_f1": 0.6}, "other_folds": {"macro_f1": 0.6}}
    summaries = {
        "xgboost": {"objective": "val_macro_f1", "best": {}, "configurations": [{"params": {}, "val_macro_f1_mean": 0.55}]},
        "forest": {
            "objective": "val_macro_f1", "best": {}, "configurations": [{"params": {}, "val_macro_f1_mean": 0.5}],
            "decision": {"settings": {"rule": "prior"}, "tau": 0.4, "temperature": 1.0, **scores},
        },
    }  # fmt: skip
    monkeypatch.setattr(compare, "load_search", lambda _, model: summaries[model])
    job = SimpleNamespace(artefacts=None, search=SimpleNamespace(models=("xgboost", "forest")))
    assert compare._best(job, "job.yaml", is_nested=False) == "forest"


def test_nested_scores_of_another_recipe_are_refused(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(f"{{name: a, workspace: {tmp_path}, points: {{path: p}}, search: {{models: [forest]}}}}")
    folder = tmp_path / "nested" / "forest"
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text('{"recipe": "best"}')
    with pytest.raises(InputError, match=r"with the recipe best, the job's is study: run `cropray nested` again"):
        compare._side(str(job), (), is_nested=True)
