"""A job on a cluster that is not at hand: the same sums, with the nodes there and unit costs that stated assumptions change."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from cropray.cluster.node_memory import STORE_SHARE
from cropray.cluster.placement import Node
from cropray.cluster.resources import GB
from cropray.cluster.settings import PlanSettings
from cropray.config import JobConfig
from cropray.planning.costs import FitCosts, FitTerms, Kind, Straight, UnitCosts
from cropray.planning.work import Cluster, JobWork
from cropray.training.family import Family, family

MORE_THREADS: Final = 0.7  # what a thread adds beyond those that could be measured here
TRAIN_PASSES: Final = 3  # forward, and backward twice as much


def stated(job: JobConfig) -> PlanSettings:
    """The cluster that a job states."""
    assert job.plan is not None
    return job.plan


def cluster_there(target: PlanSettings, n_nodes: int, store_here_bytes: float) -> Cluster:
    """So many of the stated nodes."""
    store = store_here_bytes if target.memory_gb is None else target.memory_gb * GB * STORE_SHARE
    if target.object_store_gb is not None:
        store = target.object_store_gb * GB
    memory = math.inf if target.memory_gb is None else max(target.memory_gb * GB - store, 0.0)
    return Cluster((Node(target.cpus, target.gpus, store, memory),) * n_nodes, target.network_gbit_s * 1e9 / 8)


def work_there(here: JobWork, job: JobConfig, n_nodes: int) -> JobWork:
    """A job's work on so many of the stated nodes, with further zones like its own ones, none of them trained on."""
    target, zones, traffic = stated(job), here.zones, here.traffic
    more = target.more_zones
    factor = 1 + more / zones.n_zones
    grown = replace(
        zones,
        n_zones=zones.n_zones + more,
        n_test=zones.n_test + more,
        n_mapped=zones.n_mapped + more if zones.n_mapped else 0,
        n_pixels=round(zones.n_pixels * factor),
        test_rows=zones.test_rows + (zones.train_rows + zones.test_rows) * (factor - 1),
    )
    if traffic is not None:
        traffic = replace(
            traffic, requests=round(traffic.requests * factor), bytes=traffic.bytes * factor,
            seconds=traffic.seconds * factor, eecu_hours=traffic.eecu_hours and traffic.eecu_hours * factor,
        )  # fmt: skip
    return JobWork(job, grown, cluster_there(target, n_nodes, here.cluster.object_store_bytes), traffic)


def costs_there(here: JobWork, costs: UnitCosts, job: JobConfig) -> UnitCosts:
    """Unit costs on a CPU there, with the threads that the job asks for; fits alone are on GPUs, which `assumptions` says."""
    target = stated(job)
    slower, rates = 1 / target.cpu_speed, gpu_rates(costs, job)

    def fit_there(kind: Kind, of: FitCosts) -> FitCosts:
        own = slower * thread_factor(_threads(job, kind[0]), here.cluster.node_cpus)
        start, *others = of.seconds
        seconds = FitTerms(start * slower, *(value * own for value in others))
        if rate := rates.get(kind):
            seconds = seconds._replace(step_sample=1 / rate, score=1 / rate / TRAIN_PASSES)
        pixel_s = Straight(of.pixel_s.base * slower, of.pixel_s.per * slower)
        return of._replace(seconds=seconds, pixel_s=pixel_s, map_s=of.map_s * slower)

    zone = costs.zone
    if zone is not None:
        zone = replace(zone, seconds={step: value * slower for step, value in zone.seconds.items()})
    return UnitCosts(
        ray_start_s=costs.ray_start_s,
        worker_start_s=costs.worker_start_s * slower,
        find_s=costs.find_s * (1 + target.more_zones / here.zones.n_zones),
        zone=zone,
        fits={kind: fit_there(kind, of) for kind, of in costs.fits.items()},
    )


def thread_factor(threads: float, cpus_here: float) -> float:
    """Time with so many threads over the time with as many of them as there are CPUs here."""
    return cpus_here / (cpus_here + MORE_THREADS * (threads - cpus_here)) if threads > cpus_here else 1.0


def _threads(job: JobConfig, model: str) -> int:
    return max(int(job.settings_of(model).need().cpus), 1)


def _on_gpus(job: JobConfig) -> list[Family]:
    """Families that fit on GPUs there."""
    return [family(model) for model in job.search.models if job.settings_of(model).need().gpus]


def gpu_rates(costs: UnitCosts, job: JobConfig) -> dict[Kind, float]:
    """Kind of trial → tiles that one GPU trains on in a second, for families of which it can be said."""
    target, tiled = stated(job), {found.name for found in _on_gpus(job) if found.sample == "tile"}
    peak = target.gpu_tflops * 1e12 * target.gpu_share
    passes = {kind: TRAIN_PASSES * of.operations for kind, of in costs.fits.items() if kind[0] in tiled}
    rates = {kind: target.gpu_tiles_per_s or (n and peak / n) for kind, n in passes.items()}
    return {kind: rate for kind, rate in rates.items() if rate}


def assumptions(here: JobWork, costs: UnitCosts, job: JobConfig) -> list[str]:
    """What is taken for granted about a cluster that nobody has measured, in words."""
    target, cpus_here = stated(job), here.cluster.node_cpus
    beside = f"{here.cluster.n_cpus:g} CPUs"
    said = [
        f"a CPU there is {target.cpu_speed:g} × as fast as here (plan.cpu_speed), also where more than {beside} work side by side",
        f"nodes exchange training data at {target.network_gbit_s:g} Gbit/s (plan.network_gbit_s)",
        "storage, catalogue and tracking server answer many nodes as fast as this machine",
        "the cluster stands when the job begins, and no node is lost",
    ]
    if max(_threads(job, model) for model in job.search.models) > cpus_here:
        said.append(f"a fit's threads beyond the {cpus_here:g} that were measured add {MORE_THREADS:.0%} of a CPU each")
    said += [_gpu_assumption(costs, job, found) for found in _on_gpus(job)]
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


def _gpu_assumption(costs: UnitCosts, job: JobConfig, found: Family) -> str:
    target, rates = stated(job), {kind: v for kind, v in sorted(gpu_rates(costs, job).items()) if kind[0] == found.name}
    if not rates:
        setting = f"{found.name}.{job.settings_of(found.name).need().gpu_setting}"
        return f"fits of the {found.label} take as long as on CPUs: NOT MEASURED on a GPU ({setting})"
    trained = f"one GPU trains the {found.label} on {_by_kind(rates, ',.0f')} tiles/s"
    if target.gpu_tiles_per_s is not None:
        return f"{trained}, as given by plan.gpu_tiles_per_s"
    gigas = {kind: TRAIN_PASSES * costs.fits[kind].operations / 1e9 for kind in rates}
    return (
        f"NOT MEASURED: {trained}: {_by_kind(gigas, '.1f')} × 10⁹ operations a tile, {target.gpu_share:.0%} of a peak of "
        f"{target.gpu_tflops:g} × 10¹² a second; narrow convolutions and norms wait for memory. Measure it and set "
        "plan.gpu_tiles_per_s"
    )


def _by_kind(values: Mapping[Kind, float], form: str) -> str:
    return " and ".join(f"{value:{form}}" + (f" ({of})" if of else "") for (_, of), value in values.items())
