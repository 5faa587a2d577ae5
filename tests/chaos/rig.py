"""A small cluster with all that a real one has: two Ray nodes, an S3 server for the workspace, an MLflow server."""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from cropray.io.storage import Location, as_location, files_below, relative
from cropray.io.workspace import Workspace
from cropray.landscape.draw import LandscapeFiles, draw_landscape
from cropray.landscape.settings import LandscapeSettings
from tests.cluster.preemption import announce
from tests.servers.s3 import S3Server
from tests.servers.tracking import TrackingServer

ROOT = Path(__file__).resolve().parents[2]
LANDSCAPE = LandscapeSettings(n_regions=2, zones_per_region=4, zone_px=64, gap_px=30, scenes_per_month=3)
KINDS = ("cnn", "xgboost", "acquire")
PATIENCE_S = 400
_POLL_S = 0.1
_MARK = "CROPRAY_CHAOS_RIG"  # variable that every process of the cluster inherits
_SETTINGS = {
    "dataset": {"tile_size": 16, "buffer_m": 100},
    "search": {
        "cnn": {"learning_rate": [0.01, 0.003], "kernel_size": [3]},
        "xgboost": {"n_estimators": [20, 40], "learning_rate": [0.1, 0.3]},
    },
    "cnn": {"temporal_channels": 16, "unet_channels": [16, 32], "batch_size": 16, "epochs": 6, "patience": 6},
    "xgboost": {"max_depth": 4, "checkpoint_every": 10},
}


@dataclass
class Run:
    """One command, perhaps started more than once, on a workspace of its own."""

    kind: str
    name: str
    workspace: Workspace
    config: Path
    process: subprocess.Popen | None = None
    seconds: float = 0.0
    codes: list[int] = field(default_factory=list)
    output: str = ""

    @property
    def root(self) -> Location:
        return self.workspace.root

    def n_finished(self) -> int:
        """Units, or zones, that stand whole."""
        return len(self._ledger())

    def has_progress(self) -> bool:
        """Whether some unit is under way and could go on from a checkpoint."""
        return bool(files_below(self.root / "search" / self.kind / "progress"))

    def finished(self) -> dict[str, object]:
        """Finished unit → when it was written."""
        return {relative(file, self.root): file.stat().st_mtime for file in self._ledger()}

    def _ledger(self) -> list[Location]:
        if self.kind == "acquire":
            return files_below(self.root / "stamps" / "acquire")
        return [file for file in files_below(self.root / "search" / self.kind) if file.name == "result.json"]


class Rig:
    """Everything, started once for many runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()
        self._mark = secrets.token_hex(8)

    def __enter__(self):
        # The processes of the nodes inherit the variables: Ray must start after the servers.
        self.s3 = self._stack.enter_context(S3Server())
        self._stack.enter_context(self.s3.in_environment())
        os.environ.update({"PYTHONPATH": str(ROOT), _MARK: self._mark})
        self.tracking = TrackingServer(self.folder)
        self.tracking.start()
        self._stack.callback(self.tracking.kill)
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 200_000_000})
        self._stack.callback(self.cluster.shutdown)
        self.add_node()
        self.landscape = draw_landscape(LANDSCAPE, self.folder / "raw")
        self._prepare()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def add_node(self) -> None:
        """The second node."""
        self.node = self.cluster.add_node(num_cpus=1, object_store_memory=200_000_000)

    def kill_node(self) -> None:
        """Take the second node away as a power cut would."""
        self.cluster.remove_node(self.node, allow_graceful=False)

    def announce_preemption(self, notice_s: float) -> None:
        """Tell Ray that the second node will go, as a cloud's notice does."""
        announce(self.cluster.address, self.node.node_id, notice_s)

    def _prepare(self) -> None:
        run = self.new_run("prepared", "prepared", self._bucket("prepared"))
        for stage in ("zones", "acquire", "labels", "dataset"):
            self.start(run, stage)
            assert self.wait(run) == 0, run.output

    def _bucket(self, name: str) -> Location:
        return as_location(f"s3://{self.s3.bucket}/{name}")

    def new_run(self, kind: str, name: str, root: Location | None = None) -> Run:
        """A run on a workspace with the dataset, or, for acquisition, with nothing."""
        root = root or self._bucket(name)
        content = job(self.landscape, root, name, self.tracking.url, self.cluster.address, kind)
        config = self.folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(content), encoding="utf-8")
        run = Run(kind, name, Workspace(root), config)
        if kind in {"cnn", "xgboost"}:
            self._copy_dataset(root)
        return run

    def _copy_dataset(self, root: Location) -> None:
        prepared = self._bucket("prepared")
        for file in files_below(prepared / "dataset"):
            target = root / relative(file, prepared)
            if isinstance(target, Path):
                target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())

    def start(self, run: Run, stage: str | None = None) -> None:
        """Start the run's command (again)."""
        stage = stage or ("acquire" if run.kind == "acquire" else "search")
        command = [sys.executable, "-m", "cropray.cli", stage, str(run.config)]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        with (self.folder / f"{run.name}.log").open("ab") as log:
            run.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        run.started = time.monotonic()

    def wait(self, run: Run) -> int:
        """The exit code, once there is one."""
        code = run.process.wait(timeout=PATIENCE_S)
        run.seconds += time.monotonic() - run.started
        run.codes.append(code)
        run.output = (self.folder / f"{run.name}.log").read_text(encoding="utf-8", errors="replace")[-4000:]
        return code

    def wait_until(self, run: Run, condition) -> bool:
        """Whether a condition came true before the command ended."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if condition():
                return True
            if run.process.poll() is not None:
                return False
            time.sleep(_POLL_S)
        raise TimeoutError(f"{run.name}: the moment to strike did not come; {run.output}")

    def kill_worker(self, run: Run, pattern: str) -> bool:
        """SIGKILL to one Ray worker process with such a title; whether one was found before the command ended."""
        victim = None

        def found() -> bool:
            nonlocal victim
            victim = next((p for p in psutil.process_iter() if re.search(pattern, title(p)) and self._owns(p)), None)
            return victim is not None

        if not self.wait_until(run, found):
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
        return True

    def _owns(self, process: psutil.Process) -> bool:
        """Whether a process belongs to this cluster, and not to another Ray on the machine."""
        try:
            return process.environ().get(_MARK) == self._mark
        except psutil.Error:
            return False


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def job(files: LandscapeFiles, root: Location, name: str, tracking: str, address: str, kind: str) -> dict:
    """The content of a job file."""
    content = json.loads(json.dumps(_SETTINGS))
    content["search"]["models"] = [kind] if kind in {"cnn", "xgboost"} else ["xgboost"]
    return {
        "name": name,
        "workspace": str(root),
        "tracking_uri": tracking,
        "zone_table": str(files.zones),
        "imagery": {"folder": str(files.scenes)},
        "parcels": {"path": str(files.parcels)},
        "cluster": {"address": address},
        **content,
    }
