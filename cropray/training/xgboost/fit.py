"""Boosted trees: one fit, in this process or on Ray, by either of two engines.

`ray_train` builds a quantile matrix from Arrow batches in each worker of Ray Train; `xgboost_ray` hands pandas
frames to the actors of xgboost-ray. Features are binned exactly beforehand (`binning`), so engines and numbers of
workers give the same trees for the same rows. All class ids are the dataset's: a fold or a worker may lack classes.
"""

import contextlib
import hashlib
import importlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import ray.train
import xgboost as xgb
from ray.train.xgboost import XGBoostTrainer

from cropray.cluster.resources import worker_resources
from cropray.core.errors import ConfigError
from cropray.core.features import as_floats
from cropray.core.fingerprint import fingerprint
from cropray.io.storage import Location
from cropray.training.family import FitScore
from cropray.training.pixel_blocks import PixelBlock, TreeData, class_indices, features, own_weights
from cropray.training.pixels import check_training, score_pixels, with_seconds, worker_tables
from cropray.training.progress_file import ProgressFile
from cropray.training.scratch import scratch_folder
from cropray.training.weights import class_weights, row_weights
from cropray.training.xgboost.binning import bin_table
from cropray.training.xgboost.matrix import BlockBatches, quantile_matrix
from cropray.training.xgboost.memory import bins_on_disk, require_gpu_memory, require_scratch
from cropray.training.xgboost.objective import bounded
from cropray.training.xgboost.progress import OnRound, TreeProgress, take_history
from cropray.training.xgboost.ray_adapter import LABEL, WEIGHT, ActorPool, train_on_actors
from cropray.training.xgboost.rows import count_values_and_classes
from cropray.training.xgboost.scoring import booster_from_bytes, save_booster
from cropray.training.xgboost.settings import XgboostSettings
from cropray.training.xgboost.tree_file import predict_proba

if TYPE_CHECKING:
    import pandas as pd

_GPU: Final = "cropray.training.deep.device"
"""Loaded by its name where a fit asks for a GPU: torch looks whether there is one and decides no tree, so that it and its
version are no part of the fit's code."""
History = tuple[Mapping[str, float], ...]


@dataclass(frozen=True, slots=True)
class XgbFit:
    """Outcome of one fit; the model is in its folder."""

    scores: tuple[FitScore, ...]
    """One per number of boosting rounds, with its part of the history; empty without validation data."""
    history: History
    """Per boosting round `step` (from 1), `train_loss` and, with validation data, `val_loss`: mean nats per pixel. The
    loss of `cropray.core.metrics`, classes without a training pixel left out, training weighted as the settings say; XGBoost
    adds up in single precision, so that it equals the scores' to five digits."""


def train_xgboost(  # noqa: PLR0913 - what to fit, on what, and two places to write to
    settings: XgboostSettings,
    n_estimators: tuple[int, ...],
    train: TreeData,
    val: TreeData | None,
    seed: int,
    folder: Path,
    *,
    progress: Location | None = None,
    memory_bytes: float | None = None,
    on_round: OnRound | None = None,
) -> XgbFit:
    """Fit trees, score every prefix on the validation data and write the model.

    With workers, Ray must be running. The calling process needs no CPU of its own then.

    Args:
        settings: trees, engine and workers.
        n_estimators: rising numbers of boosting rounds that are scored; the last one is grown.
        train: training pixels.
        val: validation pixels; None for a refit.
        seed: seed of row and feature sampling.
        folder: an existing folder that gets `model.ubj` and `card.json`.
        progress: file that keeps the trees every `checkpoint_every` rounds; the fit goes on from it, if it is there,
            and ends with the bits of one that ran through. The caller removes it when the result is safe. All
            workers' machines reach it. None: no file; a fit that loses a worker starts again.
        memory_bytes: what each worker may take; None: as much as it needs.
        on_round: called with the losses of each round as it is grown, where this process grows it.

    Raises:
        ConfigError: the rows do not fit into the workers' memory, or a GPU is asked for and there is none.
        ValueError: the numbers of rounds do not rise from 1.
        ray.train.TrainingFailedError: a worker was lost more than `max_failures` times.
    """
    started = time.monotonic()
    _require_rising(n_estimators)
    _check_sizes(settings, train, val)
    n_rows = train.n_rows + (0 if val is None else val.n_rows)
    n_features = len(train.columns)
    is_on_disk = bins_on_disk(settings, n_rows, train.n_classes, memory_bytes, n_features)
    require_gpu_memory(settings, n_rows, train.n_classes, n_features=n_features)
    parameters = settings.parameters(train.n_classes, seed)
    if settings.num_workers:
        train, val = _stored(train), None if val is None else _stored(val)
    values, classes = count_values_and_classes(settings, train)
    table = bin_table(values, settings.max_bin)
    job = FitJob(settings, parameters, n_estimators[-1], table, train, val, classes, is_on_disk=is_on_disk)
    if progress is not None:
        job = replace(job, progress=ProgressFile(progress, job.fingerprint(), settings.checkpoint_every))
    fitted = _ENGINES[settings.engine](job) if settings.num_workers else _fit(replace(job, on_round=on_round))
    booster = fitted.booster()
    provenance = {"settings": settings.model_dump(mode="json"), "n_estimators": n_estimators, "seed": seed}
    save_booster(folder, booster, train, provenance)
    if val is None:
        return XgbFit((), fitted.history)
    fit_s = time.monotonic() - started
    predict = partial(predict_proba, booster_from_bytes(fitted.model, settings.threads))
    scores = score_pixels(predict, val, n_estimators, job.untrained, settings.threads if settings.num_workers else None)
    timed = with_seconds(scores, fitted.round_seconds, fit_s)
    return XgbFit(tuple(replace(s, history=fitted.history[: s.step]) for s in timed), fitted.history)


@dataclass(frozen=True, slots=True)
class FitJob:
    """What a worker needs to fit its share."""

    settings: XgboostSettings
    parameters: Mapping[str, Any]
    n_rounds: int
    table: npt.NDArray[np.uint16]
    """[F, 65536] digital number → lower edge of its bin."""
    train: TreeData
    val: TreeData | None
    class_counts: npt.NDArray[np.int64]
    """[K] training pixels of each class."""
    progress: ProgressFile | None = None
    on_round: OnRound | None = None
    is_on_disk: bool = False
    """Whether the bins are kept on the workers' disks; the trees are the same."""

    def fingerprint(self) -> str:
        """Of all that the trees depend on; bins and class counts stand for the training pixels."""
        zones = [{zone_id: block.n_rows for zone_id, block in data.blocks.items()} for data in self.matrices().values()]
        return fingerprint(
            [
                xgb.__version__,
                self.settings.fingerprint(),
                {name: value for name, value in self.parameters.items() if name not in ("nthread", "device")},
                self.n_rounds,
                hashlib.sha256(self.table.tobytes()).hexdigest(),
                self.class_counts.tolist(),
                self.train.features.cube.fingerprint(),
                self.train.columns,
                zones,
                self.train.lookup().tolist(),
                self.train.legend_hash,
            ]
        )

    def callback(self) -> TreeProgress:
        """What gives every round its own draws and keeps the trees."""
        return TreeProgress(
            self.progress,
            is_sampled=self.settings.is_sampled,
            on_round=self.on_round,
            objective=bounded if self.settings.hessian == "bounded" else None,
        )

    def matrices(self) -> dict[str, TreeData]:
        """Name of each data set in the learning curves → data; training data first."""
        return {"train": self.train} if self.val is None else {"train": self.train, "val": self.val}

    @property
    def untrained(self) -> tuple[int, ...]:
        """Indices of the classes that the training zones lack."""
        return tuple(np.flatnonzero(self.class_counts == 0).tolist())

    def class_weights(self, name: str) -> npt.NDArray[np.float32] | None:
        """[K] weights of the classes of a data set; None: 1.

        Training weighs as the settings say, beside rows' own weights. Validation counts each pixel once, but for classes that training lacks.
        """
        if name == "train" and self.settings.class_weighting != "none":
            return class_weights(self.class_counts, self.settings.class_weighting).astype(np.float32)
        if name == "val" and self.untrained:
            return (self.class_counts > 0).astype(np.float32)
        return None


@dataclass(frozen=True, slots=True)
class Fitted:
    """Trained trees on their way between processes."""

    model: bytes
    """UBJSON."""
    history: History
    round_seconds: tuple[float, ...]
    """What each boosting round took."""

    def booster(self) -> xgb.Booster:
        """The trees."""
        return booster_from_bytes(self.model)


def _require_rising(n_estimators: tuple[int, ...]) -> None:
    if not n_estimators or n_estimators[0] < 1 or list(n_estimators) != sorted({*n_estimators}):
        raise ValueError(f"n_estimators must be rising numbers from 1, got {n_estimators}")


def _check_sizes(settings: XgboostSettings, train: TreeData, val: TreeData | None) -> None:
    check_training(train)
    for name, data in (("training", train), ("validation", val)):
        if data is not None and data.n_rows < max(settings.num_workers, 1):
            raise ConfigError(
                f"{data.n_rows} {name} pixels cannot be divided among {settings.num_workers} workers; "
                f"lower xgboost.num_workers or add zones"
            )


def _fit(job: FitJob, rank: int = 0, n_workers: int = 1) -> Fitted:
    """Fit one worker's share; XGBoost adds up the histograms of all workers."""
    n_rows = sum(data.n_rows for data in job.matrices().values())
    if job.settings.device == "cuda":
        gpu = importlib.import_module(_GPU)
        gpu.torch_device("cuda", "xgboost.device")  # XGBoost itself would go on on the CPU
        if job.settings.gpu_memory_gb is None:
            free, n_features = gpu.free_gpu_bytes(), len(job.train.columns)
            require_gpu_memory(job.settings, n_rows, job.train.n_classes, free, n_features)
    with contextlib.ExitStack() as stack:
        cache = None
        if job.is_on_disk:
            require_scratch(n_rows / n_workers, len(job.train.columns))
            cache = stack.enter_context(scratch_folder())
        return _grow(job, rank, n_workers, cache)  # the matrices are gone before their folder is


def _grow(job: FitJob, rank: int, n_workers: int, cache: Path | None) -> Fitted:
    max_bin, n_threads = job.settings.max_bin, job.settings.threads
    matrices: dict[str, xgb.DMatrix] = {}
    for name, data in job.matrices().items():
        tables = partial(worker_tables, data, rank, n_workers)
        on_disk = None if cache is None else cache / name
        weights = partial(_weights, data, job.class_weights(name))
        batches = BlockBatches(tables, data.lookup(), job.table, on_disk, weights, data.features)
        matrices[name] = quantile_matrix(
            batches, max_bin, n_threads, ref=matrices.get("train"), is_on_disk=cache is not None
        )
    callback = job.callback()
    begun = callback.begun_together()
    booster = xgb.train(
        dict(job.parameters),
        matrices["train"],
        job.n_rounds - begun.n_rounds,
        evals=[(matrix, name) for name, matrix in matrices.items()],
        verbose_eval=False,
        xgb_model=begun.model,
        callbacks=[callback],
    )
    return _fitted(booster, job.train.columns)


def _fitted(booster: xgb.Booster, columns: Sequence[str]) -> Fitted:
    history, round_seconds = take_history(booster)
    booster.feature_names = list(columns)
    return Fitted(bytes(booster.save_raw("ubj")), history, round_seconds)


def _fit_ray_train(job: FitJob) -> Fitted:
    """Ray Train: each worker bins its share of the Arrow rows. After a loss a new group goes on from the file."""
    # Train's own state is this node's: its controller runs here, and workers hand it no checkpoint.
    with tempfile.TemporaryDirectory(prefix="cropray-") as state:
        trainer = XGBoostTrainer(
            _train_worker,
            train_loop_config={"job": job},
            scaling_config=ray.train.ScalingConfig(
                num_workers=job.settings.num_workers,
                use_gpu=job.settings.device == "cuda",
                resources_per_worker=worker_resources(
                    job.settings.threads, job.settings.gpus_per_worker, job.settings.memory_gb
                ),
            ),
            run_config=ray.train.RunConfig(
                name="fit",
                storage_path=state,
                failure_config=ray.train.FailureConfig(max_failures=job.settings.max_failures),
            ),
        )
        fitted = trainer.fit().return_value
    if isinstance(fitted, ConfigError):
        raise fitted
    assert isinstance(fitted, Fitted)
    return fitted


def _train_worker(config: dict[str, FitJob]) -> Fitted | ConfigError:
    context = ray.train.get_context()
    try:
        return _fit(config["job"], context.get_world_rank(), context.get_world_size())
    except ConfigError as error:
        return error  # a worker that has not what was asked for, not one to start again


def _fit_xgboost_ray(job: FitJob) -> Fitted:
    """xgboost-ray: drives its actors from a task of its own, outside the placement group of a Tune trial."""
    drive = ray.remote(_drive_xgboost_ray).options(num_cpus=0, max_retries=0, scheduling_strategy="DEFAULT")
    fitted = ray.get(drive.remote(job))
    assert isinstance(fitted, Fitted)
    return fitted


def _drive_xgboost_ray(job: FitJob) -> Fitted:
    settings = job.settings
    frames = {name: _frames(job, data, job.class_weights(name)) for name, data in job.matrices().items()}
    weighted = [n for n, data in job.matrices().items() if data.is_weighted or job.class_weights(n) is not None]
    pool = ActorPool(
        settings.num_workers,
        settings.threads,
        settings.gpus_per_worker,
        settings.max_failures,
        settings.checkpoint_every,
    )
    booster = train_on_actors(job.parameters, job.n_rounds, frames, weighted, pool, job.callback())
    return _fitted(booster, job.train.columns)


def _frames(
    job: FitJob, data: TreeData, weights: npt.NDArray[np.float32] | None
) -> list["ray.ObjectRef[pd.DataFrame]"]:
    """One frame in the object store for each worker, with the rows that `ray_train` would give it."""
    n_workers = job.settings.num_workers
    make = ray.remote(_frame).options(num_cpus=1, scheduling_strategy="DEFAULT")
    return [make.remote(data, job.table, rank, n_workers, weights) for rank in range(n_workers)]


def _frame(
    data: TreeData, table: npt.NDArray[np.uint16], rank: int, n_workers: int, of_class: npt.NDArray[np.float32] | None
) -> "pd.DataFrame":
    import pandas as pd  # noqa: PLC0415 - this engine's own form of data

    rows = pa.concat_tables(list(worker_tables(data, rank, n_workers)))
    frame = pd.DataFrame(as_floats(features(rows, table, data.features)), columns=list(data.columns))
    labels = class_indices(rows, data.lookup())
    frame[LABEL] = labels
    weights = _weights(data, of_class, rows, labels)
    return frame if weights is None else frame.assign(**{WEIGHT: weights})


def _weights(
    data: TreeData, of_class: npt.NDArray[np.float32] | None, rows: pa.Table, labels: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32] | None:
    return row_weights(own_weights(rows, data), of_class, labels)


_ENGINES: Final[Mapping[str, Callable[[FitJob], Fitted]]] = {
    "ray_train": _fit_ray_train,
    "xgboost_ray": _fit_xgboost_ray,
}


def _stored(data: TreeData) -> TreeData:
    """The same data with every block in Ray's object store: workers share it and nothing is copied to each."""
    blocks = {
        zone_id: PixelBlock(ray.put(block.rows) if isinstance(block.rows, pa.Table) else block.rows, block.n_rows)
        for zone_id, block in data.blocks.items()
    }
    return replace(data, blocks=blocks)
