"""What a job file may say about extremely randomised trees; read without loading scikit-learn."""

from typing import Final

from pydantic import Field

from cropray.errors import ConfigError
from cropray.training.family import PixelFamilySettings
from cropray.training.resources import GB, FitSize

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

    def check(self, size: FitSize) -> str:
        """See `FamilySettings.check`."""
        rows = min(size.n_samples, self.max_rows)
        need = self.memory_bytes(rows, size.n_classes, size.n_features)
        if size.memory_bytes is not None and need > size.memory_bytes:
            raise ConfigError(
                f"{self.n_estimators} trees on {rows:,.0f} rows of {size.n_classes} classes take up to {need / GB:.3g} GB, and "
                f"a fit may take {size.memory_bytes / GB:.3g} GB: lower forest.max_rows, raise forest.min_samples_leaf, or "
                f"raise forest.memory_gb (where it is not set: lower search.max_concurrent)"
            )
        if size.n_samples <= self.max_rows:
            return ""
        return f"trees of the forest are grown on {rows:,.0f} of up to {size.n_samples:,.0f} pixels, drawn evenly (forest.max_rows)"

    def memory_bytes(self, n_rows: float, n_classes: int, n_features: int) -> float:
        """Most memory of a fit: rows, all trees as they are kept, and those that grow at the same time."""
        nodes = 2 * n_rows / self.min_samples_leaf
        growing = self.threads * nodes * (RAW_NODE_BYTES + 8 * n_classes)
        return (
            PROCESS_BYTES
            + n_rows * (FEATURE_BYTES * n_features + LABEL_BYTES)
            + self.n_estimators * nodes * NODE_BYTES
            + growing
        )
