"""Foretelling a job on a cluster that is not at hand: what is measured here for it, and how it is told."""

from collections.abc import Mapping
from typing import Final

from cropray.cluster.placement import Placement
from cropray.commands.plan.work import local_cluster, over_budget, place
from cropray.config import JobConfig
from cropray.core.progress import Progress
from cropray.planning.costs import Kind, UnitCosts
from cropray.planning.elsewhere import Measured, assumptions, cluster_there, foretell, scaling_table
from cropray.planning.estimate import Estimate, JobWork, kinds, search_work
from cropray.planning.limits import Need, Room, require_room
from cropray.planning.table import lines_of, table
from cropray.planning.work import Cluster, at_once
from cropray.training.family import family

_LEVERS: Final = "lower search.max_concurrent, plan.cpus or plan.object_store_gb, or state more plan.memory_gb"


def require_placed(job: JobConfig) -> None:
    """Refuse what the stated nodes could not run, before anything is measured.

    Raises:
        ConfigError: not even one unit fits.
    """
    for cluster in _clusters(job, 0.0).values():
        place(job, cluster)


def measurable(job: JobConfig) -> JobConfig:
    """The job as it can be measured here: on CPUs, in single processes, with at most as many threads as there are CPUs."""
    most = local_cluster(job).n_cpus
    settings = {model: job.settings_of(model) for model in job.search.models}
    alone = {name: each.measurable(min(each.need().cpus, most), has_gpus=False) for name, each in settings.items()}
    return job.model_copy(update=alone)


def need_of(result: Estimate, work: JobWork) -> Need:
    """What a job needs of each node's memory; its disk is another matter."""
    most = max(placement.max_concurrent for placement in work.placements.values())
    n_workers = min(at_once(work.cluster), most) / work.cluster.n_nodes
    return Need(0.0, result.object_store_bytes, max(result.worker_bytes.values()), n_workers)


def print_elsewhere(job: JobConfig, work: JobWork, costs: UnitCosts, progress: Progress) -> None:
    """Print the job on each of the clusters that it states, then everything that was assumed.

    Raises:
        ConfigError: a node there has too little memory.
    """
    assert job.plan is not None
    cpus_here = work.cluster.n_cpus / work.cluster.n_nodes
    measured = Measured(job, work, costs, cpus_here, _operations(job, work.zones.n_classes))
    memory = float("inf") if job.plan.memory_gb is None else job.plan.memory_gb * 1e9
    results = []
    for n_nodes, cluster in _clusters(job, work.cluster.object_store_bytes).items():
        placements = place(job, cluster)
        search = search_work(job, placements, job.dataset.n_folds, work.zones.n_regions)
        there = JobWork(job, work.zones, search, placements, cluster, work.traffic)
        result = foretell(measured, there)
        over = over_budget(job, there, result.worker_bytes)
        store = cluster.object_store_bytes
        there_is = Room(float("inf"), memory, store, where=f"on {n_nodes} such nodes", memory_settings=_LEVERS)
        require_room(need_of(result, there), there_is, over)
        results.append((n_nodes, result))
        progress.note(f"{n_nodes} node{'s' * (n_nodes > 1)}: {_placed(placements)}")
    print(f"\n{table([line for line in lines_of(results[-1][1]) if line.group != 'time'])}")
    print(f"\n{scaling_table(results)}\n", flush=True)
    for said in assumptions(measured):
        progress.note(f"assumed: {said}")


def _clusters(job: JobConfig, store_here_bytes: float) -> dict[int, Cluster]:
    assert job.plan is not None
    return {n: cluster_there(job.plan, n, store_here_bytes) for n in sorted(set(job.plan.nodes))}


def _placed(placements: Mapping[str, Placement]) -> str:
    return "; ".join(f"{model} {placement.max_concurrent} at a time" for model, placement in placements.items())


def _operations(job: JobConfig, n_classes: int) -> dict[Kind, float]:
    counted = {model: family(model).operations for model in job.search.models}
    return {
        kind: count(settings, job.dataset.tile_size, n_classes, job.cube_spec)
        for model, count in counted.items()
        if count is not None
        for kind, settings in kinds(job, model).items()
    }
