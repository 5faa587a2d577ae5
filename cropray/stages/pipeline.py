"""Stages in a row: config in, stages run, Ray started at most once, libraries' messages in a log file."""

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cropray.cluster.ray_address import check_form
from cropray.cluster.session import address_of, name_of_address, ray_session
from cropray.config import JobConfig
from cropray.core.errors import ConfigError, CroprayError, InputError
from cropray.core.progress import Progress
from cropray.core.redaction import HideSecrets
from cropray.io.job_file import dump_yaml, load_settings
from cropray.io.storage import Location, write_text
from cropray.io.workspace_lock import locked
from cropray.io.zones import Zone
from cropray.stages.devices import require_devices
from cropray.stages.inputs import divided_zones
from cropray.stages.preflight import Ahead, Check
from cropray.stages.stage import STAGES, Stage, made_elsewhere, stages_of
from cropray.stages.timings import RAY_START, append_timing, timed

PIPELINE: Final = tuple(stage.name for stage in STAGES)


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
        wanted = _wanted(job, stages)
        if idle := [name for name in stages if name not in {stage.name for stage in wanted}]:
            progress.note(f"{', '.join(idle)}: nothing to do, {_why_idle(job)}")
        check_job(job, [stage.name for stage in wanted])
        # One Ray for all stages of a run; a single stage starts its own, if it needs one.
        session = ray_session(job.cluster, needs_dashboard=job.uses_worker_groups)
        started = time.monotonic()
        with session if len(wanted) > 1 else contextlib.nullcontext():
            if len(wanted) > 1:
                append_timing(workspace, RAY_START, time.monotonic() - started, {"ray": 1})
                if not job.cluster.wait_s and any(stage.predicts(job) for stage in wanted):
                    require_devices(job, job.search.models)  # now, and not after the hours that a search takes
            for stage in wanted:
                write_text(workspace.config(stage.name), dump_yaml(job))
                with timed(workspace, stage.name, progress):
                    stage.run(job, progress)


def check_job(job: JobConfig, stages: Sequence[str]) -> None:
    """Look at every input of stages that will run, in order, and at the artefacts that none of them makes.

    Raises:
        CroprayError: the one thing that is wrong, or all of them in one list.
    """
    problems: dict[str, CroprayError] = {}  # several stages may say the same

    def note(check: Check) -> None:
        try:
            check()
        except CroprayError as error:
            problems.setdefault(str(error), error)

    zones: list[Zone] = []
    if job.points is None and (job.zone_selection is None or "zones" not in stages):
        note(lambda: zones.extend(divided_zones(job)))
    for stage in STAGES:
        if stage.name in stages:
            done = stages[: stages.index(stage.name)]
            for check in stage.checks(job, Ahead(job.artefacts, zones, stages, done)):
                note(check)
    if (address := address_of(job.cluster)) is not None:
        note(lambda: check_form(address, name_of_address(job.cluster)))
    if len(problems) > 1:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise InputError(f"{len(problems)} things are to be mended before anything starts:\n{listing}")
    for error in problems.values():
        raise error


def _wanted(job: JobConfig, stages: Sequence[str]) -> list[Stage]:
    """Of several stages, those with something to do; a single one says itself why it has nothing.

    ConfigError where it makes what another job's workspace has.
    """
    known, has_work = {stage.name: stage for stage in STAGES}, stages_of(job)
    if len(stages) > 1:
        return [known[name] for name in stages if known[name] in has_work]
    if setting := made_elsewhere(known[stages[0]], job):
        raise ConfigError(
            f"'{setting}' says that '{getattr(job, setting)}' has what `cropray {stages[0]}` makes: run it on the job of "
            f"that workspace, or take {setting} out"
        )
    return [known[stages[0]]]


def _why_idle(job: JobConfig) -> str:
    if job.dataset_of or job.images_of:
        return f"'{job.dataset_of or job.images_of}' has what they make"
    return "the job reads points"


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
