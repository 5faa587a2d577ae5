"""Settings of where a job runs, and of clusters for which it is only planned."""

from typing import Annotated

from pydantic import Field

from cropray.core.settings import Settings


class ClusterSettings(Settings):
    """Where the work runs."""

    address: str | None = None
    """A running Ray cluster (`auto`, `host:port`, `ray://…`); None: start a local Ray and stop it afterwards."""
    num_cpus: int | None = Field(default=None, ge=1)
    """CPUs of the local Ray; None: all."""
    wait_s: float = Field(default=0.0, ge=0)
    """How long a search waits for an autoscaling cluster to hold `search.max_concurrent` units (None: one), s; then it
    runs as many as fit. Other stages begin with the first CPU and wait as long for that."""
    object_store_gb: float | None = Field(default=None, gt=0)
    """Shared memory of the local Ray, GB; None: Ray's own default."""


class PlanSettings(Settings):
    """A cluster that is not at hand, for which `cropray plan` estimates the job: all of its nodes are alike.

    The job runs where `cluster` says; nothing here changes that.
    """

    nodes: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    """Numbers of nodes, each of which becomes a column of the table."""
    cpus: float = Field(gt=0)
    """CPUs of a node."""
    gpus: int = Field(default=0, ge=0)
    """GPUs of a node."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory of a node, GB; None: enough."""
    object_store_gb: float | None = Field(default=None, gt=0)
    """Of a node, GB; None: Ray's share of `memory_gb`, or where that is not given as much as a node here has."""
    cpu_speed: float = Field(default=1.0, gt=0)
    """Speed of one CPU there over one here."""
    gpu_tiles_per_s: float | None = Field(default=None, gt=0)
    """Tiles per second that one GPU trains the job's network of tiles on, as measured; None: assumed from the network's operations."""
    gpu_tflops: float = Field(default=31.2, gt=0)
    """Single-precision peak of a GPU, 10¹² operations per second; the default is NVIDIA's figure for the A10."""
    gpu_share: float = Field(default=0.25, gt=0, le=1)
    """Share of the peak that training is assumed to reach."""
    network_gbit_s: float = Field(default=10.0, gt=0)
    """Of a node, Gbit/s."""
    more_zones: int = Field(default=0, ge=0)
    """Zones beside the job's own that are acquired, labelled, scored and mapped, and not trained on."""
