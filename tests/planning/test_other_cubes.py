"""Sizes follow the cube: every band and step that is added is counted once, wherever it is stored or asked for."""

import pytest

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.grid import Grid
from cropray.core.sensors import SENTINEL_2, known_band
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings
from cropray.imagery.sources.earth_engine.traffic import earth_engine_traffic, n_windows
from cropray.imagery.sources.stac.traffic import HEADER_BYTES, item_bytes, stac_traffic
from cropray.planning.limits import least
from cropray.search.store import data_bytes, scratch_bytes, tile_bytes
from cropray.training.xgboost.memory import bins_on_disk, gpu_row_bytes, resident_bytes, row_bytes
from cropray.training.xgboost.settings import XgboostSettings

TEN_DEKADS = CubeSpec(SENTINEL_2.bands, "dekad", 12)  # 36 × 10 numbers
GRID = Grid(32631, 600_000, 5_400_000, 1000, 1000)


def test_rows_and_tiles():
    assert data_bytes("pixel", 100, 0, 0, TEN_DEKADS) == 100 * (720 + 1)
    assert tile_bytes(32, TEN_DEKADS) == 32 * 32 * 721
    assert data_bytes("tile", 0, 7, 32, TEN_DEKADS) == 7 * 32 * 32 * 721
    assert scratch_bytes(7, 32, 2, TEN_DEKADS) == 2 * 7 * 32 * 32 * 721


def test_memory_of_trees():
    settings = XgboostSettings()
    of_study, of_ten = row_bytes(settings, 9), row_bytes(settings, 9, 360)
    assert of_ten - resident_bytes(9) == pytest.approx(7.5 * (of_study - resident_bytes(9)))
    assert gpu_row_bytes(settings, 9, 360) > 7 * (gpu_row_bytes(settings, 9) - 9 * 12)
    memory = 0.6e9 + 1e6 * of_study
    assert not bins_on_disk(settings, 1e6, 9, memory)
    assert bins_on_disk(settings, 1e6, 9, memory, 360)


def test_the_least_that_a_job_needs():
    study, ten = least(10**6, 10**6), least(10**6, 10**6, TEN_DEKADS)
    assert ten["disk", "least"] == pytest.approx(7.5 * study["disk", "least"])
    assert ten["memory", "object store"] == 1e5 * (720 + 36)
    assert study["memory", "object store"] == 1e5 * (96 + 12)


def test_earth_engine_is_asked_for_each_step():
    settings = EarthEngineSettings(source="earth_engine", project="p")
    small = Grid(32631, 600_000, 5_400_000, 100, 100)
    assert earth_engine_traffic(settings, [small], cube=TEN_DEKADS).requests == 1 + 36 + 20 * 3
    assert earth_engine_traffic(settings, [small]).requests == 1 + 12 + 13 * 3
    assert n_windows(1_000_000) == 1
    assert n_windows(1_600_000, TEN_DEKADS) == 4  # 1.6 million pixels of 21 bytes and 11 of masks
    season = earth_engine_traffic(settings, [small], cube=CubeSpec(STUDY_CUBE.bands, "season", 12))
    year = earth_engine_traffic(settings, [small])
    assert season.eecu_hours == year.eecu_hours  # the same scenes are read


def test_items_of_20_m_are_read_in_fewer_blocks():
    swir, blue = (CubeSpec((known_band(band),)) for band in ("B11", "B02"))
    of_scl = item_bytes(GRID, swir) - 2 * HEADER_BYTES - (500 + 1023) ** 2 * 1.8
    assert of_scl == pytest.approx((500 + 1023) ** 2 * 0.1)
    assert item_bytes(GRID, blue) - item_bytes(GRID, swir) == pytest.approx(
        ((1000 + 1023) ** 2 - (500 + 1023) ** 2) * 1.8
    )
    assert stac_traffic([GRID], [3], TEN_DEKADS).requests == 1 + 3 * 11 * 2
