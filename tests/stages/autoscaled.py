"""A cluster whose nodes come when tasks wait for them, as `ray` is seen by a stage: Ray's own autoscaler chooses them."""

from types import SimpleNamespace

import ray
import yaml
from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer, get_nodes_for

from tests.deployment.pinned import ROOT

BOOT = 3  # turns of the driver's loop until a node that was ordered is there


class Autoscaled:
    """Stands for the module `ray`: a head without CPUs, and the node types of cluster.yaml."""

    exceptions = ray.exceptions

    def __init__(self):
        described = yaml.safe_load((ROOT / "cluster.yaml").read_text())
        self.types, self.most = described["available_node_types"], described["max_workers"]
        self.nodes, self.ordered, self.waiting, self.ready = [], [], [], {}
        self.clock = 0
        self.most_cpus = 0

    def cluster_resources(self):
        cpus = sum(self.types[kind]["resources"]["CPU"] for kind in self.nodes)
        self.most_cpus = max(self.most_cpus, cpus)
        return {"CPU": cpus} if cpus else {}

    def order(self, demand):
        """Nodes for tasks that no node holds, or is going to hold."""
        there = {kind: [*self.nodes, *(kind for _, kind in self.ordered)].count(kind) for kind in self.types}
        room = sum(self.types[kind]["resources"]["CPU"] * n for kind, n in there.items())
        missing = [{"CPU": 1}] * (demand - room)
        added, _ = get_nodes_for(
            self.types,
            there,
            "head",
            self.most - sum(there.values()),
            missing,
            lambda *a: _default_utilization_scorer(*a, node_availability_summary=None),
        )
        self.ordered += [(self.clock + BOOT, kind) for kind, n in added.items() for _ in range(n)]

    def turn(self):
        """Time passes: nodes come."""
        self.clock += 1
        self.nodes += [kind for at, kind in self.ordered if at <= self.clock]
        self.ordered = [(at, kind) for at, kind in self.ordered if at > self.clock]

    def submit(self, task, *where):
        ref = object()
        self.waiting.append(ref)
        self.ready[ref] = SimpleNamespace(zone_id=task.zone_id, result=where, error=None)
        return ref

    def wait(self, refs, num_returns, timeout):
        """The tasks that had a CPU are done, one turn later."""
        assert num_returns == 1
        assert 0 < timeout <= 60
        self.order(len(self.waiting))
        running = self.waiting[: int(self.cluster_resources().get("CPU", 0))]
        self.turn()
        done = running[:1]
        for ref in done:
            self.waiting.remove(ref)
        return done, [ref for ref in refs if ref not in done]

    def get(self, ref):
        return self.ready[ref]
