"""Whole jobs on cubes that are not the study's: other bands, other steps, a season over New Year."""

import json

import mlflow
import numpy as np
import pytest
import rasterio
import yaml

from cropray.commands.plan.command import run_plan
from cropray.config import JobConfig
from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import InputError
from cropray.core.sensors import SENTINEL_2
from cropray.datasets.manifest import load_manifest
from cropray.datasets.storage import read_pixels, read_tiles
from cropray.imagery.composites import read_composite
from cropray.io.job_file import load_settings
from cropray.landscape.draw import draw_landscape
from cropray.landscape.settings import LandscapeSettings
from cropray.stages.pipeline import PIPELINE, run_stages
from tests.jobs import job, write_job

pytestmark = [pytest.mark.slow, pytest.mark.ray]
TEN = [band.id for band in SENTINEL_2.bands]
OF_POINTS = ("dataset", "search", "evaluate", "report")


def test_points_of_six_bands_and_half_months_to_scores(real_data, ray_local, tmp_path):
    content = {
        "name": "argentina", "workspace": str(tmp_path / "work"), "season_start": "2019-01",
        "cube": {"bands": ["B02", "B03", "B04", "B08", "B11", "B12"], "step": "half-month"},
        "points": {"path": str(real_data / "argentina_points" / "points_6x24.parquet")},
        "dataset": {"on_overlap": "trim"},
        "search": {"models": ["xgboost"], "xgboost": {"n_estimators": [20, 60], "learning_rate": [0.2]}},
        "xgboost": {"max_depth": 4},
    }  # fmt: skip
    config = write_job(content, tmp_path)
    run_stages(OF_POINTS, config, ())
    workspace = load_settings(JobConfig, config).artefacts
    manifest = load_manifest(workspace.manifest)
    assert manifest.cube.shape == (24, 6)
    assert all(len(zone.sums.count) == 6 for zone in manifest.zones)
    assert not [note for note in manifest.notes if note.startswith("columns of the points table that are not used")]
    scores = json.loads((workspace.evaluation("xgboost") / "scores.json").read_text())
    assert scores["metrics"]["test_accuracy"] > 0.7
    card = json.loads((workspace.model("xgboost") / "card.json").read_text())
    assert card["features"] == list(manifest.cube.columns)
    assert len(card["features"]) == 144
    page = (workspace.report / "index.html").read_text()
    assert "144 features per pixel (24 half-months × 6 bands)" in page

    mlflow.set_tracking_uri(f"sqlite:///{workspace.mlflow_database}")
    served = mlflow.pyfunc.load_model("models:/argentina@champion")
    assert served.metadata.metadata["cube"] == manifest.cube.to_record()
    assert served.metadata.signature.inputs.input_names() == list(manifest.cube.columns)
    rows = read_pixels(workspace, manifest.of_split("test")[0].zone_id, manifest.cube).to_pandas()
    assert len(served.predict(rows)) == len(rows)


@pytest.fixture(scope="module")
def finished(ray_local, tmp_path_factory):
    """Ten bands and dekads of a season from September on, every stage run once: its config file."""
    folder = tmp_path_factory.mktemp("ten")
    settings = LandscapeSettings(
        n_regions=2, zones_per_region=3, zone_px=32, gap_px=30, scenes_per_month=4, bands=TEN, year=2022, first_month=9
    )
    land = draw_landscape(settings, folder / "raw")
    cube = {"bands": TEN, "step": "dekad"}
    small = {"dataset": {"tile_size": 16, "buffer_m": 100, "n_folds": 2}, "report": {"films": "one_per_region"}}
    config = write_job(job(land, folder / "work", season_start="2022-09", cube=cube, **small), folder)
    run_stages(PIPELINE, config, ())
    return config


def test_ten_bands_and_dekads_from_scenes_to_maps(finished):
    loaded = load_settings(JobConfig, finished)
    workspace, cube = loaded.artefacts, loaded.cube_spec
    assert cube.shape == (36, 10)
    manifest = load_manifest(workspace.manifest)
    assert manifest.cube == cube
    for zone in manifest.zones:
        composite = read_composite(workspace.composite(zone.zone_id), cube=cube)
        table = read_pixels(workspace, zone.zone_id, cube)
        rows, cols = table["row"].to_numpy(), table["col"].to_numpy()
        for name in ("B02_01", "B11_17", "B12_36"):
            band, step = name.split("_")
            values = composite[int(step) - 1, cube.band_ids.index(band), rows, cols]
            np.testing.assert_array_equal(table[name].to_numpy(), values)
        tiles = read_tiles(workspace, zone.zone_id, 16, cube)
        assert tiles.x.shape[1:] == (36, 10, 16, 16)
        sums = [(int((band > 0).sum()), float(band.sum(dtype=np.float64))) for band in composite.swapaxes(0, 1)]
        if zone.n_trimmed == 0:
            assert [total for _, total in sums] == pytest.approx(zone.sums.total)
    for model in ("xgboost", "cnn"):
        assert json.loads((workspace.evaluation(model) / "scores.json").read_text())["metrics"]["test_pixels"] > 100
        for zone in manifest.of_split("test"):
            with rasterio.open(workspace.map(model, zone.zone_id)) as dataset:
                assert dataset.read(1).shape == (32, 32)
    pictures = {path.name for path in workspace.pictures.rglob("*") if path.is_file()}
    assert {"band_profiles.png", "ndvi_profiles.png", "observations.png", "true_colour.gif", "B12.gif"} <= pictures


def test_a_registered_network_says_its_cube(finished):
    workspace = load_settings(JobConfig, finished).artefacts
    mlflow.set_tracking_uri(f"sqlite:///{workspace.mlflow_database}")
    served = mlflow.pyfunc.load_model("models:/small@cnn")
    assert served.metadata.metadata["bands"] == TEN
    assert served.metadata.signature.inputs.inputs[0].shape == (-1, 36, 10, -1, -1)
    assert served.predict(np.full((1, 36, 10, 16, 16), 900, np.uint16)).shape[0] == 1


def test_a_second_run_makes_nothing_and_another_cube_is_refused(finished, capsys):
    workspace = load_settings(JobConfig, finished).artefacts
    before = {path: path.stat().st_mtime_ns for path in workspace.composite("-").parent.glob("*.tif")}
    run_stages(("acquire", "dataset"), finished, ())
    assert "dataset is up to date" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"of another cube, B02 .* × 36 dekads of 12 months, than the job, B02 B03"):
        run_stages(("dataset",), finished, ("cube={}",))
    after = {path: path.stat().st_mtime_ns for path in workspace.composite("-").parent.glob("*.tif")}
    assert after == before
    assert load_settings(JobConfig, finished, ("cube={}",)).cube_spec == STUDY_CUBE


def test_a_plan_counts_the_cube(finished, tmp_path, capsys):
    content = yaml.safe_load(finished.read_text()) | {"workspace": str(tmp_path / "plan")}
    run_plan(write_job(content, tmp_path), ())
    assert "labelled pixels of" in capsys.readouterr().out
    assert CubeSpec(SENTINEL_2.bands, "dekad", 12) == load_settings(JobConfig, finished).cube_spec
