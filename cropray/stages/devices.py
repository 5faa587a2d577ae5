"""Where models predict: what a zone's task asks Ray for, and the refusal where no node has it."""

from collections.abc import Sequence
from typing import Literal

from cropray.cluster.placement import live_nodes, place_when_ready
from cropray.cluster.resources import Need
from cropray.config import JobConfig
from cropray.core.errors import ConfigError
from cropray.training.family import family

Device = Literal["cpu", "cuda"]


def device_of(job: JobConfig, model: str) -> Device:
    """Where a model predicts, for scores as for maps: `map.device`, where its family can."""
    return job.map.device if family(model).predicts_on_gpu else "cpu"


def gpus_per_task(job: JobConfig, model: str) -> int:
    """GPUs that the task of one zone asks Ray for."""
    return int(device_of(job, model) == "cuda")


def memory_of(task_bytes: float, device: Device) -> float:
    """What a window may take in this process: the task's share of the node, and no more than its GPU has free."""
    if device == "cpu":
        return task_bytes
    from cropray.training.deep.device import free_gpu_bytes  # noqa: PLC0415  torch: only where a GPU is asked for

    return min(task_bytes, free_gpu_bytes())


def require_devices(job: JobConfig, models: Sequence[str]) -> None:
    """Raises: ConfigError: zones' tasks need a GPU and no node gets one within `cluster.wait_s`: they would wait for ever."""
    if not any(gpus_per_task(job, model) for model in models):
        return
    try:
        place_when_ready(Need(gpus=1.0, task_cpus=0.0), 1, job.cluster.wait_s)
    except ConfigError:
        nodes = live_nodes()
        raise ConfigError(
            f"map.device is 'cuda': the task of each zone needs 1 CPU and 1 GPU of one node, and the cluster's "
            f"{len(nodes)} node(s) have {sum(node.gpus for node in nodes):g} GPU(s) beside CPUs. Set map.device to cpu, "
            f"or add a node with a GPU (for an autoscaler's, set cluster.wait_s)"
        ) from None
