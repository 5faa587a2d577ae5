"""The real client against the stand-in: what is asked for, and how errors are told apart."""

import dataclasses
import json
import multiprocessing

import ee
import numpy as np
import pytest

from cropray.core.cube import Season
from cropray.core.fingerprint import fingerprint
from cropray.imagery.sources.earth_engine.client import EarthEngine, EarthEngineError, month_expression
from cropray.imagery.sources.earth_engine.months import RECIPE, MonthUnit, listing_key
from tests.imagery.earth_engine_may import GRID, MAY, may, write_may
from tests.servers.earth_engine import EarthEngineServer
from tests.servers.earth_engine_catalogue import COLLECTION, catalogue


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    with EarthEngineServer(catalogue(write_may(tmp_path_factory.mktemp("scenes")).iterdir())) as running:
        yield running, EarthEngine(running.settings())


@pytest.fixture
def server(started):
    started[0].forget()
    return started[0]


@pytest.fixture
def client(started, server):
    """Connected before; its account is empty."""
    started[1].take_account()
    return started[1]


def test_a_month_asks_once_for_its_exact_pixels(client, server):
    unit = may(client)
    client.take_account()
    client.month(unit)
    (request,) = server.asked()
    assert request.grid == (600_000, 5_400_000, 37, 50)
    account = client.take_account()
    assert (account.requests, account.splits, account.errors) == (1, 0, {})
    assert account.bytes > 50 * 37 * 9
    assert client.take_account().requests == 0


@pytest.mark.parametrize("fault", ["429", "500", "503", "drop", "truncate", "damage"])
def test_what_may_go_away_is_waited_for(client, server, fault):
    unit = may(client)
    expected = client.month(unit)
    client.take_account()
    server.faults.extend([fault, fault])
    np.testing.assert_array_equal(client.month(unit).median, expected.median)
    account = client.take_account()
    assert (account.requests, account.errors.total(), account.splits) == (3, 2, 0)
    assert len(server.asked()) == 4


def test_a_silent_server_is_not_waited_for_longer_than_the_time_out(client, server, monkeypatch):
    unit = may(client)
    server.delay_s = 0.6
    monkeypatch.setattr(client._transport, "_timeout_s", 0.2)
    monkeypatch.setattr(client, "_policy", dataclasses.replace(client._policy, max_attempts=2))
    with pytest.raises(EarthEngineError, match=r"no answer within 0.2 s.*2 × TimeoutError"):
        client.month(unit)


def test_retry_after_is_heeded(client, server, monkeypatch):
    waits = []
    monkeypatch.setattr(client, "_sleep", waits.append)
    unit = may(client)
    server.retry_after = 30
    server.faults.extend(["429", "503", "500"])
    client.month(unit)
    assert [wait >= 30 for wait in waits] == [True, True, False]


def test_too_much_is_asked_for_in_quarters(client, server):
    unit = may(client)
    expected = client.month(unit)
    client.take_account()
    before = len(server.asked())
    server.faults.extend(["memory", "503", None, None, None, "timeout"])  # the whole, and its last quarter
    pixels = client.month(unit)
    np.testing.assert_array_equal(pixels.median, expected.median)
    np.testing.assert_array_equal(pixels.n_obs, expected.n_obs)
    sizes = [request.grid[2:] for request in server.asked()[before:]]
    assert sizes[:6] == [(37, 50), (19, 25), (19, 25), (18, 25), (19, 25), (18, 25)]  # the first quarter twice
    assert sizes[6:] == [(9, 13), (9, 13), (9, 12), (9, 12)]
    assert client.take_account().splits == 2


def test_quarters_end_at_the_smallest_window(client, server, monkeypatch):
    monkeypatch.setattr(client, "_settings", server.settings(min_window_px=20))
    unit = may(client)
    server.faults.extend(["memory"] * 100)
    with pytest.raises(EarthEngineError, match=r"User memory limit exceeded.*min_window_px"):
        client.month(unit)
    assert [request.grid[2:] for request in server.asked()] == [(37, 50), (19, 25), (10, 13)]


def test_a_window_that_cannot_pass_is_not_asked_for(client, server, monkeypatch):
    unit = may(client)
    expected = client.month(unit)
    for limit, n_requests in ((50 * 37 * 14, 1), (50 * 37 * 14 - 1, 4)):  # 4 × (2 + 1) + 1 + 1 bytes a pixel
        monkeypatch.setattr("cropray.imagery.sources.earth_engine.settings.MAX_REQUEST_BYTES", limit)
        server.forget()
        np.testing.assert_array_equal(client.month(unit).median, expected.median)
        assert len(server.asked()) == n_requests


def test_a_refusal_is_asked_once_and_told_in_the_server_s_words(client, server):
    unit = dataclasses.replace(may(client), acquisitions=((f"{COLLECTION}/gone",),))
    with pytest.raises(EarthEngineError, match=r"Image asset 'COPERNICUS/S2_SR_HARMONIZED/gone' not found.*1 × 400"):
        client.month(unit)
    assert len(server.asked()) == 1
    server.faults.append("403")
    with pytest.raises(EarthEngineError, match="required permission"):
        client.month(unit)
    assert len(server.asked()) == 2


def test_every_request_takes_its_turn(server):
    turns = []
    client = EarthEngine(server.settings(), take_turn=lambda: turns.append(1))
    client.month(may(client))
    assert len(turns) == len(server.requests)
    assert len(server.asked("connect")) == 3


def _use(client, unit, answers):
    try:
        client.month(unit)
    except RuntimeError as error:
        answers.put(str(error))


def test_a_forked_process_is_refused(client, server):
    unit = may(client)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_use, args=(client, unit, answers))
    child.start()
    child.join(10)
    child.kill()
    assert not answers.empty()
    assert "made in another process" in answers.get()


@pytest.mark.usefixtures("client")
def test_the_recipe_names_the_expression():
    # Another hash means other pixels: then raise RECIPE too, or months that were asked for before are taken for them.
    sent = json.dumps(ee.serializer.encode(month_expression([["a/1", "a/2"], ["a/3"]])), sort_keys=True)
    assert (RECIPE, fingerprint(sent)[:16]) == (1, "d946de8ba2f75857")


def test_the_keys_of_a_month_and_of_a_listing_hold_the_recipe(server, monkeypatch):
    unit = MonthUnit("z", "2023-05", GRID, (("a",),))
    before = unit.key(), listing_key(server.settings(), MAY, Season("2023-01"))
    monkeypatch.setattr("cropray.imagery.sources.earth_engine.months.RECIPE", 2)
    assert unit.key() != before[0]
    assert listing_key(server.settings(), MAY, Season("2023-01")) != before[1]
