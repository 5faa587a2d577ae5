"""What a worker asks Ray for."""

from typing import Final

GB: Final = 1e9


def worker_resources(cpus: float, gpus: float, memory_gb: float | None) -> dict[str, float]:
    """The bundle of one worker; memory is bytes in Ray's terms, and is asked for only where it is set."""
    resources = {"CPU": cpus, "GPU": gpus, "memory": 0 if memory_gb is None else int(memory_gb * GB)}
    return {name: amount for name, amount in resources.items() if amount}
