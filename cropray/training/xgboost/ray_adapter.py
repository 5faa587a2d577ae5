"""xgboost-ray 0.1.19 (2023, no longer maintained) on today's XGBoost and Ray.

Three things stand between them, and each is met here, only when a fit asks for this engine:

1. Tracker. xgboost-ray forks a process round a tracker that XGBoost 2.1 removed. XGBoost's own native tracker
   takes its place, in a thread. Only the driver talks to it; actors need no change.
2. Data. A lazy Ray Data dataset fails and a materialised one hangs on two CPUs; the `__partitioned__` protocol
   gives every actor its own frame, without a copy in the driver.
3. Missing values. `RayDMatrix(missing=…)` is silently dropped on the way to the plain DMatrix that is left on
   XGBoost 3, so frames carry NaN.
"""

import contextlib
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import ray
import xgboost as xgb
from xgboost.tracker import RabitTracker

from cropray.training.xgboost.progress import TreeProgress

if TYPE_CHECKING:
    import pandas as pd
    from ray import ObjectRef

LABEL: Final = "label"
WEIGHT: Final = "weight"
STOP_TIMEOUT_S: Final = 5  # after the last round the tracker ends by itself within milliseconds


@dataclass(frozen=True, slots=True)
class ActorPool:
    """Actors of one fit."""

    n_actors: int
    cpus_per_actor: int
    gpus_per_actor: int
    max_restarts: int
    """Lost actors that are replaced; the others keep their data."""
    checkpoint_every: int
    """Rounds after which rank 0 sends the trees to the driver, from which all go on after a loss."""


def train_on_actors(
    parameters: Mapping[str, Any],
    n_rounds: int,
    frames: "Mapping[str, Sequence[ObjectRef[pd.DataFrame]]]",
    weighted: Collection[str],
    pool: ActorPool,
    progress: TreeProgress,
) -> xgb.Booster:
    """Train with xgboost-ray.

    Args:
        parameters: as for `xgb.train`.
        n_rounds: boosting rounds.
        frames: name of a data set → one frame per actor, float32 features with NaN where missing and `label`; the
            data set `train` is trained on.
        weighted: data sets whose frames have a column `weight` as well.
        pool: actors.
        progress: where the fit goes on from, and what its rounds are told to.

    Returns:
        Trees; their attributes hold the losses, see `progress.take_history`.
    """
    import xgboost_ray  # noqa: PLC0415 - an optional engine: 1 s of import that other fits need not pay

    _replace_tracker()
    matrices = {
        name: xgboost_ray.RayDMatrix(FramePartitions(refs), LABEL, WEIGHT if name in weighted else None)
        for name, refs in frames.items()
    }
    begun = progress.begun()
    booster: xgb.Booster = xgboost_ray.train(
        dict(parameters),
        matrices["train"],
        num_boost_round=n_rounds - begun.n_rounds,
        evals=[(matrix, name) for name, matrix in matrices.items()],
        verbose_eval=False,
        xgb_model=begun.data,
        callbacks=[progress],
        ray_params=xgboost_ray.RayParams(
            num_actors=pool.n_actors,
            cpus_per_actor=pool.cpus_per_actor,
            gpus_per_actor=pool.gpus_per_actor,
            max_actor_restarts=pool.max_restarts,
            checkpoint_frequency=pool.checkpoint_every,
        ),
    )
    return booster


class FramePartitions:
    """Frames in the object store, in the form that distributed loaders read.

    Source: https://github.com/IntelPython/DPPY-Spec/blob/draft/partitioned/Partitioned.md
    """

    def __init__(self, refs: "Sequence[ObjectRef[pd.DataFrame]]") -> None:
        self._refs = list(refs)

    @property
    def __partitioned__(self) -> dict[str, Any]:
        """Row-wise partitions; no place is named, so actor i gets frame i and Ray brings it there."""
        n = len(self._refs)
        partitions = {(i, 0): {"data": ref, "location": [""]} for i, ref in enumerate(self._refs)}
        return {"shape": (n, 1), "partition_tiling": (n, 1), "partitions": partitions, "get": ray.get}


class NativeTracker:
    """XGBoost's tracker with the life cycle that xgboost-ray expects of a process."""

    pid: Final = "in-process"

    def __init__(self, n_workers: int) -> None:
        self._tracker = RabitTracker(n_workers=n_workers, host_ip=ray.util.get_node_ip_address())
        self._tracker.start()
        self._waiting = threading.Thread(target=self._wait, daemon=True)
        self._waiting.start()

    def worker_arguments(self) -> dict[str, Any]:
        """What a worker needs to join."""
        return {name: value for name, value in self._tracker.worker_args().items() if value is not None}

    def stop(self) -> None:
        """Give the tracker's port and threads back, also after a worker died."""
        self._waiting.join(timeout=STOP_TIMEOUT_S)
        with contextlib.suppress(xgb.core.XGBoostError):
            self._tracker.free()

    def _wait(self) -> None:
        with contextlib.suppress(xgb.core.XGBoostError):  # a worker died: xgboost-ray itself says so
            self._tracker.wait_for()


def _replace_tracker() -> None:
    """Let xgboost-ray in this process start and stop the native tracker; doing it twice changes nothing."""
    from xgboost_ray import main  # noqa: PLC0415

    def start(n_workers: int) -> tuple[NativeTracker, dict[str, Any]]:
        tracker = NativeTracker(n_workers)
        return tracker, tracker.worker_arguments()

    main._start_rabit_tracker = start  # noqa: SLF001
    main._stop_rabit_tracker = NativeTracker.stop  # noqa: SLF001
