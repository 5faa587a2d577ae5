"""Composites by Earth Engine's real client equal those of the same scenes as files, bit for bit."""

import dataclasses

import numpy as np
import pytest

from cropray.core.cube import Season
from cropray.core.grid import Grid, Window
from cropray.imagery.acquire import acquire_zone
from cropray.imagery.composites import read_composite, read_n_obs
from cropray.imagery.sources.earth_engine.client import EarthEngine
from cropray.imagery.sources.earth_engine.months import assemble_zone, write_month
from cropray.imagery.sources.files.scenes import FileScenes, FilesSettings
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone, read_zones
from tests.imagery.earth_engine_may import GRID, MAY, units_of, write_may
from tests.servers.earth_engine import EarthEngineServer
from tests.servers.earth_engine_catalogue import catalogue


def acquire(client, zone, first_month, folder):
    """The composite by Earth Engine, without a cluster."""
    workspace = Workspace(folder)
    units = units_of(client, zone, first_month)
    for unit in units:
        write_month(workspace, unit, client.month(unit))
    return assemble_zone(workspace, zone, Season(first_month), units)


def assert_equals_files(client, zone, scene_folder, folder, first_month="2023-01", **pattern):
    record = acquire(client, zone, first_month, folder / "ee")
    source = FileScenes(FilesSettings(folder=scene_folder, **pattern))
    assert record == acquire_zone(source, zone, first_month, Workspace(folder / "files"))
    for name, read in ((f"{zone.zone_id}.tif", read_composite), (f"{zone.zone_id}.nobs.tif", read_n_obs)):
        np.testing.assert_array_equal(
            read(folder / "ee/composites" / name), read(folder / "files/composites" / name), strict=True
        )


def test_equals_the_files_with_parts_that_overlap(tmp_path):
    scenes = write_may(tmp_path / "scenes")
    beyond = dataclasses.replace(MAY, grid=GRID.crop(Window(-3, 11, 21, 40)))  # a seam, two edges
    with EarthEngineServer(catalogue(scenes.iterdir())) as running:
        client = EarthEngine(running.settings())
        assert_equals_files(client, MAY, scenes, tmp_path)
        assert_equals_files(client, beyond, scenes, tmp_path / "beyond")


def test_equals_the_files_on_the_drawn_landscape(landscape, tmp_path):
    zone = read_zones(landscape.zones)[0]
    with EarthEngineServer(catalogue(landscape.scenes.rglob("*.tif"))) as running:
        assert_equals_files(EarthEngine(running.settings()), zone, landscape.scenes, tmp_path)
        assert len(running.asked("compute")) == 1
        assert len(running.asked()) == 12


@pytest.mark.slow
def test_equals_the_files_on_real_scenes(real_data, tmp_path):
    chip = real_data / "flanders_chips" / "00002806639B424A" / "scenes"
    paths = sorted(chip.glob("*.tif"))
    with EarthEngineServer(catalogue(paths)) as running:
        (asset, *_) = running.evaluator.assets.values()
        zone = Zone("chip", "flanders", "test", Grid(32631, asset.x_min, asset.y_max, 64, 64))
        assert_equals_files(EarthEngine(running.settings()), zone, chip, tmp_path, "2017-12")
