"""The same search on 1, 2 and 4 Ray nodes of one CPU each: same scores, wall time of the units, efficiency.

The nodes are processes on one machine, so that more nodes than it has cores share them: the ideal is the lesser of the two.
Each search trains every unit anew. `python -m tests.benchmarks.bench_nodes`, some 4 minutes on 2 cores.
"""

import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import ray
import yaml
from ray.cluster_utils import Cluster

from cropray.landscape.draw import LandscapeFiles, draw_landscape
from cropray.landscape.settings import LandscapeSettings
from cropray.search.run import UnitJob, run_units
from cropray.stages import search
from cropray.stages.pipeline import run_stages

N_NODES = (1, 2, 4)
MODELS = ("xgboost", "cnn")
LANDSCAPE = LandscapeSettings(n_regions=2, zones_per_region=4, zone_px=64, gap_px=30, scenes_per_month=2)
SETTINGS = {
    "dataset": {"tile_size": 16, "buffer_m": 100},
    "search": {
        "models": list(MODELS),
        "cnn": {"learning_rate": [0.03, 0.01, 0.003, 0.001], "kernel_size": [3]},
        "xgboost": {"n_estimators": [10, 20], "learning_rate": [0.05, 0.1, 0.2, 0.3]},
    },
    "cnn": {"temporal_channels": 16, "unet_channels": [16, 32], "batch_size": 16, "epochs": 6, "patience": 6},
    "xgboost": {"max_depth": 5},
}
LEAST_EFFICIENCY = 0.5  # of two nodes; starting the second node's worker costs what some units take


@dataclass(frozen=True)
class Searched:
    """One search, its refits aside."""

    n_nodes: int
    wall_s: float
    fit_s: tuple[float, ...]
    """Of each unit, inside its process."""
    scores: tuple[str, ...]


def write_job(files: LandscapeFiles, folder: Path, workspace: Path, address: str | None) -> Path:
    job = {
        "name": "nodes", "workspace": str(workspace), "zone_table": str(files.zones), "imagery": {"folder": str(files.scenes)},
        "parcels": {"path": str(files.parcels)}, "cluster": {"address": address, "object_store_gb": 0.2}, **SETTINGS,
    }  # fmt: skip
    path = folder / f"{workspace.name}.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def search_on(n_nodes: int, files: LandscapeFiles, folder: Path) -> Searched:
    """Search on a cluster of its own, on a copy of the dataset."""
    workspace = folder / f"nodes-{n_nodes}"
    shutil.copytree(folder / "prepared" / "dataset", workspace / "dataset")
    store = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **store})
    calls: list[tuple[float, list[UnitJob]]] = []

    def timed(jobs, *arguments, **options) -> None:
        start = time.perf_counter()
        run_units(jobs, *arguments, **options)
        calls.append((time.perf_counter() - start, list(jobs)))

    search.run_units = timed
    try:
        for _ in range(n_nodes - 1):
            cluster.add_node(num_cpus=1, **store)
        run_stages(("search",), write_job(files, folder, workspace, cluster.address), ())
    finally:
        search.run_units = run_units
        ray.shutdown()
        cluster.shutdown()
    (wall_s, jobs), _refits = calls
    # All results of a unit of trees come from one fit.
    fit_s = tuple(max(result.seconds for result in job.results()) for job in jobs)
    scores = tuple((workspace / f"search/{model}.json").read_text() for model in MODELS)
    return Searched(n_nodes, wall_s, fit_s, scores)


def table(searches: list[Searched], n_cores: int) -> str:
    """Markdown; times in seconds."""
    one = searches[0]
    rows = [
        "| nodes | wall of the units | all fits | median fit | outside fits | speed-up | ideal | efficiency |",
        "|---" * 8 + "|",
    ]
    for found in searches:
        ideal = min(found.n_nodes, n_cores)
        speed_up, in_fits = one.wall_s / found.wall_s, sum(found.fit_s)
        rows.append(
            f"| {found.n_nodes} | {found.wall_s:.1f} | {in_fits:.1f} | {statistics.median(found.fit_s):.2f} | "
            f"{found.wall_s - in_fits / found.n_nodes:.1f} | {speed_up:.2f} | {ideal} | {speed_up / ideal:.0%} |"
        )
    return "\n".join(rows)


def main() -> int:
    """Search on each number of nodes; 0 where the scores are the same and two nodes are worth their start."""
    n_cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="nodes-") as name:
        folder = Path(name)
        files = draw_landscape(LANDSCAPE, folder / "raw")
        run_stages(("zones", "acquire", "labels", "dataset"), write_job(files, folder, folder / "prepared", None), ())
        searches = [search_on(n, files, folder) for n in N_NODES]
    is_same = all(found.scores == searches[0].scores for found in searches)
    print(f"\n{len(searches[0].fit_s)} units on nodes of one CPU, {n_cores} cores\n\n{table(searches, n_cores)}\n")
    print("scores: the same, to the bit" if is_same else "scores: NOT THE SAME")
    print(
        "Outside fits: Tune's start, each node's worker importing its libraries, MLflow's runs, and nodes that wait for the "
        "last unit. Where nodes are more than cores, the fits themselves take longer."
    )
    efficiency = searches[0].wall_s / searches[1].wall_s / min(2, n_cores)
    return 0 if is_same and efficiency >= LEAST_EFFICIENCY else 1


if __name__ == "__main__":
    raise SystemExit(main())
