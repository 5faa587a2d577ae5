"""Memory of fits on a dataset and on one ten times larger: of the driver, and of the workers beside their budget.

Every fit is the first unit of a search on a Ray of its own; its driver runs in a process of its own and is watched from
here. Memory is the peak, over samples, of what is a process's own: its unique set size (USS) without the object store,
whose pages a process keeps in its tables after it gave the object back. The object store is smaller than the larger
dataset, and the budget of the trees is such that they keep their bins in memory on the one and on disk on the other.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

from cropray.cluster.session import ray_session
from cropray.config import JobConfig
from cropray.datasets.manifest import load_manifest
from cropray.search.store import data_bytes
from cropray.training.family import family
from cropray.training.xgboost.memory import bins_on_disk
from cropray.training.xgboost.settings import XgboostSettings
from tests.drawn_dataset import N_CLASSES, TILE_SIZE, drawn_job, fit_on_ray, write_dataset

ZONES: Final = {1: 8, 10: 80}
ZONE_PX: Final = 128
STORE_GB: Final = 0.1
BUDGET_GB: Final = {"xgboost": 0.8, "cnn": 0.8}
SAMPLE_EVERY_S: Final = 0.5
MOST_GROWTH: Final = 1.2
MODELS: Final = ("xgboost", "cnn")


def _job(root: Path) -> JobConfig:
    small = {"temporal_channels": 4, "unet_channels": [4, 4], "batch_size": 32, "epochs": 1}
    return drawn_job(
        root,
        cluster={"num_cpus": 2, "object_store_gb": STORE_GB},
        xgboost={"max_depth": 3, "memory_gb": BUDGET_GB["xgboost"]},
        cnn={**small, "memory_gb": BUDGET_GB["cnn"]},
    )


def _drive(root: str, model: str) -> None:
    """The process that is watched: it reads the data into the object store and waits for a fit."""
    job = _job(Path(root))
    with ray_session(job.cluster):
        fit_on_ray(job, load_manifest(job.artefacts.manifest), model)


def _watch(root: Path, model: str) -> dict[str, float]:
    """Run a fit; peaks of the driver and of its largest worker, bytes."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "tests.benchmarks.bench_memory", str(root), model]
    peaks = {"driver": 0.0, "worker": 0.0}
    started = time.monotonic()
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, env=environment, stderr=log) as child:
        driver = psutil.Process(child.pid)
        while child.poll() is None:
            peaks["driver"] = max(peaks["driver"], _own(driver))
            for worker in _workers(driver):
                peaks["worker"] = max(peaks["worker"], _own(worker))
            time.sleep(SAMPLE_EVERY_S)
        log.seek(0)
        said = log.read().decode()
        if child.returncode:
            raise RuntimeError(f"the fit on {root} failed:\n{said}")
    return {**peaks, "seconds": time.monotonic() - started}


def _workers(driver: psutil.Process) -> list[psutil.Process]:
    """Ray's worker processes below a driver, which name themselves."""
    try:
        below = driver.children(recursive=True)
    except psutil.Error:
        return []
    found = []
    for process in below:
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::"):
                found.append(process)
        except (psutil.Error, IndexError):  # it ended meanwhile
            continue
    return found


def _own(process: psutil.Process) -> float:
    """Bytes of pages that no other process maps, those of the object store aside."""
    try:
        maps = process.memory_maps(grouped=False)
    except psutil.Error:  # it ended meanwhile
        return 0.0
    return float(sum(part.private_clean + part.private_dirty for part in maps if "plasma" not in part.path))


def _bins(rows: int, model: str) -> str:
    if model == "cnn":
        return ""
    on_disk = bins_on_disk(XgboostSettings(), rows, N_CLASSES, BUDGET_GB[model] * 1e9)
    return "on disk" if on_disk else "in memory"


def main() -> bool:
    """Print the table; true where driver and workers stay within their limits."""
    print("\n| model | size | rows | tiles | driver | worker | budget | object store | bins | s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    peaks: dict[tuple[str, int], dict[str, float]] = {}
    for size, n_zones in ZONES.items():
        with tempfile.TemporaryDirectory() as folder:
            manifest = write_dataset(_job(Path(folder)).artefacts, n_zones, ZONE_PX)
            rows, tiles = (sum(getattr(z, name) for z in manifest.zones) for name in ("n_labelled", "n_tiles"))
            for model in MODELS:
                peak = peaks[model, size] = _watch(Path(folder), model)
                data = data_bytes(family(model).sample, rows, tiles, TILE_SIZE)
                bins = _bins(rows, model)
                print(
                    f"| {model} | {size} | {rows:,} | {tiles:,} | {peak['driver'] / 1e6:.0f} MB | "
                    f"{peak['worker'] / 1e6:.0f} MB | {BUDGET_GB[model] * 1e3:.0f} MB | {data / 1e6:.0f} of "
                    f"{STORE_GB * 1e3:.0f} MB | {bins} | "
                    f"{peak['seconds']:.0f} |",
                    flush=True,
                )
    verdicts = []
    for model in MODELS:
        growth = peaks[model, 10]["driver"] / peaks[model, 1]["driver"]
        most = max(peaks[model, size]["worker"] for size in ZONES) / (BUDGET_GB[model] * 1e9)
        verdicts += [growth < MOST_GROWTH, most <= 1]
        print(
            f"{model}: driver {growth - 1:+.1%} on a dataset 10 × larger ({'ok' if verdicts[-2] else 'MISSED'}: < 20 %), "
            f"worker at most {most:.0%} of its budget ({'ok' if verdicts[-1] else 'MISSED'})"
        )
    return all(verdicts)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _drive(sys.argv[1], sys.argv[2])
        raise SystemExit(0)
    raise SystemExit(0 if main() else 1)
