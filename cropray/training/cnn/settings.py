"""What a job file may say about the CNN; apart from its training, so that it is read without loading torch and Ray."""

import sys
from typing import Any, Literal

from pydantic import Field, model_validator

from cropray.nets.choices import Pool
from cropray.training.choices import ClassWeighting, Schedule, ValidationScore
from cropray.training.family import RESOURCES, FamilySettings
from cropray.training.resources import GB, Need


class CnnSettings(FamilySettings):
    """The CNN and how it is trained; the defaults are the original study's, pool aside."""

    learning_rate: float = Field(default=1e-3, gt=0)
    kernel_size: Literal[3, 5] = 3
    """Steps of time that one convolution over time sees."""
    temporal_channels: int = Field(default=64, ge=1)
    """Width of the convolutions over time."""
    unet_channels: tuple[int, ...] = Field(default=(64, 128, 256, 512, 512), min_length=1)
    """Width of each U-Net level, finest first."""
    pool: Pool = "flatten"
    """How months become one embedding: `max` (the study's), `mean`, or `flatten`, which keeps their order."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    epochs: int = Field(default=50, ge=1)
    """Most epochs of a fit, and those over which `schedule` falls. The refit takes the folds' mean best epoch, at the
    learning rates that the folds had."""
    batch_size: int = Field(default=64, ge=1)
    """Tiles of a step, over all workers."""
    patience: int = Field(default=3, ge=1)
    """Epochs without improvement after which a fit stops."""
    monitor: ValidationScore = "val_loss"
    """What has to improve."""
    schedule: Schedule = "constant"
    """`cosine` lowers the learning rate over `epochs`: more score from few epochs."""
    weight_decay: float = Field(default=0.0, ge=0)
    class_weighting: ClassWeighting = "none"
    """`sqrt_inverse` weighs classes by 1 / √(training pixels)."""
    augment: bool = False
    """Turn and mirror training tiles."""
    num_workers: int = Field(default=0, ge=0)
    """Workers of one fit; 0: in the calling process, without a worker group's start-up of 15–40 s."""
    cpus_per_worker: float | None = Field(default=None, gt=0)
    """CPUs of each worker, or of the calling process, that compute; None: its share of the node, which a search counts
    (1 elsewhere). Fits that run at once share the CPUs, a refit that runs alone has all of a node. On as many CPUs a fit
    has the same bits; on more or fewer its losses differ by rounding."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory of each worker, or of the calling process, GB, also asked of Ray; None: its share of the node."""
    use_gpu: bool = False
    """One GPU per worker. Convolutions round their inputs to TF32 while training, as torch has it; kernels are the
    deterministic ones, so that a fit that goes on after a loss should end with the same bits on the same kind of GPU
    (`python -m tests.gpu` tells whether it does). A search that was begun without GPUs repeats nothing."""
    checkpoint_every: int = Field(default=1, ge=1)
    """Epochs after which a fit's state is kept: what a lost process costs at most."""
    max_failures: int = Field(default=3, ge=0)
    """Times that a fit goes on from its last kept state after a worker group lost a worker."""

    @model_validator(mode="before")
    @classmethod
    def _threads_are_cpus(cls, raw: Any) -> Any:
        """Job files once gave the threads of a worker beside the CPUs that it asked for."""
        if not isinstance(raw, dict) or "threads" not in raw:
            return raw
        rest = {name: value for name, value in raw.items() if name != "threads"}
        read = {"cpus_per_worker": raw["threads"], **rest}
        print(
            f"cnn.threads is now cnn.cpus_per_worker: it is read as {read['cpus_per_worker']}, and as many CPUs compute; "
            f"remove cnn.threads from the job file",
            file=sys.stderr,
        )
        return read

    @property
    def cpus(self) -> float:
        """CPUs that each worker asks for."""
        return self.cpus_per_worker or 1.0

    @property
    def threads(self) -> int:
        """CPU threads of each worker."""
        return max(int(self.cpus), 1)

    def need(self) -> Need:
        """What a fit asks for."""
        return Need(
            num_workers=self.num_workers,
            cpus=self.cpus,
            gpus=float(self.use_gpu),
            memory_bytes=(self.memory_gb or 0.0) * GB,
            cpu_step=0.25,
            gpu_setting="use_gpu",
            without_gpu="false",
        )

    def resources(self) -> frozenset[str]:
        """Workers and GPUs compute what one process computes."""
        return RESOURCES | {"num_workers", "use_gpu"}
