"""`report` before, during and after the training: on a small drawn landscape, and its rules on manifests alone."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image, ImageSequence

from cropray.cli import main
from cropray.config import JobConfig
from cropray.core.cube import STUDY_CUBE
from cropray.core.errors import ConfigError
from cropray.datasets.manifest import load_manifest
from cropray.io.job_file import load_settings
from cropray.io.storage import folder_hash, write_json
from cropray.io.workspace import Workspace
from cropray.report.films import views_of
from cropray.report.settings import ReportSettings
from cropray.stages.pictures import film_zones
from cropray.stages.pipeline import run_stages
from cropray.stages.results import why_no_scores
from tests import synthetic
from tests.jobs import job, write_job


def small_manifest(**changes):
    """Two regions; the first zone of each is its test zone."""
    zones = [
        synthetic.entry(f"{region}-{i}", None if i == 1 else 0, region=region)
        for region in ("north", "south")
        for i in (1, 2, 3)
    ]
    return synthetic.manifest(*zones, **changes)


@pytest.mark.parametrize(
    ("films", "zones", "expected"),
    [
        ("one_per_region", None, ("north-2", "south-2")),
        ("one_per_region", ("north-1", "south-3"), ("north-1", "south-3")),
        ("all", ("south-1",), ("south-1",)),
        ("none", None, ()),
        (("south-3", "north-1"), None, ("north-1", "south-3")),
    ],
)
def test_films_show_the_chosen_zones(films, zones, expected):
    chosen = SimpleNamespace(report=ReportSettings(films=films), zones=zones)
    assert film_zones(chosen, small_manifest()) == expected
    assert film_zones(chosen, small_manifest(source="points")) == ()


def test_a_film_of_an_unknown_zone_is_refused():
    wanted = SimpleNamespace(report=ReportSettings(films=("north-1", "nowhere")), zones=None)
    with pytest.raises(ConfigError, match=r"\['nowhere'\].*north-1"):
        film_zones(wanted, small_manifest())


def test_scores_of_another_dataset_are_none(tmp_path):
    workspace, manifest = Workspace(tmp_path), small_manifest()
    assert why_no_scores(workspace, manifest, "cnn") == "not searched yet"
    write_json(workspace.search_result("cnn"), {"dataset": "of yesterday", "units": ["fold=0"]})
    old = {"params": {}, "fold": 0, "loss_sum": 1.0, "confusion": [[1]], "history": [], "best_step": 1, "seconds": 1.0}
    write_json(workspace.unit("cnn", "fold=0") / "result.json", [old])  # losses were counted otherwise
    assert why_no_scores(workspace, manifest, "cnn") == "searched on an earlier version of the dataset"
    write_json(workspace.search_result("cnn"), {"dataset": manifest.fingerprint(), "units": []})
    assert why_no_scores(workspace, manifest, "cnn") == "not evaluated yet"
    cube = np.zeros((2, 2, 2), np.int64)
    cube[:, 0, 0] = 10  # what every zone of the manifest holds
    scores = workspace.evaluation("cnn") / "scores.json"
    (workspace.model("cnn") / "weights").parent.mkdir(parents=True)
    (workspace.model("cnn") / "weights").write_text("of today")
    of_model = {"model": folder_hash(workspace.model("cnn"))}
    write_json(scores, {"zone_ids": ["north-1", "south-1"], **of_model})
    assert why_no_scores(workspace, manifest, "cnn") == "evaluated by an earlier version of cropray"
    of_model["no_intervals"] = "2 test zones"
    write_json(scores, {"zone_ids": ["north-1", "south-1"], **of_model})
    np.save(scores.parent / "cube.npy", cube)
    assert why_no_scores(workspace, manifest, "cnn") == ""
    write_json(scores, {"zone_ids": ["north-1", "south-1"], **of_model, "model": "of yesterday"})
    assert why_no_scores(workspace, manifest, "cnn") == "evaluated on an earlier model"
    for other in (cube[:1], cube[:, :1, :1], cube + 1):
        write_json(scores, {"zone_ids": ["north-1", "south-1"][: len(other)], **of_model})
        np.save(scores.parent / "cube.npy", other)
        assert why_no_scores(workspace, manifest, "cnn") == "evaluated on an earlier version of the dataset"


def test_a_report_without_a_dataset_says_what_to_run(landscape, tmp_path, capsys):
    assert main(["report", str(write_job(job(landscape, tmp_path / "work"), tmp_path))]) == 1
    assert "run `cropray dataset CONFIG.yaml` first" in capsys.readouterr().err


@pytest.fixture(scope="module")
def untrained(finished, tmp_path_factory):
    """A job whose dataset stands and whose report is written, as if nothing had been trained yet."""
    folder, done = tmp_path_factory.mktemp("untrained"), workspace_of(finished)
    for name in ("composites", "labels", "parcels", "dataset"):
        shutil.copytree(done.root / name, folder / "work" / name)
    shutil.rmtree(folder / "work" / "dataset" / "pictures")
    config = write_job(yaml.safe_load(finished.read_text()) | {"workspace": str(folder / "work")}, folder)
    run_stages(["report"], config, ())
    return config


def workspace_of(config):
    return load_settings(JobConfig, config).artefacts


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.ray
def test_the_pictures_lie_beside_the_dataset(untrained):
    workspace = workspace_of(untrained)
    manifest = load_manifest(workspace.manifest)
    assert {path.name for path in workspace.pictures.iterdir()} == {
        "zones", "class_distribution.png", "class_by_region.png", "ndvi_profiles.png", "band_profiles.png",
        "observations.png",
    }  # fmt: skip
    with_films = {path.parent.name for path in workspace.pictures.rglob("*.gif")}
    trains = {region: min(z.zone_id for z in manifest.zones if (z.region, z.split) == (region, "train"))
              for region in {z.region for z in manifest.zones}}  # fmt: skip
    assert with_films == set(trains.values())
    for zone_id in with_films:
        folder = workspace.zone_pictures(zone_id)
        assert {path.stem for path in folder.glob("*.gif")} == {view.name for view in views_of(STUDY_CUBE)}
        for film in folder.glob("*.gif"):
            with Image.open(film) as image:
                assert len(list(ImageSequence.Iterator(image))) == 12
    assert not [path for path in workspace.root.rglob(".*") if path.name not in {".tune", ".lock"}]
    text = (workspace.report / "index.html").read_text()
    assert "No scores yet" in text
    assert f"cropray search {workspace.config('report')}" in text
    assert sum(path.stat().st_size for path in workspace.report.iterdir()) < 15e6


@pytest.mark.slow
@pytest.mark.ray
def test_only_what_changed_is_drawn_again(untrained, tmp_path):
    workspace = workspace_of(untrained)
    before = times(workspace.pictures)
    run_stages(["report"], untrained, ())
    assert times(workspace.pictures) == before
    one = next(workspace.pictures.rglob("B08.gif")).parent
    (one / "B08.gif").unlink()
    (workspace.zone_pictures("gone")).mkdir()
    run_stages(["report"], untrained, ())
    after = times(workspace.pictures)
    assert after.keys() == before.keys()
    assert {path.parent for path in after if after[path] != before[path]} == {one}


@pytest.mark.slow
@pytest.mark.ray
def test_other_films_are_a_setting(untrained, tmp_path):
    content = yaml.safe_load(untrained.read_text()) | {"report": {"films": "none"}}
    run_stages(["report"], write_job(content, tmp_path), ())
    workspace = workspace_of(untrained)
    assert not list(workspace.pictures.rglob("*.gif"))
    assert "Zones through the year" not in (workspace.report / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.ray
def test_a_finished_job_reports_scores_and_data(finished):
    workspace = workspace_of(finished)
    text = (workspace.report / "index.html").read_text()
    assert "Scores on the test zones" in text
    assert "ndvi_profiles.png" in text
    assert "true_colour.gif" in text
    assert "not searched" not in text
    quality = json.loads(workspace.search_result("cnn").read_text())
    assert quality["dataset"] == load_manifest(workspace.manifest).fingerprint()
