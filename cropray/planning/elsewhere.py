"""A job on a cluster that is not at hand: the same sums, with unit costs that are carried over by stated assumptions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from cropray.cluster.node_memory import STORE_SHARE
from cropray.cluster.placement import Node
from cropray.cluster.resources import GB
from cropray.cluster.settings import PlanSettings
from cropray.config import JobConfig
from cropray.imagery.acquisition import Traffic
from cropray.planning.costs import FitCosts, Kind, UnitCosts, ZoneCosts
from cropray.planning.estimate import Estimate, JobWork, estimate
from cropray.planning.table import quantity
from cropray.planning.work import Cluster, ZoneWork
from cropray.training.family import Family, family

MORE_THREADS: Final = 0.7  # what a thread adds beyond those that could be measured here
TRAIN_PASSES: Final = 3  # forward, and backward twice as much
_OF_ZONES: Final = ("acquire_s", "label_s", "count_s", "build_s", "film_s")
_OF_FITS: Final = ("sample_s", "step_s", "step_sample_s", "score_s")  # by all threads of a fit
_BESIDE_FITS: Final = ("start_s", "pixel_s", "pixel_step_s", "map_s")
CostsT = TypeVar("CostsT", ZoneCosts, FitCosts)


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
    operations: Mapping[Kind, float]
    """Kind of trial → operations of one sample forward, where its family knows them."""

    def on_gpus(self) -> list[Family]:
        """Families that fit on GPUs there."""
        return [family(model) for model in self.job.search.models if self.job.settings_of(model).need().gpus]

    def rates(self, target: PlanSettings) -> dict[Kind, float]:
        """Kind of trial → tiles that one GPU trains on in a second, for families of which it can be said."""
        tiled = {found.name for found in self.on_gpus() if found.sample == "tile"}
        known = [kind for kind in self.costs.fits if kind[0] in tiled]
        if target.gpu_tiles_per_s is not None:
            return dict.fromkeys(known, target.gpu_tiles_per_s)
        peak = target.gpu_tflops * 1e12 * target.gpu_share
        return {kind: peak / (TRAIN_PASSES * self.operations[kind]) for kind in known if kind in self.operations}


def cluster_there(target: PlanSettings, n_nodes: int, store_here_bytes: float) -> Cluster:
    """So many of the stated nodes."""
    store = store_here_bytes if target.memory_gb is None else target.memory_gb * GB * STORE_SHARE
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
    )
    return replace(work, zones=grown, traffic=_more_traffic(work.traffic, 1 + share))


def foretell(measured: Measured, work: JobWork) -> Estimate:
    """The sums of a job on another cluster.

    Args:
        measured: what was measured here.
        work: the work with the placements and the cluster there.
    """
    target = measured.job.plan
    assert target is not None
    grown = work_there(work, target.more_zones)
    costs = costs_there(measured, target)
    result = estimate(grown, costs)
    rates = measured.rates(target)
    if not rates:
        return result
    # Only fits are foretold on GPUs: scores and maps as on CPUs, which `assumptions` says.
    fits = {kind: _on_gpu(of, rates[kind]) if kind in rates else of for kind, of in costs.fits.items()}
    return replace(
        result, seconds={**result.seconds, "search": estimate(grown, replace(costs, fits=fits)).seconds["search"]}
    )


def costs_there(measured: Measured, target: PlanSettings) -> UnitCosts:
    """Unit costs on a CPU there, with the threads that the job asks for."""
    costs, factor = measured.costs, 1 / target.cpu_speed
    return UnitCosts(
        ray_start_s=costs.ray_start_s,
        worker_start_s=costs.worker_start_s * factor,
        find_s=costs.find_s * (1 + target.more_zones / measured.work.zones.n_zones),
        zone=None if costs.zone is None else _scaled(costs.zone, _OF_ZONES, factor),
        fits={
            kind: _scaled(
                _scaled(of, _BESIDE_FITS, factor),
                _OF_FITS,
                factor * thread_factor(_threads(measured, kind[0]), measured.cpus_here),
            )
            for kind, of in costs.fits.items()
        },
    )


def thread_factor(threads: float, cpus_here: float) -> float:
    """Time with so many threads over the time with as many of them as there are CPUs here."""
    return cpus_here / (cpus_here + MORE_THREADS * (threads - cpus_here)) if threads > cpus_here else 1.0


def _threads(measured: Measured, model: str) -> int:
    return max(int(measured.job.settings_of(model).need().cpus), 1)


def _on_gpu(costs: FitCosts, tiles_per_s: float) -> FitCosts:
    return replace(costs, step_sample_s=1 / tiles_per_s, score_s=1 / tiles_per_s / TRAIN_PASSES)


def _scaled(costs: CostsT, names: Sequence[str], factor: float) -> CostsT:
    return replace(costs, **{name: getattr(costs, name) * factor for name in names})


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
    if max(_threads(measured, model) for model in job.search.models) > measured.cpus_here:
        said.append(
            f"a fit's threads beyond the {measured.cpus_here:g} that were measured add {MORE_THREADS:.0%} of a CPU each"
        )
    said += [_gpu_assumption(measured, target, found) for found in measured.on_gpus()]
    said += [
        f"scores and maps of the {found.label} take as long as on CPUs: at most; what a GPU saves (map.device) is not counted"
        for found in map(family, job.search.models)
        if job.map.device == "cuda" and found.predicts_on_gpu
    ]
    if target.more_zones:
        said.append(
            f"{target.more_zones:,} more zones (plan.more_zones) are like the job's own: as many labelled pixels, as long "
            "to make; they are scored and mapped, not trained on"
        )
    return said


def _gpu_assumption(measured: Measured, target: PlanSettings, found: Family) -> str:
    rates = {values: rate for (model, values), rate in sorted(measured.rates(target).items()) if model == found.name}
    if not rates:
        setting = f"{found.name}.{measured.job.settings_of(found.name).need().gpu_setting}"
        return f"fits of the {found.label} take as long as on CPUs: NOT MEASURED on a GPU ({setting})"
    told = " and ".join(f"{rate:,.0f}{_of(values)}" for values, rate in rates.items())
    if target.gpu_tiles_per_s is not None:
        return f"one GPU trains the {found.label} on {told} tiles/s, as given by plan.gpu_tiles_per_s"
    gigas = " and ".join(
        f"{TRAIN_PASSES * measured.operations[found.name, values] / 1e9:.1f}{_of(values)}" for values in rates
    )
    return (
        f"NOT MEASURED: one GPU trains the {found.label} on {told} tiles/s: {gigas} × 10⁹ operations a tile, "
        f"{target.gpu_share:.0%} of a peak of {target.gpu_tflops:g} × 10¹² a second; narrow convolutions and norms wait for "
        "memory. Measure it and set plan.gpu_tiles_per_s"
    )


def _of(values: str) -> str:
    return f" ({values})" if values else ""


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
