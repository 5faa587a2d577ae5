"""Boosted trees: one fit, in this process or on Ray, by either of two engines.

`ray_train` builds a quantile matrix from Arrow batches in each worker of Ray Train; `xgboost_ray` hands pandas
frames to the actors of xgboost-ray. Features are binned exactly beforehand (`binning`), so engines and numbers of
workers give the same trees for the same rows. All class ids are the dataset's: a fold or a worker may lack classes.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
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

from cropray.bands import FEATURE_COLUMNS, NODATA
from cropray.errors import ConfigError, InputError
from cropray.settings import fingerprint
from cropray.storage import Location
from cropray.training.binning import Counts, bin_table, count_values, no_counts
from cropray.training.device import free_gpu_bytes, torch_device
from cropray.training.memory import bins_on_disk, require_gpu_memory, require_scratch
from cropray.training.pixel_blocks import (
    BlockBatches,
    PixelBlock,
    TreeData,
    checked_rows,
    class_indices,
    features,
    in_batches,
    quantile_matrix,
    worker_rows,
)
from cropray.training.progress_file import ProgressFile
from cropray.training.resources import worker_resources
from cropray.training.scratch import scratch_folder
from cropray.training.settings import XGBOOST_NO_RESULT, XgboostPoint, XgboostSettings
from cropray.training.xgboost_model import (
    TreeScore,
    add_scores,
    booster_from_bytes,
    load_booster,
    predict_proba,
    save_booster,
    score_rows,
)
from cropray.training.xgboost_progress import TreeProgress, take_history
from cropray.training.xgboost_ray_adapter import LABEL, ActorPool, train_on_actors

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "PixelBlock",
    "TreeData",
    "TreeScore",
    "XgbFit",
    "XgboostPoint",
    "XgboostSettings",
    "load_booster",
    "predict_proba",
    "train_xgboost",
]

History = tuple[Mapping[str, float], ...]


@dataclass(frozen=True, slots=True)
class XgbFit:
    """Outcome of one fit; the model is in its folder."""

    scores: tuple[TreeScore, ...]
    """One per number of boosting rounds; empty without validation data."""
    history: History
    """Per boosting round `step` (from 1), `train_loss` and, with validation data, `val_loss`: mean nats per pixel."""


def train_xgboost(  # noqa: PLR0913 - what to fit, on what, and two places to write to
    settings: XgboostSettings,
    point: XgboostPoint,
    train: TreeData,
    val: TreeData | None,
    seed: int,
    folder: Path,
    *,
    progress: Location | None = None,
    memory_bytes: float | None = None,
) -> XgbFit:
    """Fit trees, score every prefix on the validation data and write the model.

    With workers, Ray must be running. The calling process needs no CPU of its own then.

    Args:
        settings: trees, engine and workers.
        point: learning rate and numbers of boosting rounds.
        train: training pixels.
        val: validation pixels; None for a refit.
        seed: seed of row and feature sampling.
        folder: an existing folder that gets `model.ubj` and `card.json`.
        progress: file that keeps the trees every `checkpoint_every` rounds; the fit goes on from it, if it is there,
            and ends with the bits of one that ran through. The caller removes it when the result is safe. All
            workers' machines reach it. None: no file; a fit that loses a worker starts again.
        memory_bytes: what each worker may take; None: as much as it needs.

    Raises:
        ConfigError: the rows do not fit into the workers' memory, or a GPU is asked for and there is none.
        ValueError: fewer than two classes, or fewer rows than workers.
        ray.train.TrainingFailedError: a worker was lost more than `max_failures` times.
    """
    _check_sizes(settings, train, val)
    n_rows = train.n_rows + (0 if val is None else val.n_rows)
    is_on_disk = bins_on_disk(settings, n_rows, train.n_classes, memory_bytes)
    require_gpu_memory(settings, n_rows, train.n_classes)
    parameters = settings.parameters(train.n_classes, point.learning_rate, seed)
    if settings.num_workers:
        train, val = _stored(train), None if val is None else _stored(val)
    table = bin_table(_count_values(settings, train), settings.max_bin)
    job = FitJob(settings, parameters, point.n_estimators[-1], table, train, val, is_on_disk=is_on_disk)
    if progress is not None:
        job = replace(job, progress=ProgressFile(progress, job.fingerprint(), settings.checkpoint_every))
    fitted = _ENGINES[settings.engine](job) if settings.num_workers else _fit(job)
    booster = fitted.booster()
    provenance = {"settings": settings.model_dump(mode="json"), "point": asdict(point), "seed": seed}
    save_booster(folder, booster, train, provenance)
    scores = () if val is None else _score(settings, fitted.model, val, point.n_estimators)
    return XgbFit(scores, fitted.history)


@dataclass(frozen=True, slots=True)
class FitJob:
    """What a worker needs to fit its share."""

    settings: XgboostSettings
    parameters: Mapping[str, Any]
    n_rounds: int
    table: npt.NDArray[np.uint16]
    """[48, 65536] digital number → lower edge of its bin."""
    train: TreeData
    val: TreeData | None
    progress: ProgressFile | None = None
    is_on_disk: bool = False
    """Whether the bins are kept on the workers' disks; the trees are the same."""

    def fingerprint(self) -> str:
        """Of all that the trees depend on; the bins stand for the training pixels."""
        zones = [{zone_id: block.n_rows for zone_id, block in data.blocks.items()} for data in self.matrices().values()]
        return fingerprint(
            [
                xgb.__version__,
                self.settings.model_dump(mode="json", exclude=XGBOOST_NO_RESULT),
                {name: value for name, value in self.parameters.items() if name not in ("nthread", "device")},
                self.n_rounds,
                hashlib.sha256(self.table.tobytes()).hexdigest(),
                zones,
                self.train.lookup().tolist(),
                self.train.legend_hash,
            ]
        )

    def callback(self) -> TreeProgress:
        """What gives every round its own draws and keeps the trees."""
        is_sampled = min(self.settings.subsample, self.settings.colsample_bytree) < 1
        return TreeProgress(self.progress, is_sampled=is_sampled)

    def matrices(self) -> dict[str, TreeData]:
        """Name of each data set in the learning curves → data; training data first."""
        return {"train": self.train} if self.val is None else {"train": self.train, "val": self.val}


@dataclass(frozen=True, slots=True)
class Fitted:
    """Trained trees on their way between processes."""

    model: bytes
    """UBJSON."""
    history: History

    def booster(self) -> xgb.Booster:
        """The trees."""
        return booster_from_bytes(self.model)


def _check_sizes(settings: XgboostSettings, train: TreeData, val: TreeData | None) -> None:
    if train.n_classes < 2:
        raise InputError(f"the dataset has {train.n_classes} class; a classifier needs at least 2")
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
        torch_device("cuda", "xgboost.device")  # XGBoost itself would go on on the CPU
        if job.settings.gpu_memory_gb is None:
            require_gpu_memory(job.settings, n_rows, job.train.n_classes, free_gpu_bytes())
    with contextlib.ExitStack() as stack:
        cache = None
        if job.is_on_disk:
            require_scratch(n_rows / n_workers)
            cache = stack.enter_context(scratch_folder())
        return _grow(job, rank, n_workers, cache)  # the matrices are gone before their folder is


def _grow(job: FitJob, rank: int, n_workers: int, cache: Path | None) -> Fitted:
    max_bin, n_threads = job.settings.max_bin, job.settings.threads
    matrices: dict[str, xgb.DMatrix] = {}
    for name, data in job.matrices().items():
        tables = partial(_worker_tables, data, rank, n_workers)
        batches = BlockBatches(tables, data.lookup(), job.table, None if cache is None else cache / name)
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
    return _fitted(booster)


def _fitted(booster: xgb.Booster) -> Fitted:
    history = take_history(booster)
    booster.feature_names = list(FEATURE_COLUMNS)
    return Fitted(bytes(booster.save_raw("ubj")), history)


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
    frames = {name: _frames(job, data) for name, data in job.matrices().items()}
    pool = ActorPool(
        settings.num_workers,
        settings.threads,
        settings.gpus_per_worker,
        settings.max_failures,
        settings.checkpoint_every,
    )
    return _fitted(train_on_actors(job.parameters, job.n_rounds, frames, pool, job.callback()))


def _frames(job: FitJob, data: TreeData) -> list["ray.ObjectRef[pd.DataFrame]"]:
    """One frame in the object store for each worker, with the rows that `ray_train` would give it."""
    n_workers = job.settings.num_workers
    make = ray.remote(_frame).options(num_cpus=1, scheduling_strategy="DEFAULT")
    return [make.remote(data, job.table, rank, n_workers) for rank in range(n_workers)]


def _frame(data: TreeData, table: npt.NDArray[np.uint16], rank: int, n_workers: int) -> "pd.DataFrame":
    import pandas as pd  # noqa: PLC0415 - this engine's own form of data

    rows = pa.concat_tables(list(_worker_tables(data, rank, n_workers)))
    values = features(rows, table).astype(np.float32)
    values[values == NODATA] = np.nan
    frame = pd.DataFrame(values, columns=list(FEATURE_COLUMNS))
    return frame.assign(**{LABEL: class_indices(rows, data.lookup())})


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


def _count_values(settings: XgboostSettings, data: TreeData) -> Counts:
    """[48, 65536] rows per feature and digital number, counted here or in Ray tasks and added."""
    n = max(settings.num_workers, 1)
    if settings.num_workers == 0:
        return _count_share(data, 0, n)
    task = ray.remote(_count_share).options(num_cpus=1, scheduling_strategy="DEFAULT")
    counts = no_counts()
    for part in ray.get([task.remote(data, rank, n) for rank in range(n)]):
        counts += part
    return counts


def _count_share(data: TreeData, rank: int, n_workers: int) -> Counts:
    counts = no_counts()
    # By `map`, since a loop over the batches would hold the last one of a zone while the next zone is fetched.
    for part in map(_count_batch, in_batches(_worker_tables(data, rank, n_workers))):
        counts += part
    return counts


def _count_batch(rows: pa.Table) -> Counts:
    return count_values(features(rows))


def _worker_tables(data: TreeData, rank: int, n_workers: int) -> Iterator[pa.Table]:
    """One zone after the other: none is held while the next one is fetched."""
    for part in worker_rows(data, rank, n_workers):
        yield _rows(data, part.zone_id).slice(part.start, part.stop - part.start)


def _rows(data: TreeData, zone_id: str) -> pa.Table:
    block = data.blocks[zone_id]
    rows = block.rows if isinstance(block.rows, pa.Table) else ray.get(block.rows)
    return checked_rows(zone_id, block, rows)


def _score(
    settings: XgboostSettings, model: bytes, data: TreeData, n_estimators: tuple[int, ...]
) -> tuple[TreeScore, ...]:
    """Score zone by zone, in this process or in Ray tasks."""
    if settings.num_workers == 0:
        return add_scores(_score_zone(settings, model, data, zone_id, n_estimators) for zone_id in data.blocks)
    task = ray.remote(_score_zone).options(num_cpus=settings.threads, scheduling_strategy="DEFAULT")
    shared = ray.put(model)
    return add_scores(ray.get([task.remote(settings, shared, data, zone_id, n_estimators) for zone_id in data.blocks]))


def _score_zone(
    settings: XgboostSettings, model: bytes, data: TreeData, zone_id: str, n_estimators: tuple[int, ...]
) -> tuple[TreeScore, ...]:
    booster = booster_from_bytes(model, settings.threads)
    return score_rows(booster, _rows(data, zone_id), data.lookup(), n_estimators)
