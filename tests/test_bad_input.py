"""What a user gets for input that cannot be used: the cause and the remedy on one screen, before any long work.

Every case runs the real command line on a small drawn landscape with one thing broken.
"""

import json
import os
import shutil

import geopandas
import numpy as np
import pytest
import rasterio
import yaml

from cropray.cli import main
from cropray.config import JobConfig
from cropray.io.job_file import load_settings
from cropray.io.workspace_lock import locked
from cropray.io.zones import Zone, read_zones, write_zones
from cropray.landscape.draw import LandscapeFiles
from tests.jobs import job, write_job

FIRST = "picardie-2"  # a training zone of the small landscape


@pytest.fixture
def own(landscape, tmp_path):
    """A copy of the landscape that a test may break."""
    shutil.copytree(landscape.folder, tmp_path / "raw")
    return LandscapeFiles(tmp_path / "raw")


def refusal(capsys, stage, content, folder, *overrides):
    """Run a stage that must be refused; what it printed to standard error."""
    code = main([stage, str(write_job(content, folder)), *(f"--set={text}" for text in overrides)])
    error = capsys.readouterr().err
    assert code == 1, error
    return error


def edit_parcels(files, change):
    table = change(geopandas.read_file(files.parcels))
    files.parcels.unlink()
    table.to_file(files.parcels, driver="GPKG", layer="PARCELLES_GRAPHIQUES")


def test_missing_config(capsys, tmp_path):
    assert main(["zones", str(tmp_path / "nowhere.yaml")]) == 1
    assert "nowhere.yaml' does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("dataset.tile_sise=32", "unknown key 'dataset.tile_sise'; did you mean 'tile_size'?"),
        ("search.cnn.learning_rate=[-0.001]", "greater than 0"),
        ("search.xgboost.n_estimators=[0]", "greater than 0"),
        ("zones=[nowhere-9]", "zones ['nowhere-9'] are not in the zone table"),
        ("season_start=2023-13", "season_start"),
        ("workspace=s3://bucket/run", "set 'tracking_uri' to a server"),
        ("workspace=ftp://host/run", "'ftp://' is not known"),
        ("parcels=null", "'imagery' and 'parcels' are both required"),
    ],
)
def test_refused_setting(capsys, landscape, tmp_path, override, expected):
    assert expected in refusal(capsys, "zones", job(landscape, tmp_path / "work"), tmp_path, override)


def test_a_submitted_job_cannot_write_where_it_would_be_lost(capsys, landscape, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    error = refusal(capsys, "zones", job(landscape, "work"), tmp_path)
    assert "'workspace': a submitted job would lose a relative folder; give s3://bucket" in error


@pytest.mark.parametrize(
    "override", ["tracking_uri=https://user:hunter2@mlflow.example", "workspace=s3://key:hunter2@bucket/run"]
)
def test_passwords_are_refused_and_not_repeated(capsys, landscape, tmp_path, override):
    error = refusal(capsys, "zones", job(landscape, tmp_path / "work"), tmp_path, override)
    assert "password" in error or "credentials" in error
    assert "hunter2" not in error
    assert not (tmp_path / "work").exists()


def test_workspace_that_cannot_be_written(capsys, landscape, tmp_path):
    (tmp_path / "file").touch()
    error = refusal(capsys, "zones", job(landscape, tmp_path / "file" / "work"), tmp_path)
    assert "cannot be written" in error
    assert "set 'workspace'" in error


def test_workspace_that_another_run_is_at_work_on(capsys, landscape, tmp_path):
    content = job(landscape, tmp_path / "work")
    (tmp_path / "work").mkdir()
    with locked(tmp_path / "work"):
        error = refusal(capsys, "zones", content, tmp_path)
    assert "work' is in use" in error
    assert f"process {os.getpid()} " in error
    assert not (tmp_path / "work" / "configs").exists()
    assert main(["zones", str(tmp_path / "job.yaml")]) == 0


def test_missing_scene_folder(capsys, landscape, tmp_path):
    content = job(landscape, tmp_path / "work", imagery={"folder": str(tmp_path / "nowhere")})
    assert "nowhere' does not exist" in refusal(capsys, "acquire", content, tmp_path)


def test_missing_parcel_file(capsys, landscape, tmp_path):
    content = job(landscape, tmp_path / "work", parcels={"path": str(tmp_path / "nowhere.gpkg")})
    assert "nowhere.gpkg' does not exist" in refusal(capsys, "labels", content, tmp_path)


def test_scene_in_another_utm_zone(capsys, own, tmp_path):
    scene = next(own.scenes.glob("picardie/*.tif"))
    with rasterio.open(scene, "r+") as dataset:
        # The same place on the ground, declared in the neighbouring zone's system.
        west = rasterio.warp.transform_bounds(dataset.crs, "EPSG:32632", *dataset.bounds)
        dataset.crs = "EPSG:32632"
        dataset.transform = rasterio.Affine(10, 0, west[0] // 10 * 10, 0, -10, west[3] // 10 * 10)
    error = refusal(capsys, "acquire", job(own, tmp_path / "work"), tmp_path)
    assert scene.name in error
    assert "EPSG:32632" in error


def test_scene_without_a_coordinate_system(capsys, own, tmp_path):
    scene = next(own.scenes.glob("picardie/*.tif"))
    with rasterio.open(scene) as dataset:
        pixels, profile, names = dataset.read(), dataset.profile, dataset.descriptions
    with rasterio.open(scene, "w", **{**profile, "crs": None}) as dataset:
        dataset.write(pixels)
        dataset.descriptions = names
    error = refusal(capsys, "acquire", job(own, tmp_path / "work"), tmp_path)
    assert scene.name in error
    assert "no coordinate system" in error


def test_corrupt_scene(capsys, own, tmp_path):
    scene = next(own.scenes.glob("picardie/*.tif"))
    scene.write_bytes(scene.read_bytes()[:2000])
    error = refusal(capsys, "acquire", job(own, tmp_path / "work"), tmp_path)
    assert scene.name in error
    assert "fetch it again" in error


def test_parcels_without_a_coordinate_system(capsys, own, tmp_path):
    edit_parcels(own, lambda table: table.set_crs(None, allow_override=True))
    assert "EPSG:2154" in refusal(capsys, "labels", job(own, tmp_path / "work"), tmp_path)


def test_parcels_without_the_code_column(capsys, own, tmp_path):
    edit_parcels(own, lambda table: table.drop(columns="CODE_CULTU"))
    error = refusal(capsys, "labels", job(own, tmp_path / "work"), tmp_path)
    assert "CODE_CULTU" in error
    assert "ID_PARCEL" in error  # the columns that there are


def test_corrupt_parcel_file(capsys, own, tmp_path):
    own.parcels.write_bytes(b"SQLite format 3\0" + bytes(100))
    assert "parcels.gpkg" in refusal(capsys, "labels", job(own, tmp_path / "work"), tmp_path)


@pytest.mark.ray
def test_unknown_codes_above_the_limit(capsys, ray_local, own, tmp_path):
    edit_parcels(
        own, lambda table: table.assign(CODE_CULTU=["QQQ" if i % 2 else c for i, c in enumerate(table.CODE_CULTU)])
    )
    error = refusal(capsys, "labels", job(own, tmp_path / "work"), tmp_path)
    assert "QQQ" in error
    assert "dataset.max_unknown_share" in error


@pytest.mark.ray
def test_zone_without_parcels_fails_alone(capsys, ray_local, own, tmp_path):
    zones = read_zones(own.zones)
    grid = zones[0].grid
    away = type(grid)(grid.epsg, grid.x_min + 60_000, grid.y_max, grid.height, grid.width)
    write_zones([*zones, Zone("empty", "picardie", "train", away)], own.zones)
    error = refusal(capsys, "labels", job(own, tmp_path / "work"), tmp_path)
    assert "zone 'empty' has no parcel" in error
    assert "6 finished" in error
    workspace = load_settings(JobConfig, tmp_path / "job.yaml").artefacts
    assert all(workspace.labels(zone.zone_id).exists() for zone in zones)


@pytest.mark.ray
def test_zone_under_cloud_all_year(capsys, ray_local, own, tmp_path):
    zone = next(zone for zone in read_zones(own.zones) if zone.zone_id == FIRST)
    for scene in own.scenes.glob("picardie/*.tif"):
        with rasterio.open(scene, "r+") as dataset:
            x_min, y_min, x_max, y_max = zone.grid.bounds
            window = rasterio.windows.from_bounds(x_min, y_min, x_max, y_max, dataset.transform).round()
            scl = np.full(zone.grid.shape, 9, np.uint16)  # 9: cloud, high probability
            dataset.write(scl, dataset.descriptions.index("SCL") + 1, window=window)
    error = refusal(capsys, "acquire", job(own, tmp_path / "work"), tmp_path)
    assert f"zone '{FIRST}'" in error
    assert "clear" in error
    assert "5 finished" in error


def test_search_before_the_dataset(capsys, landscape, tmp_path):
    error = refusal(capsys, "search", job(landscape, tmp_path / "work"), tmp_path)
    assert "run `cropray dataset CONFIG.yaml` first" in error


@pytest.mark.slow
@pytest.mark.ray
class TestDataset:
    """A finished dataset with one thing broken."""

    @pytest.fixture
    def content(self, finished, tmp_path):
        """A job on a copy of the finished dataset."""
        content = yaml.safe_load(finished.read_text())
        done = load_settings(JobConfig, finished).artefacts
        shutil.copytree(done.dataset, tmp_path / "work" / "dataset")
        for folder in ("composites", "labels", "parcels"):
            shutil.copytree(done.root / folder, tmp_path / "work" / folder)
        return content | {"workspace": str(tmp_path / "work"), "seed": 7}

    def test_older_schema(self, capsys, content, tmp_path):
        path = tmp_path / "work" / "dataset" / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 0}))
        error = refusal(capsys, "search", content, tmp_path)
        assert "schema version 0" in error
        assert "cropray dataset" in error

    @pytest.mark.parametrize("kind", ["pixels", "tiles"])
    def test_corrupt_shard(self, capsys, content, tmp_path, kind):
        shard = next((tmp_path / "work" / "dataset" / kind / f"zone_id={FIRST}").glob("*.parquet"))
        shard.write_bytes(shard.read_bytes()[:500])
        model = "xgboost" if kind == "pixels" else "cnn"
        error = refusal(capsys, "search", content, tmp_path, f"search.models=[{model}]")
        assert shard.name in error
        assert FIRST in error

    def test_a_class_that_only_test_zones_hold_is_announced(self, capsys, content, tmp_path):
        zones = read_zones(content["zone_table"])
        for zone in zones:  # maize stays in test zones only
            if zone.split == "train":
                path = tmp_path / "work" / "labels" / f"{zone.zone_id}.tif"
                with rasterio.open(path, "r+") as dataset:
                    labels = dataset.read(1)
                    dataset.write(np.where(labels == maize_id(), 255, labels).astype(np.uint8), 1)
        assert main(["dataset", str(write_job(content, tmp_path))]) == 0
        assert "classes seen only in test zones: Maize" in capsys.readouterr().out

    def test_more_workers_than_the_cluster_holds(self, capsys, content, tmp_path):
        error = refusal(capsys, "search", content, tmp_path, "cnn.num_workers=64", "search.models=[cnn]")
        assert "it would wait for ever" in error
        assert "num_workers" in error


def maize_id():
    from cropray.core.legend import bundled_legend

    return bundled_legend().names.index("Maize")
