"""What a job file may say about LightGBM; apart from its training, so that it is read without loading lightgbm."""

from typing import Any, Final, Self

from pydantic import Field, model_validator

from cropray.cluster.resources import FitSize, require_memory
from cropray.training.family import PixelFamilySettings

PROCESS_BYTES: Final = 0.5e9  # libraries, a batch of rows as floats, the sample of which bins are made
WIDE_BINS: Final = 256  # from here on a bin takes two bytes


class LightgbmSettings(PixelFamilySettings):
    """How trees are grown and where: one process grows all trees of a fit, and several fits run side by side."""

    cpus_per_worker: int | None = Field(default=None, ge=1)
    """CPUs of the fit; None: its share of the node, which a search counts. The trees are the same."""
    n_estimators: int = Field(default=200, ge=1)
    """Boosting rounds. Searched numbers are prefixes of one fit, which cost nothing but their scoring."""
    learning_rate: float = Field(default=0.1, gt=0)
    """What each tree's leaves are multiplied with."""
    num_leaves: int = Field(default=31, ge=2)
    """Most leaves of a tree, which grows where it gains most."""
    max_depth: int | None = Field(default=None, ge=1)
    """None: no limit but `num_leaves`."""
    min_child_samples: int = Field(default=20, ge=1)
    """Fewest training rows of a leaf."""
    reg_lambda: float = Field(default=1.0, ge=0)
    """L2 penalty of the leaves' weights."""
    subsample: float = Field(default=1.0, gt=0, le=1)
    """Share of rows per round."""
    colsample_bytree: float = Field(default=1.0, gt=0, le=1)
    """Share of features per tree."""
    max_bin: int = Field(default=255, ge=2, le=65535)
    """Bins per feature."""

    def resources(self) -> frozenset[str]:
        """See `FamilySettings.resources`."""
        return super().resources() | {"num_workers"}

    @model_validator(mode="after")
    def _in_one_process(self) -> Self:
        if self.num_workers:
            raise ValueError(
                f"num_workers is {self.num_workers}, and LightGBM grows a fit in one process: leave it at 0; fits run "
                f"side by side and take the CPUs of a node"
            )
        return self

    @property
    def threads(self) -> int:
        """Of a fit."""
        return self.cpus_per_worker or 1

    def fit_bytes(self, size: FitSize) -> float:
        """See `FamilySettings.fit_bytes`."""
        return size.n_samples * row_bytes(self.max_bin, size.n_classes, size.n_features)

    def check(self, size: FitSize) -> str:
        """See `FamilySettings.check`."""
        what = f"trees on {size.n_samples:,.0f} rows of {size.n_classes} classes"
        require_memory(PROCESS_BYTES + self.fit_bytes(size), size, what, "lightgbm", "take fewer zones")
        return ""

    def parameters(self, n_classes: int, seed: int) -> dict[str, Any]:
        """Parameters of `lightgbm.train`: the same trees for the same rows on any number of threads."""
        return {
            "objective": "multiclass",
            "metric": "multi_logloss",
            "num_class": n_classes,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
            "seed": seed,
            "num_threads": self.threads,
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "max_depth": self.max_depth or -1,
            "min_data_in_leaf": self.min_child_samples,
            "lambda_l2": self.reg_lambda,
            "bagging_fraction": self.subsample,
            "bagging_freq": int(self.subsample < 1),
            "feature_fraction": self.colsample_bytree,
            "max_bin": self.max_bin,
        }


def row_bytes(max_bin: int, n_classes: int, n_features: int) -> float:
    """Most memory of a row: bins by columns and by rows, label, place in the tree, score and gradients of each class."""
    return 2 * n_features * (1 if max_bin < WIDE_BINS else 2) + 16 + 24 * n_classes
