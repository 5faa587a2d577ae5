"""What a job file may say about extremely randomised trees; read without loading scikit-learn."""

from typing import Final

from pydantic import Field

from cropray.cluster.resources import FitSize, require_memory
from cropray.training.family import PixelFamilySettings

PROCESS_BYTES: Final = 0.4e9  # libraries
FEATURE_BYTES: Final = 6  # of a row: a number, and the same as a float
LABEL_BYTES: Final = 24
NODE_BYTES: Final = 8  # of a tree that is grown
RAW_NODE_BYTES: Final = 72  # of a tree that is growing, beside 8 of each class


class ForestSettings(PixelFamilySettings):
    """How trees are grown and where. Each has a seed of its own: on any number of workers they are the same."""

    num_workers: int = Field(default=0, ge=0)
    """Tasks of one fit, each of which grows a share of the trees; 0: the fit's own process grows all."""
    cpus_per_worker: int | None = Field(default=None, ge=1)
    """CPUs of each worker, or of the fit's process; None: its share of the node, which a search counts."""
    n_estimators: int = Field(default=400, ge=1)
    """Trees. Searched numbers are prefixes of one fit, which cost nothing but their scoring."""
    max_depth: int | None = Field(default=None, ge=1)
    """None: no limit."""
    min_samples_leaf: int = Field(default=1, ge=1)
    """Fewest training rows of a leaf."""
    max_features: float = Field(default=0.3, gt=0, le=1)
    """Share of the features of which a split is drawn; at least one."""
    max_rows: int = Field(default=100_000, ge=2)
    """Training rows beyond so many are left out, drawn evenly by the job's seed: trees without a limit of depth grow with
    them, in memory as on disk."""

    max_failures: int = Field(default=3, ge=0)
    """Times that the share of a lost worker is grown again."""

    def resources(self) -> frozenset[str]:
        """See `FamilySettings.resources`."""
        return super().resources() | {"num_workers"}

    @property
    def threads(self) -> int:
        """Of each worker, or of the fit's process."""
        return self.cpus_per_worker or 1

    def fit_bytes(self, size: FitSize) -> float:
        """See `FamilySettings.fit_bytes`: the rows that are kept, all trees, and those that grow at the same time."""
        n_rows = min(size.n_samples, self.max_rows)
        nodes = 2 * n_rows / self.min_samples_leaf
        growing = self.threads * (RAW_NODE_BYTES + 8 * size.n_classes)
        return n_rows * (FEATURE_BYTES * size.n_features + LABEL_BYTES) + nodes * (
            self.n_estimators * NODE_BYTES + growing
        )

    def check(self, size: FitSize) -> str:
        """See `FamilySettings.check`."""
        rows = min(size.n_samples, self.max_rows)
        what = f"{self.n_estimators} trees on {rows:,.0f} rows of {size.n_classes} classes"
        less = "lower forest.max_rows, or raise forest.min_samples_leaf"
        require_memory(PROCESS_BYTES + self.fit_bytes(size), size, what, "forest", less)
        if size.n_samples <= self.max_rows:
            return ""
        return f"trees of the forest are grown on {rows:,.0f} of up to {size.n_samples:,.0f} pixels, drawn evenly (forest.max_rows)"
