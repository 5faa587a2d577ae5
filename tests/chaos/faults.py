"""What can go wrong, and when it does: each fault strikes a run while its command works."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.rig import Rig, Run

AWAY_S = 20.0  # the MLflow server
BURST = 60  # answers 503
NOTICE_S = 30.0
_TRIAL, _ZONE = r"^ray::ImplicitFunc", r"^ray::_remote_attempt"
_DATA = r"^ray::(_one_table|_zones_of|_as_tiles|\w*Read\w*|\w*MapBatches\w*|MapWorker)"


@dataclass(frozen=True)
class Fault:
    """One row of the matrix."""

    name: str
    strike: Callable[[Rig, Run], bool]
    """Strikes, and says whether it could."""
    kinds: tuple[str, ...] = ("cnn", "xgboost", "acquire")
    before: Callable[[Rig, Run], None] | None = None
    """Done before the command starts."""
    after: Callable[[Rig, Run], None] | None = None
    """Done when the first command has ended: what an operator or a cluster would do."""
    on_small_disk: bool = False


def midway(rig: Rig, run: Run) -> bool:
    """Wait until some units are finished and another one is under way."""
    if run.kind == "acquire":
        return rig.wait_until(run, lambda: run.n_finished() >= 2)
    return rig.wait_until(run, lambda: run.n_finished() >= 2 and run.has_progress())


def kill_worker(rig: Rig, run: Run) -> bool:
    return midway(rig, run) and rig.kill_worker(run, _ZONE if run.kind == "acquire" else _TRIAL)


def kill_data_worker(rig: Rig, run: Run) -> bool:
    return rig.kill_worker(run, _DATA)


def kill_driver(rig: Rig, run: Run) -> bool:
    if not midway(rig, run):
        return False
    os.killpg(run.process.pid, signal.SIGKILL)
    return True


def kill_node(rig: Rig, run: Run) -> bool:
    if not midway(rig, run):
        return False
    rig.kill_node()
    return True


def preempt_node(rig: Rig, run: Run) -> bool:
    """A node is announced to go, works through its notice and is lost."""
    if not midway(rig, run):
        return False
    rig.announce_preemption(NOTICE_S)
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.process.wait(timeout=NOTICE_S)
    rig.kill_node()
    return True


def stop_tracking(rig: Rig, run: Run) -> bool:
    if not midway(rig, run):
        return False
    rig.tracking.kill()
    threading.Timer(AWAY_S, rig.tracking.start).start()
    return True


def start_tracking_again(rig: Rig, run: Run) -> None:
    """Wait until the server is back, and give a stage the chance to write what it missed."""
    while not is_healthy(rig.tracking.url):
        time.sleep(0.5)
    if run.kind != "acquire":
        rig.start(run)
        rig.wait(run)


def is_healthy(url: str) -> bool:
    import urllib.request

    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2):
        return True
    return False


def busy_store(rig: Rig, run: Run) -> bool:
    if not midway(rig, run):
        return False
    rig.s3.fail(BURST, f"/{run.name}/", status=503)
    return True


def cut_off_shards(rig: Rig, run: Run) -> None:
    rig.s3.fail(3, f"/{run.name}/dataset/", method="GET", keep=0.5)


def are_cut_off(rig: Rig, run: Run) -> bool:
    return rig.wait_until(run, lambda: rig.s3.n_faults_left() == 0)


def notice(rig: Rig, run: Run) -> bool:
    """SIGTERM, and SIGKILL 30 s later to whatever is left."""
    if not midway(rig, run):
        return False
    run.process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.process.wait(timeout=NOTICE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.process.pid, signal.SIGKILL)
    return True


def fill_disk(rig: Rig, run: Run) -> bool:
    """Leave a few kilobytes on the disk of the workspace."""
    if not midway(rig, run):
        return False
    root = Path(run.root)
    free = os.statvfs(root)
    with contextlib.suppress(OSError), (root.parent / "ballast").open("wb") as file:
        file.write(b"\0" * max(free.f_bavail * free.f_frsize - 20_000, 0))
    return True


def free_disk(_rig: Rig, run: Run) -> None:
    (Path(run.root).parent / "ballast").unlink()


def bring_node_back(rig: Rig, _run: Run) -> None:
    rig.add_node()


FAULTS = (
    Fault("training worker killed", kill_worker),
    Fault("data worker killed", kill_data_worker, kinds=("cnn", "xgboost")),
    Fault("driver killed", kill_driver),
    Fault("whole node lost", kill_node, after=bring_node_back),
    Fault("node preempted, 30 s notice", preempt_node, after=bring_node_back),
    Fault("MLflow server away 20 s", stop_tracking, kinds=("cnn", "xgboost"), after=start_tracking_again),
    Fault("S3: burst of 60 × 503", busy_store),
    Fault("shards cut off", are_cut_off, kinds=("cnn", "xgboost"), before=cut_off_shards),
    Fault("disk full", fill_disk, after=free_disk, on_small_disk=True),
    Fault("SIGTERM, 30 s notice", notice),
)
