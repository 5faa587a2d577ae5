"""Requests and bytes of remote sources, by hand."""

import pytest

from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings
from cropray.imagery.sources.earth_engine.traffic import CLIENT_BYTES, LISTING_BYTES, earth_engine_traffic, n_windows
from cropray.imagery.sources.stac.traffic import item_bytes, stac_traffic
from tests.synthetic import grid


def settings(**changes):
    return EarthEngineSettings.model_validate({"source": "earth_engine", "project": "p", **changes})


def test_the_study_s_zones():
    # 40 zones of 1000 × 1000: 40 listings, 480 months, and three requests of each of 20 clients.
    traffic = earth_engine_traffic(settings(), [grid(1000)] * 40)
    assert traffic.requests == 40 + 480 + 60
    # Nine bytes a pixel: four uint16 bands and a uint8 count.
    assert traffic.bytes == 480 * 1_000_000 * 9 + 40 * LISTING_BYTES + 20 * CLIENT_BYTES
    # 10 scenes of 5 bands: 24,000 million band-pixels at 1 EECU-second per million.
    assert traffic.eecu_hours == pytest.approx(24_000 / 3600)
    # 520 answers of 2 s, and 20 s for each of 480 million pixels, by 20 clients.
    assert traffic.seconds == pytest.approx((520 * 2 + 480 * 20) / 20)


def test_few_units_have_few_clients_and_the_rate_bounds():
    traffic = earth_engine_traffic(settings(max_requests_per_s=0.5), [grid(48)], measured_unit_s=0.1)
    assert traffic.requests == 1 + 12 + 13 * 3
    assert traffic.seconds == pytest.approx(52 / 0.5)
    quick = earth_engine_traffic(settings(max_concurrent=2), [grid(48)], measured_unit_s=30)
    assert quick.seconds == pytest.approx(13 * 30 / 2)


@pytest.mark.parametrize(("side", "expected"), [(48, 1), (1000, 1), (1896, 1), (1900, 4), (3800, 16)])
def test_windows_of_one_request(side, expected):
    # 14 counted bytes a pixel: 48 MiB are 3.595 million pixels, a square of 1896.
    assert n_windows(side * side) == expected


def test_stac_reads_whole_blocks():
    # 1000 pixels touch 999 + 1024 pixels of blocks on average, 500 of 20 m touch 499 + 1024.
    one = 4 * 2023**2 * 1.8 + 1523**2 * 0.1 + 5 * 32_768
    assert item_bytes(grid(1000)) == pytest.approx(one)
    traffic = stac_traffic([grid(1000), grid(1000)], [3, 5])
    assert traffic.requests == 2 + 8 * 10
    assert traffic.bytes == pytest.approx(8 * one)
    assert traffic.eecu_hours is None
