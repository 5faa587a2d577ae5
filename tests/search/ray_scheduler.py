"""Ray's scheduler, as far as a search can meet it: bundles, whole groups of bundles, tasks; and an order meant to hurt.

A unit is a trial with a bundle of its own and, with workers, a group of bundles that is placed whole or not at all.
While it trains it needs reading tasks before it can end. CPUs and GPUs are counted in 1/10,000, as Ray does, memory in
bytes.
"""

import itertools
import random
from dataclasses import dataclass, field

STEPS = 10_000


def steps(amount):
    return round(amount * STEPS)


@dataclass
class Unit:
    """One running unit."""

    held: list = field(default_factory=list)  # (node, cpus, gpus, memory)
    is_placed: bool = False
    reads_left: int = 2


class Scheduler:
    """A cluster; `pick` chooses among the nodes that have room, as Ray might."""

    def __init__(self, nodes, pick):
        self.cpus = [steps(node.cpus) for node in nodes]
        self.gpus = [steps(node.gpus) for node in nodes]
        self.memory = [node.memory_bytes for node in nodes]
        self.pick = pick

    def take(self, cpus, gpus=0, memory=0):
        """A node that now holds the bundle; None: no room."""
        have = enumerate(zip(self.cpus, self.gpus, self.memory, strict=True))
        free = [i for i, (c, g, m) in have if c >= cpus and g >= gpus and m >= memory]
        if not free:
            return None
        node = self.pick(free, self.cpus, cpus)
        self.cpus[node] -= cpus
        self.gpus[node] -= gpus
        self.memory[node] -= memory
        return node, cpus, gpus, memory

    def give(self, held):
        node, cpus, gpus, memory = held
        self.cpus[node] += cpus
        self.gpus[node] += gpus
        self.memory[node] += memory

    def take_group(self, bundle, n):
        """All of n bundles or none."""
        held = []
        for _ in range(n):
            taken = self.take(*bundle)
            if taken is None:
                for each in held:
                    self.give(each)
                return None
            held.append(taken)
        return held


def pack(free, cpus, need):
    return min(free, key=lambda i: (cpus[i], i))


def spread(free, cpus, need):
    return max(free, key=lambda i: (cpus[i], i))


def at_random(seed):
    draw = random.Random(seed)
    return lambda free, cpus, need: draw.choice(free)


def run_to_the_end(nodes, placement, task_cpus, n_units, pick):
    """Run units as a search does: all that may start does so before anything is read, and reads before anything ends.

    Raises:
        AssertionError: a unit that started waits for CPUs, or nothing can go on any more.
    """
    ray = Scheduler(nodes, pick)
    bundle = steps(placement.cpus_per_worker), steps(placement.gpus_per_worker), placement.asked_memory_bytes
    trial = placement.trial_resources
    own = steps(trial.get("CPU", 0)), steps(trial.get("GPU", 0)), trial.get("memory", 0)
    running, waiting = [], n_units
    while running or waiting:
        while waiting and len(running) < placement.max_concurrent:
            unit, waiting = Unit(), waiting - 1
            if placement.num_workers:
                assert own == (0, 0, 0), "a driver takes what its workers need"
                unit.held = ray.take_group(bundle, placement.num_workers)
            else:
                unit.held = ray.take_group(own, 1)
            assert unit.held is not None, f"{len(running)} units run, the next one waits: {ray.cpus}"
            running.append(unit)
        for unit in running:
            while unit.reads_left:
                read = ray.take(steps(task_cpus))
                assert read is not None, f"{len(running)} units wait for a reading task: {ray.cpus}"
                ray.give(read)
                unit.reads_left -= 1
        for held in running.pop(0).held:
            ray.give(held)


def is_safe(nodes, cpus, gpus, n_bundles, task_cpus, memory=0):
    """Whether so many bundles fit and leave some node with room for a task, in every way to place them."""
    blocked, fit = {0}, 0  # numbers of bundles that can leave no room on any of the nodes so far
    for node in nodes:
        cap = steps(node.cpus) // steps(cpus)
        cap = min(cap, steps(node.gpus) // steps(gpus)) if gpus else cap
        while memory and cap * memory > node.memory_bytes:
            cap -= 1
        here = [n for n in range(cap + 1) if steps(node.cpus) - n * steps(cpus) < steps(task_cpus)]
        blocked, fit = {n + m for n in blocked for m in here}, fit + cap
    return n_bundles <= fit and n_bundles not in blocked


def clusters():
    """1–8 nodes of 1, 2, 4 or 8 CPUs, without GPUs, with 1–4 on the first node, or with one on each."""
    for n, cpus in itertools.product(range(1, 9), (1, 2, 4, 8)):
        for gpus in range(5):
            yield [(cpus, gpus if i == 0 else 0) for i in range(n)]
        if n > 1:
            yield [(cpus, 1)] * n
