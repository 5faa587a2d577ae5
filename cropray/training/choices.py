"""What a configuration may choose of the training; apart from it, so that a job file is read without loading torch."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator

from cropray.core.metrics import metric_of

ClassWeighting = Literal["none", "sqrt_inverse"]
ValidationScore = Annotated[str, AfterValidator(lambda key: f"val_{metric_of(key).key}")]
"""`val_` and the key of one of `core.metrics.METRICS`."""
Schedule = Literal["constant", "cosine"]

TREES: Final[Mapping[str, Any]] = {
    "objective": "multi:softprob",
    "eval_metric": "mlogloss",
    "tree_method": "hist",
    "seed_per_iteration": True,  # a round's draws must not depend on the process that began the fit
}
"""Parameters of `xgb.train` that every fit has."""
