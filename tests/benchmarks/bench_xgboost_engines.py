"""Boosted trees on drawn pixels: in the calling process, and by both engines on two workers.

Each case runs in a process of its own. Wall time includes the start of workers, not of Ray. Memory is the largest sum of
proportional set sizes (shared pages counted once) of the case's process and all its children, above what stood before
the fit. A worker that is killed dies by SIGKILL while it keeps the trees of half of the rounds, those of a quarter are kept.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from cropray.training.pixel_blocks import PixelBlock, TreeData
from cropray.training.xgboost.fit import XgboostSettings, train_xgboost
from tests.training.small_fits import FatalPath
from tests.training.tree_rows import CLASSES, draw_rows

N_ZONES, ROWS_PER_ZONE, N_ROUNDS = 8, 40_000, 30
SAMPLE_EVERY_S = 0.25
CASES = {
    "in the calling process, 2 threads": XgboostSettings(cpus_per_worker=2),
    "ray_train, 2 workers": XgboostSettings(engine="ray_train", num_workers=2),
    "xgboost_ray, 2 workers": XgboostSettings(engine="xgboost_ray", num_workers=2),
}
KILLED = ", one killed"
_QUARTER = {"num_workers": 2, "checkpoint_every": N_ROUNDS // 4}
CASES |= {
    f"ray_train, 2 workers{KILLED}": XgboostSettings(engine="ray_train", **_QUARTER),
    f"xgboost_ray, 2 workers{KILLED}": XgboostSettings(engine="xgboost_ray", **_QUARTER),
}


class MemoryWatch(threading.Thread):
    """Samples the memory of this process and its children."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.start_size = _size()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_EVERY_S):
            self.peak = max(self.peak, _size() - self.start_size)


def _size() -> int:
    """Bytes of this process and all below it; Linux only."""
    parents = {int(path.name): _parent(path) for path in Path("/proc").glob("[0-9]*")}
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(map(_proportional_set_size, family))


def _parent(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it ended meanwhile
        return None


def _proportional_set_size(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _data() -> TreeData:
    zones = {f"z{i}": draw_rows(i, ROWS_PER_ZONE) for i in range(N_ZONES)}
    return TreeData({zone_id: PixelBlock(rows, rows.num_rows) for zone_id, rows in zones.items()}, CLASSES, "")


def _run_case(name: str) -> dict[str, object]:
    settings = CASES[name]
    data = _data()
    if settings.num_workers:
        import ray

        ray.init(num_cpus=settings.num_workers, log_to_driver=False, logging_level="ERROR")
    watch = MemoryWatch()
    watch.start()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        progress = FatalPath(Path(folder, "progress")) if KILLED in name else None
        model = Path(folder, "model")
        model.mkdir()
        fit = train_xgboost(settings, (N_ROUNDS,), data, data, 0, model, progress=progress)
    seconds = time.perf_counter() - start
    watch.ended.set()
    return {"seconds": seconds, "peak": watch.peak, "confusion": fit.scores[0].confusion.tolist()}


def main() -> bool:
    """Run all cases; true where their scores are equal."""
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
    print(
        f"\nXGBoost, {N_ZONES * ROWS_PER_ZONE:,} pixels × 48 features, {len(CLASSES)} classes, {N_ROUNDS} rounds, scored"
    )
    matrices = []
    for name in CASES:
        command = [sys.executable, "-m", "tests.benchmarks.bench_xgboost_engines", name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout.strip().splitlines()[-1])
        print(f"  {name:<44} {result['seconds']:>8.1f} s   peak {result['peak'] / 2**30:>6.2f} GiB", flush=True)
        matrices.append(np.array(result["confusion"]))
    return all(np.array_equal(matrix, matrices[0]) for matrix in matrices)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(_run_case(sys.argv[1])))
        raise SystemExit(0)
    raise SystemExit(0 if main() else 1)
