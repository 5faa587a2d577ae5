"""What a job file may say about XGBoost; apart from its training, so that it is read without loading xgboost and Ray."""

from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from cropray.cluster.resources import GB, READ_CPUS, FitSize, Need
from cropray.training.family import RESOURCES, FamilySettings, PixelFamilySettings
from cropray.training.xgboost.memory import bins_on_disk, fit_bytes, require_gpu_memory
from cropray.training.xgboost.parameters import TREES

_FRAME_CPUS: Final = 1.0  # the tasks that make the frames which actors of xgboost-ray, already placed, wait for


class XgboostSettings(PixelFamilySettings):
    """How trees are grown and where."""

    engine: Literal["ray_train", "xgboost_ray"] = "ray_train"
    """Who trains when there are workers. Both grow the same trees. `ray_train` takes a fifth less memory (1.4 against
    1.7 GiB for 320,000 pixels on two workers) and no unmaintained package; `xgboost_ray` takes a sixth less time."""
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
    learning_rate: float = Field(default=0.1, gt=0)
    """What each tree's leaves are multiplied with."""
    n_estimators: int = Field(default=200, gt=0)
    """Boosting rounds. Searched numbers are prefixes of one fit, which cost nothing but their scoring."""
    max_depth: int = Field(default=6, ge=1)
    """Levels of a tree."""
    min_child_weight: float = Field(default=1.0, ge=0)
    """Least sum of second derivatives in a leaf."""
    reg_lambda: float = Field(default=1.0, ge=0)
    """L2 penalty of the leaves' weights."""
    hessian: Literal["softmax", "bounded"] = "softmax"
    """Second derivative of the loss: `softmax`, XGBoost's 2p(1 - p), or `bounded`, |p - y|, by which seldom classes need no
    large `reg_lambda` or `min_child_weight`, no leaf exceeds the learning rate, and trees are smaller."""
    subsample: float = Field(default=1.0, gt=0, le=1)
    """Share of rows per tree; below 1 the draw, and so the trees, depend on the number of workers."""
    colsample_bytree: float = Field(default=1.0, gt=0, le=1)
    """Share of features per tree."""
    colsample_bynode: float = Field(default=1.0, gt=0, le=1)
    """Share of the tree's features per split: trees that differ more, as those of a forest do."""
    max_bin: int = Field(default=256, ge=2, le=65536)
    """Bins per feature."""
    checkpoint_every: int = Field(default=25, ge=1)
    """Boosting rounds after which the trees so far are kept: what a lost process costs at most."""
    max_failures: int = Field(default=3, ge=0)
    """Times that a fit goes on from the last kept trees after it lost a worker."""

    def resources(self) -> frozenset[str]:
        """Workers count only where each draws of its own rows."""
        workers = {"num_workers"} if self.subsample == 1 else set()
        return RESOURCES | {"device", "gpu_memory_gb", "engine"} | workers

    @model_validator(mode="after")
    def _engine_has_workers(self) -> Self:
        if self.engine == "xgboost_ray" and self.num_workers == 0:
            raise ValueError("engine 'xgboost_ray' trains in workers only: set num_workers to 1 or more")
        return self

    @property
    def is_sampled(self) -> bool:
        """Whether rounds draw rows or features."""
        return min(self.subsample, self.colsample_bytree, self.colsample_bynode) < 1

    @property
    def gpus_per_worker(self) -> int:
        """GPUs that each worker takes."""
        return int(self.device == "cuda")

    @property
    def threads(self) -> int:
        """CPUs that each worker asks for, and its threads."""
        return self.cpus_per_worker or 1

    def need(self) -> Need:
        """What a fit asks for."""
        is_in_actors = self.engine == "xgboost_ray"
        return Need(
            num_workers=self.num_workers,
            cpus=float(self.threads),
            gpus=float(self.gpus_per_worker),
            memory_bytes=(self.memory_gb or 0.0) * GB,
            task_cpus=_FRAME_CPUS if is_in_actors else READ_CPUS,
            least_workers=int(is_in_actors),
            gpu_setting="device",
            without_gpu="cpu",
        )

    def check(self, size: FitSize) -> str:
        """See `FamilySettings.check`."""
        require_gpu_memory(self, size.n_samples, size.n_classes, n_features=size.n_features)
        is_on_disk = bins_on_disk(self, size.n_samples, size.n_classes, size.memory_bytes, size.n_features)
        return "bins of the trees on disk, which is slower" if is_on_disk else ""

    def measurable(self, cpus: float, *, has_gpus: bool) -> Self:
        """See `FamilySettings.measurable`."""
        alone = self.model_copy(update={"engine": "ray_train", "num_workers": 0})
        return FamilySettings.measurable(alone, cpus, has_gpus=has_gpus)

    def fit_bytes(self, size: FitSize) -> float:
        """See `FamilySettings.fit_bytes`."""
        return fit_bytes(self, size.n_samples, size.n_classes, size.memory_bytes, size.n_features)

    def parameters(self, n_classes: int, seed: int) -> dict[str, Any]:
        """Parameters of `xgb.train`."""
        own = {
            "learning_rate",
            "max_depth",
            "min_child_weight",
            "reg_lambda",
            "subsample",
            "colsample_bytree",
            "colsample_bynode",
            "max_bin",
            "device",
        }
        return {
            **TREES,
            "num_class": n_classes,
            "nthread": self.threads,
            "seed": seed,
            **self.model_dump(include=own),
        }
