"""A job may read what another job's workspace has, and leaves the stages that made it to that one."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from cropray.commands import doctor
from cropray.commands.plan import command
from cropray.config import JobConfig
from cropray.core.errors import ConfigError
from cropray.core.progress import Progress
from cropray.stages import pipeline, report
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


def test_stages_that_are_left_out_are_named(tmp_path, capsys, monkeypatch):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({"name": "a", "workspace": str(tmp_path / "here"), **POINTS}))
    ran = []
    monkeypatch.setattr(pipeline, "check_job", lambda _, stages: ran.extend(stages))
    monkeypatch.setattr(pipeline, "ray_session", refuse)
    with pytest.raises(ConfigError, match="far enough"):
        run_stages(PIPELINE, path, ())
    assert "zones, acquire, labels, map: nothing to do, the job reads points" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="far enough"):
        run_stages(PIPELINE, path, [f"dataset_of={tmp_path}"])
    assert f"zones, acquire, labels, dataset, map: nothing to do, '{tmp_path}' has what they" in capsys.readouterr().out


def refuse(*_args, **_kwargs):
    raise ConfigError("far enough")


@pytest.mark.parametrize(
    ("changes", "looked_at"), [({"images_of": str(THERE)}, "dataset"), ({"dataset_of": str(THERE)}, "search")]
)
def test_doctor_looks_at_what_the_job_reads_itself(monkeypatch, changes, looked_at):
    asked = []
    monkeypatch.setattr(doctor, "check_job", lambda _, stages: asked.extend(stages))
    assert str(THERE) in doctor._check_inputs(job(**IMAGES, **changes))
    assert asked == [looked_at]


def test_plan_counts_the_zones_that_the_job_tests(tmp_path, monkeypatch, capsys):
    zones, given = [SimpleNamespace(zone_id=name, split="train", region="r") for name in "ab"], []
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({"name": "a", "workspace": str(tmp_path / "here"), **IMAGES}))
    monkeypatch.setattr(command, "divided_zones", lambda job: (*zones, job.test_zones))
    monkeypatch.setattr(command, "_plan_here", lambda job, found, _: given.append((job, found)) or ())
    command.run_plan(path, [f"images_of={tmp_path}", "test_zones=[b]"])
    assert given[0][1] == (*zones, ("b",))
    assert "zones, acquire, labels: counted as if this job did it" in capsys.readouterr().out


def test_the_page_shows_maps_of_the_zones_that_the_job_tests(monkeypatch):
    manifest = SimpleNamespace(source="zones", of_split=lambda _: [SimpleNamespace(zone_id="b")])
    divided = [SimpleNamespace(zone_id=name, split=split) for name, split in (("a", "train"), ("b", "test"))]
    monkeypatch.setattr(report, "divided_zones", lambda _: divided)
    monkeypatch.setattr(
        report,
        "current_previews",
        lambda _job, _model, zones: [(zone.zone_id, Path("p")) for zone in zones if zone.split == "test"],
    )
    (preview,) = report._previews(job(**IMAGES), manifest, ["xgboost"], Progress(io.StringIO()))
    assert preview.zone_id == "b"


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
