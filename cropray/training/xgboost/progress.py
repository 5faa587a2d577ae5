"""Progress of boosting: a fit that is continued grows the trees of one that ran through.

Without sampling XGBoost's own continuation does so: margins computed anew are the sums, in the same order, of those
that a running fit adds up. Row and feature sampling need more. XGBoost counts rounds from 0 in every call, and its
tree updater draws from a generator that it seeds in the first round of the process. Here the true number of the round
is counted, and the updater is made anew for every round: draws are a function of (seed, round).

Losses and times are kept in the booster's attributes, so that they go wherever the trees go.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xgboost as xgb
from xgboost import collective

from cropray.training.progress_file import ProgressFile

OnRound = Callable[[Mapping[str, float]], None]
Objective = Callable[[Any, xgb.DMatrix], tuple[Any, Any]]
"""([N, K] margins, matrix) → (gradients, Hessians)."""
BOOSTER: Final = "booster"
LOSSES: Final = "losses_of_round_"
SECONDS: Final = "seconds_of_round_"
TREE_METHOD: Final = "hist"
OTHER_TREE_METHOD: Final = "approx"  # never trained with: choosing it discards the updater


@dataclass(frozen=True, slots=True)
class Begun:
    """The part of a fit that is done."""

    n_rounds: int
    data: bytes | None
    """UBJSON; None: nothing yet."""

    @property
    def model(self) -> bytearray | None:
        """As `xgb.train` takes it."""
        return None if self.data is None else bytearray(self.data)


class RoundBooster(xgb.Booster):  # type: ignore[misc]  # xgboost has no types
    """Trees that know which round comes next, whoever grew the rounds before, and by which gradients they grow."""

    objective: Objective | None = None
    """None: XGBoost's own. Here, and not an argument of `xgb.train`, it is the same for both engines."""

    def update(self, dtrain: xgb.DMatrix, iteration: int, fobj: None = None) -> None:  # noqa: ARG002
        """Grow one round. `iteration` counts from 0 in every call of `xgb.train`; here the trees count."""
        super().update(dtrain, self.num_boosted_rounds(), self.objective)


class SampledBooster(RoundBooster):
    """The same, with draws that depend on the seed and the round alone."""

    def update(self, dtrain: xgb.DMatrix, iteration: int, fobj: None = None) -> None:
        """Grow one round with an updater of its own."""
        self.set_param({"tree_method": OTHER_TREE_METHOD})
        self.num_boosted_rounds()  # applies the parameters
        self.set_param({"tree_method": TREE_METHOD})
        super().update(dtrain, iteration, fobj)


class TreeProgress(xgb.callback.TrainingCallback):  # type: ignore[misc]
    """Counts rounds, notes their losses in the trees and keeps the trees in a file. Rank 0 alone reads and writes."""

    def __init__(
        self,
        file: ProgressFile | None,
        *,
        is_sampled: bool,
        on_round: OnRound | None = None,
        objective: Objective | None = None,
    ) -> None:
        """Prepare a fit.

        Args:
            file: None keeps nothing.
            is_sampled: whether rounds draw rows or features.
            on_round: told of each.
            objective: see `RoundBooster`.
        """
        super().__init__()
        self._objective = objective
        self._on_round = on_round
        self._file = file
        self._booster = SampledBooster if is_sampled else RoundBooster
        self._began = 0.0

    def begun(self) -> Begun:
        """What the file holds, read by this process."""
        saved = None if self._file is None else self._file.unpack(self._file.read())
        if saved is None:
            return Begun(0, None)
        return Begun(saved.state["n_rounds"], saved.arrays[BOOSTER].tobytes())

    def begun_together(self) -> Begun:
        """What rank 0 found in the file, on every worker, which call this together."""
        if not collective.is_distributed():
            return self.begun()
        begun: Begun = collective.broadcast(self.begun() if collective.get_rank() == 0 else None, 0)
        return begun

    def before_training(self, model: xgb.Booster) -> xgb.Booster:
        """Let the booster count its own rounds."""
        model.__class__ = self._booster
        model.objective = self._objective
        return model

    def before_iteration(self, model: xgb.Booster, epoch: int, evals_log: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Look at the clock."""
        self._began = time.monotonic()
        return False

    def after_iteration(
        self,
        model: xgb.Booster,
        epoch: int,  # noqa: ARG002 - counts from 0 in every call
        evals_log: Mapping[str, Mapping[str, Any]],
    ) -> bool:
        """Note the round's losses and time; keep the trees if it is their turn."""
        seconds = time.monotonic() - self._began
        n_rounds = model.num_boosted_rounds()
        losses = {f"{name}_loss": float(metrics["mlogloss"][-1]) for name, metrics in evals_log.items()}
        model.set_attr(**{f"{LOSSES}{n_rounds}": json.dumps(losses), f"{SECONDS}{n_rounds}": str(seconds)})
        if self._file is not None and n_rounds % self._file.every == 0 and collective.get_rank() == 0:
            trees = np.frombuffer(model.save_raw("ubj"), np.uint8)
            self._file.save({BOOSTER: trees}, {"n_rounds": n_rounds})
        if self._on_round is not None:
            self._on_round({"step": n_rounds, **losses})
        return False


def take_history(booster: xgb.Booster) -> tuple[tuple[Mapping[str, float], ...], tuple[float, ...]]:
    """(losses, seconds) of every round, taken out of the trees' attributes."""
    history, seconds = [], []
    for step in range(1, booster.num_boosted_rounds() + 1):
        losses: dict[str, float] = json.loads(booster.attr(f"{LOSSES}{step}"))
        history.append({"step": step, **losses})
        seconds.append(float(booster.attr(f"{SECONDS}{step}")))
        booster.set_attr(**{f"{LOSSES}{step}": None, f"{SECONDS}{step}": None})
    return tuple(history), tuple(seconds)
