"""Land cover by the real Earth Engine client from a stand-in of the service."""

import datetime as dt

import numpy as np
import pytest

from cropray.core.grid import Grid
from cropray.imagery.sources.earth_engine import settings as earth_engine_settings
from cropray.imagery.sources.earth_engine.client import EarthEngineError
from cropray.zone_selection.land_cover import land_cover_map
from cropray.zone_selection.settings import LandCoverEarthEngine, LandCoverFiles
from tests.servers.earth_engine import PROJECT, EarthEngineServer
from tests.servers.earth_engine_graph import Asset
from tests.zone_selection.land_cover_files import draw_classes, write_map

GRID = Grid(32631, 500_040, 5_539_980, 30, 40, 100.0)
STEP = 1 / 3600  # degrees


@pytest.fixture(scope="module")
def classes():
    return draw_classes((200, 180))  # the grid reaches beyond its east and south


@pytest.fixture
def server(classes, monkeypatch):
    monkeypatch.setattr("ee.deprecation._FetchDataCatalogStac", dict)  # asks the internet for a catalogue
    year = dt.datetime(2021, 1, 1, tzinfo=dt.UTC)
    asset = Asset("ESA/WorldCover/v200/2021", year, "EPSG:4326", 2.99, 50.02, {"Map": (STEP, classes)})
    with EarthEngineServer({"ESA/WorldCover/v200": [asset]}) as running:
        yield running


def read(server, **settings):
    anonymous = {"credentials": "anonymous", "endpoint": server.url, "first_wait_s": 0.01, "max_attempts": 4}
    return land_cover_map(LandCoverEarthEngine(project=PROJECT, **anonymous, **settings)).read(GRID)


def test_earth_engine_gives_what_a_file_gives(server, classes, tmp_path):
    path = write_map(tmp_path / "map.tif", classes, 2.99, 50.02, STEP)
    found = read(server)
    assert found.dtype == np.uint8
    assert 0 < (found == 0).mean() < 0.5
    np.testing.assert_array_equal(found, land_cover_map(LandCoverFiles(path=path)).read(GRID))
    assert len(server.asked()) == 1


def test_what_is_too_large_for_one_request_is_asked_for_in_parts(server, monkeypatch):
    whole = read(server)
    monkeypatch.setattr(earth_engine_settings, "MAX_REQUEST_BYTES", 30 * 40 * 2 - 1)  # a class and its mask
    np.testing.assert_array_equal(read(server, min_window_px=20), whole)
    assert len(server.asked()) == 1 + 4


def test_a_busy_service_is_asked_again(server):
    whole = read(server)
    server.faults.extend(["429", "503", "500"])
    np.testing.assert_array_equal(read(server), whole)


def test_a_refusal_is_asked_once_and_told(server):
    with pytest.raises(EarthEngineError, match=r"'ESA/WorldCover/v9'.*not found.*zone_selection\.worldcover"):
        read(server, collection="ESA/WorldCover/v9")
    assert len(server.asked()) == 1
