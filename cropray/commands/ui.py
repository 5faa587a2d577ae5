"""`ui`: the runs of a job in MLflow's pages, after they were brought up to date with the workspace."""

import os
import sys
from collections.abc import Sequence

from cropray.config import JobConfig
from cropray.io.job_file import load_settings
from cropray.io.workspace import require
from cropray.tracking import beside_stages, ui_command


def run_ui(config: str, overrides: Sequence[str], port: int) -> None:
    """Become the server of the pages.

    Raises:
        ConfigError: the config cannot be used.
        MissingArtefactError: nothing was ever searched.
    """
    job = load_settings(JobConfig, config, overrides)
    if job.tracking_uri is None and not job.artefacts.run("").exists():
        require(job.artefacts.mlflow_database, "search")
    command = ui_command(job.artefacts, job.tracking_uri, port)
    tracker = beside_stages(job.artefacts, job.name, job.tracking_uri)
    for line in tracker.outcome():
        print(line, file=sys.stderr)
    print(
        f"Runs of '{job.name}': http://127.0.0.1:{port}{tracker.runs_page()}\nReady in 10 s; Ctrl-C stops it.",
        flush=True,
    )
    os.execv(command[0], command)  # noqa: S606  (our own fixed command; signals reach the server itself)
