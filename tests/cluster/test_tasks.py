"""Tasks in flight: as many as there is room for, answers as they come, the dead named or given another chance."""

import pytest
import ray

from cropray.cluster import clients, tasks
from cropray.cluster.tasks import run_tasks
from cropray.core.errors import CroprayError


class Fake:
    """Stands for the module `ray`: a task is done when it is waited for, the last one first."""

    exceptions = ray.exceptions

    def __init__(self):
        self.most, self.waited = 0, []

    def wait(self, refs, num_returns, timeout):
        assert num_returns == 1
        self.most = max(self.most, len(refs))
        self.waited.append(timeout)
        return refs[-1:], refs[:-1]

    def get(self, ref):
        if isinstance(ref[1], Exception):
            raise ref[1]
        return ref[1]


@pytest.fixture
def fake(monkeypatch):
    seen = Fake()
    monkeypatch.setattr(tasks, "ray", seen)
    return seen


def square(n):
    return (n, n * n)


def test_no_more_are_in_flight_than_there_is_room_for(fake):
    assert sorted(run_tasks(range(7), square, lambda: 3)) == [(n, n * n, None) for n in range(7)]
    assert fake.most == 3
    assert set(fake.waited) == {tasks._LOOK_S}
    assert list(run_tasks([], square, lambda: 3)) == []


def test_room_grows_with_the_cluster_and_nothing_is_taken_before(fake):
    taken, room = [], iter([1, 1, 4, 4, 4, 4, 4, 4, 4])

    def feed():
        for n in range(6):
            taken.append(n)
            yield n

    ended = run_tasks(feed(), square, lambda: next(room))
    next(ended)
    assert taken == [0]
    next(ended)
    assert taken == [0, 1]
    assert len(list(ended)) == 4
    assert fake.most == 4


def test_those_that_run_are_looked_after_while_the_next_are_made(fake):
    made = []
    for n, *_ in run_tasks([0, None, None, 1, None, 2], square, lambda: 9):
        made.append(n)
        if n == 0:
            assert fake.waited == [0.0]  # not kept until all are there
    assert made == [0, 1, 2]


def test_a_death_is_an_answer(fake):
    death = ray.exceptions.WorkerCrashedError()
    ended = {
        n: (answer, error) for n, answer, error in run_tasks([1, 2], lambda n: (n, death if n == 2 else n), lambda: 2)
    }
    assert ended == {1: (1, None), 2: (None, death)}


@pytest.mark.parametrize(("n_deaths", "is_given_up"), [(0, False), (2, False), (3, True), (9, True)])
def test_an_actor_s_task_is_given_to_others_before_it_is_given_up(fake, n_deaths, is_given_up):
    death, given = ray.exceptions.RayActorError(), []

    def submit(name):
        given.append(name)
        return (len(given), death if name == "b" and given.count("b") <= n_deaths else name)

    ended = {name: (answer, error) for name, answer, error in run_tasks("abc", submit, lambda: 2, most_deaths=3)}
    assert ended["b"] == ((None, death) if is_given_up else ("b", None))
    assert given.count("b") == min(n_deaths + 1, 3)
    assert ended["a"] == ("a", None)
    assert ended["c"] == ("c", None)


@pytest.mark.parametrize("cause", [CroprayError("no access"), ImportError("no client")])
def test_a_client_at_fault_ends_the_work(monkeypatch, cause):
    fault = ray.exceptions.RayTaskError("_Client.work", "traceback", cause)
    monkeypatch.setattr(clients, "run_tasks", lambda units, *_: ((unit, None, fault) for unit in units))
    pool = object.__new__(clients.ClientPool)
    pool._busy, pool._idle, pool._n_clients = {"a": "client", "b": "client"}, [], 1
    with pytest.raises(type(cause) if isinstance(cause, CroprayError) else ray.exceptions.RayTaskError):
        list(pool.answers("ab"))
