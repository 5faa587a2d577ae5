"""Lines that a person follows, on a terminal and in a log file."""

import io

import pytest

from cropray.core import progress
from cropray.core.progress import LOG_EVERY_S, Progress


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then_and_the_last(clock):
    log = io.StringIO()
    shown = Progress(log)
    shown.stage("acquire", "4 zones")
    clock[0] += 1
    shown.step(1, 4, "a", "zones")  # too soon after the stage's line
    clock[0] += LOG_EVERY_S
    shown.step(2, 4, "b", "zones")
    shown.step(3, 4, "c", "zones")  # too soon after b
    shown.step(4, 4, "d", "zones")
    assert log.getvalue().splitlines() == [
        "acquire   4 zones",
        "          2/4 zones  b  (3.0 s each, 6 s left)",  # 2 in 6 s
        "          4/4 zones  d  (1.5 s each)",
    ]


def test_a_terminal_rewrites_the_counting_line(clock):
    screen = Screen()
    shown = Progress(screen)
    shown.stage("map")
    for done in (1, 2):
        clock[0] += 0.1
        shown.step(done, 2, "a", "zones")
    shown.note("done")
    # 10 a second, one left: 0.1 s
    assert screen.getvalue() == (
        "map\n          1/2 zones  a  (10.0 zones/s, 0 s left)\r\x1b[K"
        "          2/2 zones  a  (10.0 zones/s)\n          done\n"
    )


def test_a_note_does_not_stick_to_an_open_line(clock):
    screen = Screen()
    shown = Progress(screen)
    shown.step(1, 2, "a", "zones")
    shown.note("zone b failed")
    assert screen.getvalue().endswith("\r\x1b[K          zone b failed\n")


def test_restart_forgets_the_time_of_another_kind_of_unit(clock):
    log = io.StringIO()
    shown = Progress(log)
    shown.stage("search")
    clock[0] += 600
    shown.restart()
    clock[0] += 100
    shown.step(1, 3, "a", "units")
    assert "(100.0 s each, 3 min 20 s left)" in log.getvalue()  # two more of 100 s


def test_no_time_has_passed(clock):
    log = io.StringIO()
    shown = Progress(log)
    shown.stage("labels")
    shown.step(1, 1, "a", "zones")
    assert "1/1 zones  a" in log.getvalue()
