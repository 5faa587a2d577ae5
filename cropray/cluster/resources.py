"""What a fit and its workers ask Ray for."""

from dataclasses import dataclass
from typing import Final

from cropray.core.errors import ConfigError

GB: Final = 1e9
READ_CPUS: Final = 0.25
# A Ray Data read asks for a whole CPU by default; beside fits that hold the CPUs it would wait for ever.


@dataclass(frozen=True, slots=True)
class Need:
    """What one fit asks for, and which settings of its family say so."""

    model: str = ""
    """Family, whose section of the job has these settings."""
    num_workers: int = 0
    """0: it trains in its trial."""
    cpus: float = 1.0
    """Per worker, or of the trial; where it takes its share of the node, the least."""
    gpus: float = 0.0
    """Per worker, or of the trial."""
    task_cpus: float = READ_CPUS
    """Of the largest task that a fit may wait for while it holds its CPUs."""
    memory_bytes: float = 0.0
    """Per worker, or of the trial; 0: it takes its share of the node."""
    cpu_step: float = 1.0
    """What `cpus_per_worker` may be a multiple of."""
    least_workers: int = 0
    """Fewest workers that the family trains with."""
    gpu_setting: str = ""
    """Setting that asks for a GPU."""
    without_gpu: str = ""
    """Its value for none."""

    def bundle(self) -> dict[str, float]:
        """Of one worker, or of the trial."""
        return worker_resources(self.cpus, self.gpus, self.memory_bytes / GB)

    def bundles(self, n_units: int) -> list[dict[str, float]]:
        """What so many fits ask for, and one task that reads for them."""
        return [self.bundle()] * (n_units * self.n_bundles) + [{"CPU": self.task_cpus}]

    @property
    def memory_gb(self) -> float:
        """As in the settings, GB."""
        return self.memory_bytes / GB

    @property
    def n_bundles(self) -> int:
        """Bundles that a fit holds while it trains."""
        return max(self.num_workers, 1)


@dataclass(frozen=True, slots=True)
class FitSize:
    """How much a fit is made of."""

    n_samples: float
    """Rows or tiles, over all workers."""
    n_classes: int
    """Of the dataset."""
    n_features: int
    """Numbers that the model reads of a pixel."""
    memory_bytes: float | None
    """What each worker may take; None: not known."""


def require_memory(need_bytes: float, size: FitSize, what: str, family: str, less: str) -> None:
    """See that a fit keeps within what its workers may take, of which `need_bytes` is the most that one needs.

    Messages say what is made, and of what, the family whose section says how much memory there is, and what takes less.

    Raises:
        ConfigError: it does not.
    """
    if size.memory_bytes is not None and need_bytes > size.memory_bytes:
        raise ConfigError(
            f"{what} take {need_bytes / GB:.3g} GB in each worker, which may take {size.memory_bytes / GB:.3g} GB: raise "
            f"{family}.memory_gb (where it is not set: lower search.max_concurrent) to {need_bytes / GB:.3g} GB, or {less}"
        )


def worker_resources(cpus: float, gpus: float, memory_gb: float | None) -> dict[str, float]:
    """The bundle of one worker; memory is bytes in Ray's terms, and is asked for only where it is set."""
    resources = {"CPU": cpus, "GPU": gpus, "memory": 0 if memory_gb is None else int(memory_gb * GB)}
    return {name: amount for name, amount in resources.items() if amount}
