"""What a configuration may choose of the training; apart from it, so that a job file is read without loading torch."""

from collections.abc import Mapping
from typing import Any, Final, Literal

ClassWeighting = Literal["none", "sqrt_inverse"]
Monitor = Literal["val_loss", "val_macro_f1"]
Schedule = Literal["constant", "cosine"]

TREES: Final[Mapping[str, Any]] = {
    "objective": "multi:softprob",
    "eval_metric": "mlogloss",
    "tree_method": "hist",
    "seed_per_iteration": True,  # a round's draws must not depend on the process that began the fit
}
"""Parameters of `xgb.train` that every fit has."""
