"""How much there is to do: zones, pixels, rows, tiles, fits; and where it is done."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from cropray.cluster.placement import Node
from cropray.planning.costs import Kind
from cropray.training.family import Sample


@dataclass(frozen=True, slots=True)
class ZoneWork:
    """Zones of a job, with what they hold: counted, or scaled up from a sample."""

    n_zones: int
    n_test: int
    n_mapped: int
    """Zones that each model maps."""
    n_films: int
    """Zones that the report shows through the year."""
    n_pixels: int
    """Of all zones."""
    rows: float
    """Labelled pixels of all zones."""
    train_rows: float
    test_rows: float
    train_tiles: float
    n_classes: int
    is_sampled: bool
    """Whether rows, tiles and classes are scaled up from a sample; otherwise the dataset's manifest counted them."""
    n_regions: int = 0
    """Regions that have training zones."""

    def training(self, sample: Sample) -> float:
        """Samples of a kind in all training zones."""
        return self.train_rows if sample == "pixel" else self.train_tiles


@dataclass(frozen=True, slots=True)
class Fit:
    """One unit of a search, as far as its cost goes."""

    kind: Kind
    steps: int
    """At most; 1 where the family has none."""
    is_refit: bool = False
    """Whether it trains on all training zones and is not scored."""
    is_region_out: bool = False
    """Whether it trains on all regions but one, and is scored on that one, once."""

    @property
    def model(self) -> str:
        """Its family."""
        return self.kind[0]

    @property
    def is_fold(self) -> bool:
        """Whether it validates a configuration."""
        return not (self.is_refit or self.is_region_out)


@dataclass(frozen=True, slots=True)
class SearchWork:
    """The fits of a job, in the order in which they are begun, by groups that run side by side."""

    groups: tuple[tuple[Fit, ...], ...]
    n_folds: int
    n_regions: int = 0
    """Regions that leave-region-out scores; 0: it does not."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the work is done."""

    nodes: tuple[Node, ...]
    """At least one."""
    network_bytes_s: float = 10e9 / 8
    """Of one node; assumed where nothing is said."""

    @property
    def n_cpus(self) -> float:
        """Of all nodes."""
        return sum(node.cpus for node in self.nodes)

    @property
    def n_gpus(self) -> float:
        """Of all nodes."""
        return sum(node.gpus for node in self.nodes)

    @property
    def n_nodes(self) -> int:
        """All of them."""
        return len(self.nodes)

    @property
    def object_store_bytes(self) -> float:
        """Of one node: what a fit reads must lie in its own node's store."""
        return sum(node.object_store_bytes for node in self.nodes) / self.n_nodes


def makespan(durations_s: Iterable[float], n_slots: int) -> float:
    """Seconds until the last of some tasks ends, which start in order, each in the first slot that is free."""
    if n_slots < 1:
        raise ValueError(f"tasks need at least one slot, got {n_slots}")
    slots = [0.0] * n_slots
    for duration in durations_s:
        heapq.heapreplace(slots, slots[0] + duration)
    return max(slots)


def at_once(cluster: Cluster) -> int:
    """Tasks of one CPU that the cluster holds at the same time, at least one."""
    return max(1, int(cluster.n_cpus))
