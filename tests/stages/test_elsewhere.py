"""A job may read what another job's workspace has, and leaves the stages that made it to that one."""

from pathlib import Path

import pytest
import yaml

from cropray.config import JobConfig
from cropray.core.errors import ConfigError
from cropray.stages.pipeline import PIPELINE, run_stages
from cropray.stages.stage import stages_of

HERE, THERE = Path("/here"), Path("/there")
IMAGES = {"imagery": {"folder": "/s"}, "parcels": {"path": "/p.gpkg"}}
POINTS = {"points": {"path": "/p.parquet"}, "search": {"models": ["forest"]}}


def job(**changes):
    return JobConfig.model_validate({"name": "a", "workspace": str(HERE), **changes})


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        (IMAGES, list(PIPELINE)),
        ({**IMAGES, "images_of": str(THERE)}, ["dataset", "search", "evaluate", "map", "report"]),
        ({**IMAGES, "dataset_of": str(THERE)}, ["search", "evaluate", "map", "report"]),
        (POINTS, ["dataset", "search", "evaluate", "report"]),
        ({**POINTS, "dataset_of": str(THERE)}, ["search", "evaluate", "report"]),
    ],
)
def test_stages_of_another_job_are_left_to_it(changes, left):
    assert [stage.name for stage in stages_of(job(**changes))] == left


@pytest.mark.parametrize(("setting", "stages"), [("images_of", ["acquire", "labels"]), ("dataset_of", ["dataset"])])
def test_a_stage_that_makes_what_another_workspace_has_says_so(tmp_path, setting, stages):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({"name": "a", "workspace": str(tmp_path / "here"), **IMAGES}))
    there = tmp_path / "there"
    there.mkdir()
    for stage in stages:
        with pytest.raises(ConfigError, match=f"'{setting}' says that '{there}' has what `cropray {stage}` makes"):
            run_stages([stage], path, [f"{setting}={there}"])


def places(workspace):
    """Root below which each kind of artefact lies."""
    found = {
        "images": [workspace.composite("z"), workspace.labels("z"), workspace.parcels("z"), workspace.chosen_zones],
        "dataset": [workspace.manifest, workspace.pixels("z"), workspace.unit("m", "u"), workspace.unit_progress("m", "u")],
        "own": [workspace.model("m"), workspace.search_result("m"), workspace.evaluation("m"), workspace.stamp("s", "u")],
    }  # fmt: skip
    return {kind: {path.parents[len(path.parents) - 2] for path in paths} for kind, paths in found.items()}


def test_what_is_read_elsewhere_and_what_stays():
    own, there, images = {HERE}, {THERE}, {Path("/images")}
    assert places(job(**IMAGES).artefacts) == {"images": own, "dataset": own, "own": own}
    assert places(job(**IMAGES, images_of="/there").artefacts) == {"images": there, "dataset": own, "own": own}
    assert places(job(**IMAGES, dataset_of="/there").artefacts) == {"images": there, "dataset": there, "own": own}
    both = job(**IMAGES, dataset_of="/there", images_of="/images").artefacts
    assert places(both) == {"images": images, "dataset": there, "own": own}
