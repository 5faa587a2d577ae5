"""A real MLflow server that dies, is away, or whose answers are lost: afterwards everything is there exactly once."""

import random

import pytest

from cropray.tracking import Tracker
from tests.servers.tracking import FaultyProxy, TrackingServer
from tests.tracking_history import contents, prepare, run_history, steps

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
N_POSITIONS = 3  # test_tracking_outages.py has a fault at every call


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with TrackingServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(server):
    with FaultyProxy(server.url) as proxy:
        yield proxy


class Case:
    """One run of the history against the server, under names of its own."""

    def __init__(self, root, name, url):
        self.workspace, self.name, self.url = prepare(root), name, url

    def tracker(self):
        return Tracker(self.workspace, self.name, self.url)

    def run(self):
        """The history; (its tracker, how many times something waited)."""
        tracker = self.tracker()
        return tracker, run_history(tracker, self.workspace, self.name)

    def contents(self, server):
        return contents(server.url, server.folder / "artifacts", self.name, self.name)


@pytest.fixture(scope="module")
def expected(server, tmp_path_factory):
    """The store after an uninterrupted history."""
    case = Case(tmp_path_factory.mktemp("whole"), "whole", server.url)
    tracker, n_waiting = case.run()
    assert (n_waiting, tracker.close(0)) == (0, 0)
    return case.contents(server)


def test_the_server_is_killed_in_the_middle(tmp_path, tmp_path_factory, expected):
    with TrackingServer(tmp_path_factory.mktemp("mortal")) as mortal:
        case = Case(tmp_path, "mortal", mortal.url)
        tracker = case.tracker()
        for number, step in enumerate(steps(case.workspace, case.name)):
            if number == 3:
                mortal.kill()
            step(tracker)
            assert tracker.sync() == (number >= 3) + (number >= 5)  # the search, then its evaluation too
        assert tracker.close(0) == 2
        mortal.start()
        assert tracker.close(30) == 0
        assert case.contents(mortal) == expected


@pytest.fixture(scope="module")
def positions(proxy, tmp_path_factory):
    """Requests, by their number, one drawn from each of some stretches of the history."""
    case = Case(tmp_path_factory.mktemp("count"), "count", proxy.url)
    proxy.plan()
    case.run()
    n, rng = proxy.n_requests, random.Random(11)
    assert n > 60
    return [rng.randrange(n * i // N_POSITIONS, n * (i + 1) // N_POSITIONS) for i in range(N_POSITIONS)]


@pytest.mark.parametrize("stretch", range(N_POSITIONS))
def test_the_server_is_away_from_some_request_on(stretch, positions, tmp_path, server, proxy, expected):
    case = Case(tmp_path, f"away-{stretch}", proxy.url)
    proxy.plan(away_from=positions[stretch])
    tracker, _ = case.run()
    assert tracker.close(0) > 0
    proxy.plan()
    assert case.tracker().close(30) == 0  # a later process
    assert case.contents(server) == expected


@pytest.mark.parametrize("stretch", range(N_POSITIONS))
def test_an_answer_is_lost(stretch, positions, tmp_path, server, proxy, expected):
    case = Case(tmp_path, f"lost-{stretch}", proxy.url)
    proxy.plan(lose=positions[stretch])
    tracker, _ = case.run()
    assert proxy.n_requests > positions[stretch]
    assert tracker.close(30) == 0
    assert case.contents(server) == expected
