"""Stages in a row: config in, stages run, Ray started at most once, libraries' messages in a log file."""

import contextlib
import importlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from cropray.cluster.session import ray_session
from cropray.config import JobConfig
from cropray.core.errors import ConfigError
from cropray.core.progress import Progress
from cropray.core.redaction import HideSecrets
from cropray.io.job_file import dump_yaml, load_settings
from cropray.io.storage import Location, write_text
from cropray.io.workspace_lock import locked
from cropray.stages.devices import require_devices
from cropray.stages.preflight import check_job
from cropray.stages.timings import RAY_START, append_timing, timed

PIPELINE: Final = ("zones", "acquire", "labels", "dataset", "search", "evaluate", "map", "report")
IMAGE_STAGES: Final = ("zones", "acquire", "labels", "map")  # a table of points has nothing for them to do
_MADE_THERE: Final = {
    "images_of": ("zones", "acquire", "labels"),
    "dataset_of": ("zones", "acquire", "labels", "dataset"),
}  # setting that names another workspace → stages that have nothing to do then


def run_stages(stages: Sequence[str], config: str | Location, overrides: Sequence[str]) -> None:
    """Run stages of one job, in order.

    Raises:
        CroprayError: the config or an input cannot be used, another run is at work on the workspace, or a stage failed.
    """
    job = load_settings(JobConfig, config, overrides)
    workspace = job.artefacts
    workspace.prepare()
    progress = Progress()
    shared = contextlib.nullcontext() if job.dataset_of is None else locked(job.dataset_of)  # its fits are added to
    with locked(workspace.root), shared, log_to_file(workspace.log(stages[0] if len(stages) == 1 else "run")):
        wanted = wanted_stages(job, stages)
        check_job(job, wanted)
        # One Ray for all stages of a run; a single stage starts its own, if it needs one.
        session = ray_session(job.cluster, needs_dashboard=job.uses_worker_groups)
        started = time.monotonic()
        with session if len(wanted) > 1 else contextlib.nullcontext():
            if len(wanted) > 1:
                append_timing(workspace, RAY_START, time.monotonic() - started, {"ray": 1})
                predicts = {"evaluate", "map", *(["search"] if job.search.oof_rows else [])}
                if not job.cluster.wait_s and predicts & set(wanted):
                    require_devices(job, job.search.models)  # now, and not after the hours that a search takes
            for stage in wanted:
                write_text(workspace.config(stage), dump_yaml(job))
                with timed(workspace, stage, progress):
                    _run_of(stage)(job, progress)


def wanted_stages(job: JobConfig, stages: Sequence[str]) -> list[str]:
    """Of several stages, those with something to do.

    Raises:
        ConfigError: the only one makes what another job's workspace has.
    """
    elsewhere = {"dataset_of": job.dataset_of, "images_of": job.images_of}
    for setting, place in elsewhere.items():
        if place is not None and len(stages) == 1 and stages[0] in _MADE_THERE[setting]:
            raise ConfigError(
                f"'{setting}' says that '{place}' has what `cropray {stages[0]}` makes: run it on the job of that "
                f"workspace, or take {setting} out"
            )
    idle = {stage for setting, place in elsewhere.items() if place is not None for stage in _MADE_THERE[setting]}
    idle |= {*IMAGE_STAGES} if job.points is not None else set()
    return [stage for stage in stages if len(stages) == 1 or stage not in idle]


def _run_of(stage: str) -> Callable[[JobConfig, Progress], None]:
    """A stage's `run`; its libraries load now: labelling parcels does not wait for torch and MLflow."""
    run: Callable[[JobConfig, Progress], None] = importlib.import_module(f"cropray.stages.{stage}").run
    return run


@contextlib.contextmanager
def log_to_file(path: Location) -> Iterator[None]:
    """Send what libraries log and warn to a file; the terminal is kept for progress and errors.

    On a disk it grows while the stage runs; to object storage it goes when the stage ends, however it ends.
    """
    if not isinstance(path, Path):
        with tempfile.TemporaryDirectory(prefix="cropray-") as scratch, log_to_file(copy := Path(scratch, path.name)):
            try:
                yield
            finally:
                write_text(path, copy.read_text(encoding="utf-8"))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(HideSecrets())
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
