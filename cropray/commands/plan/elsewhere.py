"""A job on clusters that are not at hand: what is measured here for it, and what is printed."""

import math
from typing import Final

from cropray.commands.plan.work import local_cluster
from cropray.config import JobConfig
from cropray.core.progress import Progress
from cropray.planning.costs import UnitCosts
from cropray.planning.elsewhere import assumptions, cluster_there, costs_there, stated, work_there
from cropray.planning.estimate import estimate
from cropray.planning.limits import Room, require_room
from cropray.planning.table import Amounts, lines_of, scaling_table, table
from cropray.planning.work import JobWork, place

_LEVERS: Final = "lower search.max_concurrent, plan.cpus or plan.object_store_gb, or state more plan.memory_gb"


def require_placed(job: JobConfig) -> None:
    """Refuse what the stated nodes could not run, before anything is measured.

    Raises:
        ConfigError: not even one unit fits.
    """
    for n_nodes in stated(job).nodes:
        place(job, cluster_there(stated(job), n_nodes, 0.0))


def measurable(job: JobConfig) -> JobConfig:
    """The job as it can be measured here: on CPUs, in single processes, with at most as many threads as there are CPUs."""
    most = local_cluster(job).n_cpus
    settings = {model: job.settings_of(model) for model in job.search.models}
    alone = {name: each.measurable(min(each.need().cpus, most), has_gpus=False) for name, each in settings.items()}
    return job.model_copy(update=alone)


def print_elsewhere(job: JobConfig, here: JobWork, costs: UnitCosts, progress: Progress) -> None:
    """Print a job, whose work was counted and measured here, on each cluster that it states; then what was assumed.

    Raises:
        ConfigError: a node there has too little memory.
    """
    target, there_costs = stated(job), costs_there(here, costs, job)
    memory = math.inf if target.memory_gb is None else target.memory_gb * 1e9
    results: dict[int, Amounts] = {}
    for n in sorted(set(target.nodes)):
        there = work_there(here, job, n)
        result = results[n] = estimate(there, there_costs)
        store = there.cluster.object_store_bytes
        there_is = Room(math.inf, memory, store, where=f"on {n} such nodes", memory_settings=_LEVERS)
        require_room(result, there_is, there)
        placed = "; ".join(f"{model} {each.max_concurrent} at a time" for model, each in there.placements.items())
        progress.note(f"{n} node{'s' * (n > 1)}: {placed}")
    print(f"\n{table([line for line in lines_of(result) if line.group != 'time'])}")
    print(f"\n{scaling_table(results)}\n", flush=True)
    for said in assumptions(here, costs, job):
        progress.note(f"assumed: {said}")
