"""List scheduling against a slow version that walks through time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cropray.cluster.placement import Node
from cropray.planning.work import Cluster, makespan


def makespan_in_seconds(durations, n_slots):
    """One whole second after the other: whoever waits takes a slot that is free."""
    waiting, running, now = list(durations), [], 0
    while waiting or running:
        while waiting and len(running) < n_slots:
            running.append(waiting.pop(0))
        running = [left - 1 for left in running if left > 1]
        now += 1
    return now


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 5))
def test_makespan_equals_walking_through_time(durations, n_slots):
    assert makespan(durations, n_slots) == makespan_in_seconds(durations, n_slots)


def test_no_slot_is_refused():
    with pytest.raises(ValueError, match="at least one slot"):
        makespan([1.0], 0)


def test_tasks_at_once():
    assert Cluster((Node(7),) * 2).at_once == 14
    assert Cluster((Node(0.5),)).at_once == 1
