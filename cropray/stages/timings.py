"""How long stages really took: what a plan is compared with."""

import contextlib
import datetime as dt
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cropray.core.progress import Progress
from cropray.io.storage import write_json
from cropray.io.workspace import Workspace

RAY_START: Final = "start"  # of Ray, in a run of several stages; a stage that runs alone starts its own
_WHOLE: Final = 0.9  # of the planned units: months without scenes are not asked for


@contextlib.contextmanager
def timed(workspace: Workspace, stage: str, progress: Progress) -> Iterator[None]:
    """Record how long a stage took and what it made; nothing where everything was up to date."""
    before, started = progress.made.copy(), time.monotonic()
    try:
        yield
    finally:
        made = progress.made - before
        if made:
            append_timing(workspace, stage, time.monotonic() - started, made)


def append_timing(workspace: Workspace, stage: str, seconds: float, made: Mapping[str, int]) -> None:
    """Add one run of a stage to its list."""
    record = {
        "ended": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "made": dict(made),
    }
    write_json(workspace.timing(stage), [*read_timings(workspace, stage), record])


def read_timings(workspace: Workspace, stage: str) -> list[dict[str, Any]]:
    """All runs of a stage that made something, oldest first."""
    try:
        timings: list[dict[str, Any]] = json.loads(workspace.timing(stage).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return timings


def seconds_of(workspace: Workspace, stage: str, noun: str, n_units: int) -> float | None:
    """Seconds of the last runs that together made so many units; None where not all were made.

    An interrupted run and the one that finished its work count together.
    """
    seconds, made = 0.0, 0
    for timing in reversed(read_timings(workspace, stage)):
        seconds += float(timing["seconds"])
        made += int(timing["made"].get(noun, 0))
        if made >= _WHOLE * n_units:
            return seconds
    return None
