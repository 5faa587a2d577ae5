"""Stages in a row: config in, stages run, Ray started at most once, libraries' messages in a log file."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cropray.config import JobConfig
from cropray.progress import Progress
from cropray.settings import dump_yaml, load_settings
from cropray.stages import acquire, dataset, evaluate, labels, map, report, search, zones  # noqa: A004
from cropray.stages.cluster import ray_session
from cropray.stages.timings import RAY_START, append_timing, timed
from cropray.workspace import whole_file

PIPELINE: Final[Mapping[str, Callable[[JobConfig, Progress], None]]] = MappingProxyType(
    {
        "zones": zones.run,
        "acquire": acquire.run,
        "labels": labels.run,
        "dataset": dataset.run,
        "search": search.run,
        "evaluate": evaluate.run,
        "map": map.run,
        "report": report.run,
    }
)
IMAGE_STAGES: Final = ("zones", "acquire", "labels", "map")  # a table of points has nothing for them to do


def run_stages(stages: Sequence[str], config: str | Path, overrides: Sequence[str]) -> None:
    """Run stages of one job, in order.

    Raises:
        CroprayError: the config or an input cannot be used, or a stage failed.
    """
    job = load_settings(JobConfig, config, overrides)
    workspace = job.artefacts
    workspace.prepare()
    progress = Progress()
    with log_to_file(workspace.log(stages[0] if len(stages) == 1 else "run")):
        wanted = [s for s in stages if len(stages) == 1 or job.points is None or s not in IMAGE_STAGES]
        # One Ray for all stages of a run; a single stage starts its own, if it needs one.
        session = ray_session(job.cluster, needs_dashboard=job.uses_worker_groups)
        started = time.monotonic()
        with session if len(wanted) > 1 else contextlib.nullcontext():
            if len(wanted) > 1:
                append_timing(workspace, RAY_START, time.monotonic() - started, {"ray": 1})
            for stage in wanted:
                with whole_file(workspace.config(stage)) as path:
                    path.write_text(dump_yaml(job), encoding="utf-8")
                with timed(workspace, stage, progress):
                    PIPELINE[stage](job, progress)


@contextlib.contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Send what libraries log and warn to a file; the terminal is kept for progress and errors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
