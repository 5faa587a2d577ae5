"""Parameters of `xgb.train` that every fit has; apart from the settings, so that they are read with nothing else there."""

from collections.abc import Mapping
from typing import Any, Final

TREES: Final[Mapping[str, Any]] = {
    "objective": "multi:softprob",
    "eval_metric": "mlogloss",
    "tree_method": "hist",
    "seed_per_iteration": True,  # a round's draws must not depend on the process that began the fit
}
