"""`demo`: a drawn landscape through every stage, on one machine, without an account or a network."""

import os
import shlex
import time
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from cropray.core.errors import ConfigError
from cropray.core.progress import Progress
from cropray.io.storage import whole_file
from cropray.io.workspace import Workspace
from cropray.io.workspace_lock import locked
from cropray.landscape.draw import LandscapeFiles, draw_landscape
from cropray.landscape.settings import LandscapeSettings
from cropray.stages.pipeline import log_to_file, run_stages
from cropray.stages.stage import STAGES

CONFIG_NAME: Final = "demo.yaml"


def run_demo(root: Path) -> None:
    """Draw the landscape below `root`, run all stages, and say what can be opened now.

    Raises:
        CroprayError: `root` cannot be written, or a stage failed.
    """
    started = time.monotonic()
    Workspace(root).prepare()
    progress = Progress()
    progress.stage("landscape", f"France in a box, drawn from a seed (no real data), in {root}")
    with locked(root), log_to_file(root / "landscape.log"):
        files = draw_landscape(
            LandscapeSettings(),
            root / "raw",
            lambda name, done, total: progress.step(done, total, "", name),
            n_processes=os.cpu_count() or 1,
        )
    config = root / CONFIG_NAME
    if not config.exists():
        with whole_file(config) as path:
            path.write_text(yaml.safe_dump(demo_config(root, files), sort_keys=False), encoding="utf-8")
    run_stages([stage.name for stage in STAGES], config, ())
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    command = shlex.join(["cropray", "ui", str(config)])
    print(f"\nDone in {minutes} min {seconds:02d} s. Scores are of a drawn landscape: they show that the system works,")
    print("not how well crops can be told apart.")
    print(f"  report     {(root / 'work' / 'report' / 'index.html').absolute()}")
    print(f"  MLflow UI  make ui   (or: {command})")
    print(f"  maps       {root / 'work' / 'maps'}")


def demo_config(root: Path, files: LandscapeFiles) -> dict[str, Any]:
    """The demo's job as YAML content."""
    if not files.zones.exists():
        raise ConfigError(f"'{files.folder}' holds no drawn landscape; remove it and run `cropray demo` again")
    job = resources.files("cropray").joinpath("data", "demo.yaml").read_text(encoding="utf-8")
    return {
        **yaml.safe_load(job),
        "workspace": str(root / "work"),
        "zone_table": str(files.zones),
        "imagery": {"folder": str(files.scenes)},
        "parcels": {"path": str(files.parcels)},
    }
