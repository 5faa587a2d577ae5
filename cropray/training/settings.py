"""What a job file may say about training; apart from the training, so that it is read without loading torch and Ray."""

import sys
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from cropray.models.choices import Pool
from cropray.settings import Settings
from cropray.training.choices import TREES, ClassWeighting, Schedule, ValidationScore

_RESOURCES: Final = frozenset({"checkpoint_every", "max_failures", "memory_gb", "cpus_per_worker"})
# Other numbers of CPUs change a result by rounding at most, and repeat nothing.


class CnnSettings(Settings):
    """The CNN and how it is trained; the defaults are the original study's, pool aside."""

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

    def resources(self) -> frozenset[str]:
        """Workers and GPUs compute what one process computes."""
        return _RESOURCES | {"num_workers", "use_gpu"}


class CnnPoint(Settings):
    """One configuration of the search."""

    learning_rate: float = Field(gt=0)
    kernel_size: Literal[3, 5]


class XgboostSettings(Settings):
    """How trees are grown and where."""

    engine: Literal["ray_train", "xgboost_ray"] = "ray_train"
    """Who trains when there are workers. Both grow the same trees. `ray_train` takes half the memory (2.3 against
    4.6 GiB for 1.6 million pixels on two workers) and no unmaintained package; `xgboost_ray` starts 10 s sooner."""
    num_workers: int = Field(default=0, ge=0)
    """Workers of one fit; 0 trains in the calling process, which is best on one machine."""
    cpus_per_worker: int | None = Field(default=None, ge=1)
    """CPUs of each worker, or of the calling process, that compute; None: its share of the node, which a search counts
    (1 elsewhere). Fits that run at once share the CPUs, a refit that runs alone has all of a node."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory of each worker, or of the calling process, GB; None: its share of the node. It is also asked of Ray, but
    for the actors of `xgboost_ray`, which cannot ask. Where the bins of a worker's rows would not fit, `ray_train` keeps
    them on its disk, which is slow; the trees are the same."""
    device: Literal["cpu", "cuda"] = "cpu"
    """`cuda` takes one GPU per worker. The trees are those of `cpu` but for rounding."""
    gpu_memory_gb: float | None = Field(default=None, gt=0)
    """Memory of each worker's GPU, GB, by which a search refuses rows that do not fit; None: what CUDA says is free when
    the fit begins."""
    max_depth: int = Field(default=6, ge=1)
    min_child_weight: float = Field(default=1.0, ge=0)
    reg_lambda: float = Field(default=1.0, ge=0)
    subsample: float = Field(default=1.0, gt=0, le=1)
    """Share of rows per tree; below 1 the draw, and so the trees, depend on the number of workers."""
    colsample_bytree: float = Field(default=1.0, gt=0, le=1)
    """Share of features per tree."""
    max_bin: int = Field(default=256, ge=2, le=65536)
    """Bins per feature."""
    checkpoint_every: int = Field(default=25, ge=1)
    """Boosting rounds after which the trees so far are kept: what a lost process costs at most."""
    max_failures: int = Field(default=3, ge=0)
    """Times that a fit goes on from the last kept trees after it lost a worker."""

    def resources(self) -> frozenset[str]:
        """Workers count only where each draws of its own rows."""
        workers = {"num_workers"} if self.subsample == 1 else set()
        return _RESOURCES | {"device", "gpu_memory_gb", "engine"} | workers

    @model_validator(mode="after")
    def _engine_has_workers(self) -> Self:
        if self.engine == "xgboost_ray" and self.num_workers == 0:
            raise ValueError("engine 'xgboost_ray' trains in workers only: set num_workers to 1 or more")
        return self

    @property
    def gpus_per_worker(self) -> int:
        """GPUs that each worker takes."""
        return int(self.device == "cuda")

    @property
    def threads(self) -> int:
        """CPUs that each worker asks for, and its threads."""
        return self.cpus_per_worker or 1

    def parameters(self, n_classes: int, learning_rate: float, seed: int) -> dict[str, Any]:
        """Parameters of `xgb.train`."""
        own = {"max_depth", "min_child_weight", "reg_lambda", "subsample", "colsample_bytree", "max_bin", "device"}
        return {
            **TREES,
            "num_class": n_classes,
            "learning_rate": learning_rate,
            "nthread": self.threads,
            "seed": seed,
            **self.model_dump(include=own),
        }


@dataclass(frozen=True, slots=True)
class XgboostPoint:
    """One fit of a search: its prefixes are all the numbers of trees."""

    learning_rate: float
    n_estimators: tuple[int, ...]
    """Rising numbers of boosting rounds that are scored; the last one is trained."""

    def __post_init__(self) -> None:
        if not self.n_estimators or self.n_estimators[0] < 1 or list(self.n_estimators) != sorted({*self.n_estimators}):
            raise ValueError(f"n_estimators must be rising numbers from 1, got {self.n_estimators}")
