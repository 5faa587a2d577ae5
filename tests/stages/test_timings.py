"""How long stages took: recorded where something was made, added up where an interruption came between."""

import io

import pytest

from cropray.core.progress import Progress
from cropray.io.workspace import Workspace
from cropray.stages.timings import append_timing, read_timings, seconds_of, timed


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def test_what_was_made_is_recorded(workspace):
    progress = Progress(io.StringIO())
    for stage, n in (("acquire", 3), ("labels", 0), ("dataset", 2)):
        with timed(workspace, stage, progress):
            for done in range(n):
                progress.step(done + 1, n, "z", "zones")
    assert [timing["made"] for timing in read_timings(workspace, "acquire")] == [{"zones": 3}]
    assert read_timings(workspace, "labels") == []  # up to date: that took no time worth comparing
    assert read_timings(workspace, "dataset")[0]["made"] == {"zones": 2}


def test_a_stage_that_fails_is_recorded_too(workspace):
    progress = Progress(io.StringIO())

    def one_unit_then_ctrl_c():
        with timed(workspace, "search", progress):
            progress.step(1, 4, "lr=0.1", "units")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one_unit_then_ctrl_c()
    assert read_timings(workspace, "search")[0]["made"] == {"units": 1}


def test_runs_that_made_all_units_together(workspace):
    for seconds, made in ((100.0, 40), (7.0, 16), (5.0, 24)):
        append_timing(workspace, "acquire", seconds, {"zones": made})
    assert seconds_of(workspace, "acquire", "zones", 24) == 5.0
    assert seconds_of(workspace, "acquire", "zones", 40) == 12.0  # the last two, not the run before them
    assert seconds_of(workspace, "acquire", "zones", 200) is None
    assert seconds_of(workspace, "acquire", "months", 1) is None
    assert seconds_of(workspace, "map", "zones", 1) is None
    # Months without scenes are not asked for.
    append_timing(workspace, "acquire", 9.0, {"months": 460})
    assert seconds_of(workspace, "acquire", "months", 480) == 9.0
