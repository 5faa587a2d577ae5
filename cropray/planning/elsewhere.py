"""A job on a cluster that is not at hand: the same sums, with unit costs that are carried over by stated assumptions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cropray.config import JobConfig, PlanSettings
from cropray.planning.costs import CnnCosts, TreeCosts, UnitCosts, ZoneCosts
from cropray.planning.estimate import Estimate, JobWork, estimate
from cropray.planning.limits import GB
from cropray.planning.table import quantity
from cropray.planning.traffic import Traffic
from cropray.planning.work import Cluster, ZoneWork, section
from cropray.search.placement import Node

RAY_STORE_SHARE: Final = 0.3  # of memory, where nothing is set; source: Ray's documentation
MORE_THREADS: Final = 0.7  # what a thread adds beyond those that could be measured here
TRAIN_PASSES: Final = 3  # forward, and backward twice as much


@dataclass(frozen=True, slots=True)
class Measured:
    """What a plan measured on the machine at hand, from which others are foretold."""

    job: JobConfig
    """As it shall run there."""
    work: JobWork
    """As it was counted here."""
    costs: UnitCosts
    cpus_here: float
    """Of a node."""
    tile_operations: Mapping[int, float]
    """Size of the CNN's kernel → operations of one tile forward."""


def cluster_there(target: PlanSettings, n_nodes: int, store_here_bytes: float) -> Cluster:
    """So many of the stated nodes."""
    store = store_here_bytes if target.memory_gb is None else target.memory_gb * GB * RAY_STORE_SHARE
    if target.object_store_gb is not None:
        store = target.object_store_gb * GB
    memory = math.inf if target.memory_gb is None else max(target.memory_gb * GB - store, 0.0)
    return Cluster((Node(target.cpus, target.gpus, store, memory),) * n_nodes, target.network_gbit_s * 1e9 / 8)


def work_there(work: JobWork, more_zones: int) -> JobWork:
    """The work with further zones like the job's own ones, none of them trained on."""
    zones, share = work.zones, more_zones / work.zones.n_zones
    mapped = zones.n_mapped + more_zones if zones.n_mapped else 0
    grown: ZoneWork = replace(
        zones,
        n_zones=zones.n_zones + more_zones,
        n_test=zones.n_test + more_zones,
        n_mapped=mapped,
        n_pixels=round(zones.n_pixels * (1 + share)),
        rows=zones.rows * (1 + share),
        test_rows=zones.test_rows + zones.rows * share,
        test_tiles=zones.test_tiles + (zones.train_tiles + zones.test_tiles) * share,
    )
    return replace(work, zones=grown, traffic=_more_traffic(work.traffic, 1 + share))


def foretell(measured: Measured, work: JobWork) -> Estimate:
    """The sums of a job on another cluster.

    Args:
        measured: what was measured here.
        work: the work with the placements and the cluster there.
    """
    job, target = measured.job, measured.job.plan
    assert target is not None
    grown = work_there(work, target.more_zones)
    costs = costs_there(measured, target)
    result = estimate(grown, costs)
    if not section(job, "cnn").use_gpu or not costs.cnn:
        return result
    # Only fits are foretold on GPUs: scores and maps as on CPUs, which `assumptions` says.
    seconds = {**result.seconds, "search": estimate(grown, _with_gpu(measured, target, costs)).seconds["search"]}
    return replace(result, seconds=seconds)


def costs_there(measured: Measured, target: PlanSettings) -> UnitCosts:
    """Unit costs on a CPU there, with the threads that the job asks for."""
    costs, job = measured.costs, measured.job
    trees = cnn = 1 / target.cpu_speed
    trees *= thread_factor(section(job, "xgboost").threads, measured.cpus_here)
    cnn *= thread_factor(section(job, "cnn").threads, measured.cpus_here)
    return UnitCosts(
        ray_start_s=costs.ray_start_s,
        worker_start_s=costs.worker_start_s / target.cpu_speed,
        find_s=costs.find_s * (1 + target.more_zones / measured.work.zones.n_zones),
        zone=None if costs.zone is None else _faster_zones(costs.zone, 1 / target.cpu_speed),
        trees=None if costs.trees is None else _faster_trees(costs.trees, trees, 1 / target.cpu_speed),
        cnn={size: _faster_cnn(of, cnn, 1 / target.cpu_speed) for size, of in costs.cnn.items()},
    )


def thread_factor(threads: float, cpus_here: float) -> float:
    """Time with so many threads over the time with as many of them as there are CPUs here."""
    return cpus_here / (cpus_here + MORE_THREADS * (threads - cpus_here)) if threads > cpus_here else 1.0


def gpu_tiles_per_s(target: PlanSettings, tile_operations: float) -> float:
    """Tiles that one GPU trains on in a second."""
    if target.gpu_tiles_per_s is not None:
        return target.gpu_tiles_per_s
    return target.gpu_tflops * 1e12 * target.gpu_share / (TRAIN_PASSES * tile_operations)


def _with_gpu(measured: Measured, target: PlanSettings, costs: UnitCosts) -> UnitCosts:
    tile_s = {size: 1 / gpu_tiles_per_s(target, n) for size, n in measured.tile_operations.items()}
    cnn = {
        size: replace(of, train_tile_s=tile_s[size], eval_tile_s=tile_s[size] / TRAIN_PASSES)
        for size, of in costs.cnn.items()
    }
    return replace(costs, cnn=cnn)


def _faster_zones(costs: ZoneCosts, factor: float) -> ZoneCosts:
    names = ("acquire_s", "label_s", "count_s", "build_s", "film_s")
    return replace(costs, **{name: getattr(costs, name) * factor for name in names})


def _faster_trees(costs: TreeCosts, fit: float, other: float) -> TreeCosts:
    names = ("setup_row_s", "round_s", "round_row_s")
    fits = {name: getattr(costs, name) * fit for name in names}
    return replace(costs, **fits, predict_row_s=costs.predict_row_s * other, map_s=costs.map_s * other)


def _faster_cnn(costs: CnnCosts, fit: float, other: float) -> CnnCosts:
    return replace(
        costs,
        start_s=costs.start_s * other,
        train_tile_s=costs.train_tile_s * fit,
        eval_tile_s=costs.eval_tile_s * fit,
        map_s=costs.map_s * other,
    )


def _more_traffic(traffic: Traffic | None, factor: float) -> Traffic | None:
    if traffic is None:
        return None
    eecu = None if traffic.eecu_hours is None else traffic.eecu_hours * factor
    return Traffic(round(traffic.requests * factor), traffic.bytes * factor, traffic.seconds * factor, eecu)


def assumptions(measured: Measured) -> list[str]:
    """What is taken for granted about a cluster that nobody has measured, in words."""
    job, target = measured.job, measured.job.plan
    assert target is not None
    beside = f"{measured.work.cluster.n_cpus:g} CPUs"
    said = [
        f"a CPU there is {target.cpu_speed:g} × as fast as here (plan.cpu_speed), also where more than {beside} work side by side",
        f"nodes exchange training data at {target.network_gbit_s:g} Gbit/s (plan.network_gbit_s)",
        "storage, catalogue and tracking server answer many nodes as fast as this machine",
        "the cluster stands when the job begins, and no node is lost",
    ]
    threads = max(
        section(job, "xgboost").threads if measured.costs.trees else 0,
        section(job, "cnn").threads if measured.costs.cnn else 0,
    )
    if threads > measured.cpus_here:
        said.append(
            f"a fit's threads beyond the {measured.cpus_here:g} that were measured add {MORE_THREADS:.0%} of a CPU each"
        )
    if section(job, "cnn").use_gpu and measured.costs.cnn:
        said.append(_gpu_assumption(target, measured.tile_operations))
    if job.map.device == "cuda" and measured.costs.cnn:
        said.append(
            "scores and maps of the CNN take as long as on CPUs: at most; what a GPU saves (map.device) is not counted"
        )
    if section(job, "xgboost").device == "cuda" and measured.costs.trees:
        said.append("trees take as long as on CPUs: NOT MEASURED on a GPU (xgboost.device)")
    if target.more_zones:
        said.append(
            f"{target.more_zones:,} more zones (plan.more_zones) are like the job's own: as many labelled pixels, as long "
            "to make; they are scored and mapped, not trained on"
        )
    return said


def _gpu_assumption(target: PlanSettings, operations: Mapping[int, float]) -> str:
    rates = " and ".join(f"{gpu_tiles_per_s(target, n):,.0f} (kernel {size})" for size, n in sorted(operations.items()))
    if target.gpu_tiles_per_s is not None:
        return f"one GPU trains on {rates} tiles/s, as given by plan.gpu_tiles_per_s"
    gigas = " and ".join(f"{TRAIN_PASSES * n / 1e9:.1f} (kernel {size})" for size, n in sorted(operations.items()))
    return (
        f"NOT MEASURED: one GPU trains on {rates} tiles/s: {gigas} × 10⁹ operations a tile, {target.gpu_share:.0%} of a peak of "
        f"{target.gpu_tflops:g} × 10¹² a second; narrow convolutions and norms wait for memory. Measure it and set "
        "plan.gpu_tiles_per_s"
    )


def scaling_table(results: Sequence[tuple[int, Estimate]]) -> str:
    """Time of each stage by number of nodes; speed-up and efficiency of the whole beside the fewest nodes."""
    (fewest, first), *_ = results = sorted(results, key=lambda result: result[0])
    totals = [sum(result.seconds.values()) for _, result in results]
    head = f"{'time':<12}" + "".join(f"{f'{n} node' + 's' * (n > 1):>14}" for n, _ in results)
    rows = [head, "─" * len(head)]
    lines = {stage: [result.seconds[stage] for _, result in results] for stage in first.seconds} | {"total": totals}
    rows += [
        f"{name:<12}" + "".join(f"{quantity(value, 's'):>14}" for value in values) for name, values in lines.items()
    ]
    rows.insert(-1, "─" * len(head))
    faster = [totals[0] / total for total in totals]
    rows.append(f"{'speed-up':<12}" + "".join(f"{value:>14.2f}" for value in faster))
    shares = [value * fewest / n for value, (n, _) in zip(faster, results, strict=True)]
    rows.append(f"{'efficiency':<12}" + "".join(f"{share:>14.0%}" for share in shares))
    return "\n".join(rows)
