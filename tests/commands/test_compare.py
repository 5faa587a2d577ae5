"""`compare` reads evaluations as they lie in workspaces."""

import pytest

from cropray.cli import main
from cropray.config import JobConfig
from cropray.io.job_file import load_settings


@pytest.mark.ray
def test_too_few_test_zones_tell_nothing_and_the_command_that_tests_all_is_named(finished, capsys):
    workspace = load_settings(JobConfig, finished).artefacts.root
    assert main(["compare", f"{finished}:cnn", f"{workspace}:xgboost"]) == 1
    said = capsys.readouterr().err
    assert "cannot be compared: 2 test zones, an interval needs 5 or more; `cropray nested" in said
    assert main(["compare", str(finished), f"{workspace}:cnn", "--set", "search.models=[cnn]"]) == 1
    assert "are the same model, cnn" in capsys.readouterr().err
