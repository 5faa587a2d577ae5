"""The same scenes as files and through a STAC API: composites and counts must be equal bit for bit."""

import datetime as dt
import json
import re

import numpy as np
import pytest
import rasterio

from cropray.core.grid import Grid, Window
from cropray.imagery.acquire import acquire_zone
from cropray.imagery.composites import read_composite, read_n_obs
from cropray.imagery.sources.files.scenes import FileScenes, FilesSettings
from cropray.imagery.sources.stac.scenes import StacScenes
from cropray.imagery.sources.stac.settings import StacSettings
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone, read_zones
from tests.imagery.rasters import draw_pixels, write_scene
from tests.servers.stac import StacServer
from tests.servers.stac_items import write_item

BASELINES = ("02.06", "05.00", "05.11")  # the later ones are stored with their offset


def item_of(path, root, index, **kwargs):
    """Serve a scene file: every third as the old processing, the others with the offset in their numbers."""
    start = re.search(r"\d{8}T\d{6}", path.name)[0]
    acquired = dt.datetime.strptime(start, "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
    with rasterio.open(path) as dataset:
        a, _, c, _, _, f = dataset.transform[:6]
        grid = Grid(dataset.crs.to_epsg(), c, f, dataset.height, dataset.width, a)
        return write_item(root, acquired, dataset.read(), grid, baseline=BASELINES[index % 3], **kwargs)


def require_equal(files, stac, zones, first_month, folder):
    for zone in zones:
        made = {}
        for name, source in (("files", files), ("stac", stac)):
            workspace = Workspace(folder / name)
            record = acquire_zone(source, zone, first_month, workspace)
            paths = workspace.composite(zone.zone_id), workspace.n_obs(zone.zone_id)
            made[name] = record, read_composite(paths[0]), read_n_obs(paths[1])
        assert made["files"][0] == made["stac"][0]
        np.testing.assert_array_equal(made["files"][1], made["stac"][1])
        np.testing.assert_array_equal(made["files"][2], made["stac"][2])
        assert made["files"][1].any()


def stac(server):
    return StacScenes(StacSettings(source="stac", url=server.url, max_wait_s=0.1))


@pytest.mark.parametrize(
    ("chip", "first_month", "every"),
    [
        ("00002806639B424A", "2017-12", 6),
        pytest.param("00002806639B424A", "2017-12", 1, marks=pytest.mark.slow),
        pytest.param("0000280849BAC91C", "2018-12", 1, marks=pytest.mark.slow),
    ],
)
def test_real_scenes(real_data, tmp_path, chip, first_month, every):
    paths = []
    for path in sorted((real_data / "flanders_chips" / chip / "scenes").glob("*.tif"))[::every]:
        paths.append(tmp_path / "files" / path.name)
        paths[-1].parent.mkdir(exist_ok=True)
        paths[-1].symlink_to(path)
    with rasterio.open(paths[0]) as dataset:
        grid = Grid(32631, dataset.transform.c, dataset.transform.f, 64, 64)
    zone = Zone("chip", "flanders", "test", grid.crop(Window(20, 0, 60, 64)))  # reaches beyond the scenes
    items = [item_of(path, tmp_path / "stac", index) for index, path in enumerate(paths)]
    with StacServer(tmp_path / "stac", items, page_size=25) as server:
        files = FileScenes(FilesSettings(folder=tmp_path / "files"))
        require_equal(files, stac(server), [zone], first_month, tmp_path)


def test_overlapping_tiles_of_one_instant(tmp_path):
    """The west tile comes first in both sources; the east one is listed first and was seen 7 s later."""
    grid = Grid(32631, 600_000.0, 5_400_000.0, 36, 60)
    west, east = Window(0, 0, 36, 42), Window(0, 24, 36, 36)
    items = []
    for day in range(1, 28, 3):
        for tile, window in (("31UFS", east), ("31UES", west)):
            part = grid.crop(window)
            pixels = draw_pixels(part.shape, seed=100 * day + window.col)
            pixels[:4, :3, :5] = 0
            date = f"2023-06-{day:02d}T10:50:31"
            path = write_scene(tmp_path / "files", date, pixels, part, name=f"{tile}_202306{day:02d}T105031.tif")
            items.append(
                item_of(path, tmp_path / "stac", day // 3, tile=tile, seen_after_s=341 if part == west else 348)
            )
    zone = Zone("seam", "north", "test", grid)
    with StacServer(tmp_path / "stac", items) as server:
        files = FileScenes(FilesSettings(folder=tmp_path / "files"))
        require_equal(files, stac(server), [zone], "2023-01", tmp_path)


def test_a_zones_record_holds_what_was_found_in_its_pixels(tmp_path):
    """The catalogue says that the offset is in the numbers, and the vegetation is too dark for that."""
    grid = Grid(32631, 600_000.0, 5_400_000.0, 12, 18)
    pixels = draw_pixels(grid.shape, scl=4)
    pixels[:4] = pixels[:4] // 20 + 50
    acquired = dt.datetime(2023, 5, 1, 10, 50, 31, tzinfo=dt.UTC)
    item = write_item(tmp_path / "stac", acquired, pixels, grid, baseline="05.09", raw=False, flag=False)
    workspace = Workspace(tmp_path / "work")
    with StacServer(tmp_path / "stac", [item]) as server:
        record = acquire_zone(stac(server), Zone("here", "north", "test", grid), "2023-01", workspace)
    (warning,) = record.warnings
    assert item["id"] in warning
    assert "no offset" in warning
    assert json.loads(workspace.acquisition_record("here").read_text())["warnings"] == [warning]


@pytest.mark.slow
def test_the_drawn_landscape(landscape, tmp_path):
    zones = read_zones(landscape.zones)
    regions = sorted({zone.region for zone in zones})
    chosen = [next(zone for zone in zones if zone.region == region) for region in regions]
    items = [
        item_of(path, tmp_path / "stac", index, tile=f"31UA{letter}")
        for letter, region in zip("ABCDEFGH", regions, strict=False)
        for index, path in enumerate(sorted((landscape.scenes / region).glob("*.tif")))
    ]
    with StacServer(tmp_path / "stac", items) as server:
        files = FileScenes(FilesSettings(folder=landscape.scenes))
        require_equal(files, stac(server), chosen, "2023-01", tmp_path)
