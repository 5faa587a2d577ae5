"""Fitting the CNN: in this process, or on a Ray Train worker group, by the same loop."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import ray
import ray.train
import ray.train.torch
import torch

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.errors import ConfigError
from cropray.legend import CropClass
from cropray.nets.crop_net import CropNet, CropNetConfig
from cropray.settings import fingerprint
from cropray.storage import Location
from cropray.training.cnn.checkpoint import CnnCheckpoint, save_checkpoint
from cropray.training.cnn.settings import CnnSettings
from cropray.training.deep.device import reproducible, torch_device
from cropray.training.deep.loop import (
    Evaluation,
    FitPlan,
    FitResult,
    Record,
    fit,
)
from cropray.training.deep.progress import NetworkProgress
from cropray.training.deep.tile_file import FileBlock, TileFile
from cropray.training.deep.tiles import IGNORE, ChannelStats, TileBlock, TileSet
from cropray.training.family import Fit, FitScore
from cropray.training.progress_file import ProgressFile
from cropray.training.resources import worker_resources

Block: TypeAlias = TileBlock | ray.ObjectRef
"""A zone's tiles, or where they are in Ray's object store; from there a fit copies them to its scratch file."""


@dataclass(frozen=True, slots=True)
class CnnData:
    """What one fit may see."""

    train: Mapping[str, Block]
    """Training zone → tiles."""
    val: Mapping[str, Block] | None
    """Validation zone → tiles; None: train for a fixed number of epochs."""
    stats: ChannelStats
    """Of the training zones, no others."""
    lookup: npt.NDArray[np.uint8]
    """[256] stored class id → class index, 255 = ignore."""
    classes: tuple[CropClass, ...]
    """Class of each index."""
    legend_hash: str
    cube: CubeSpec = STUDY_CUBE
    """Bands and steps of the tiles."""


@dataclass(frozen=True, slots=True)
class CnnFit:
    """A finished fit; its weights are in the checkpoint."""

    history: tuple[Record, ...]
    """One record per epoch."""
    best_epoch: int
    """Whose weights were kept; from 1."""
    validation: Evaluation | None
    """Exact sums of the best epoch over all workers; None without validation zones."""


def train_cnn(  # noqa: PLR0913 - what to fit, on what, and whom to tell
    settings: CnnSettings,
    data: CnnData,
    seed: int,
    folder: Path,
    on_epoch: Callable[[Record], None] | None = None,
    *,
    n_epochs: int | None = None,
    progress: Location | None = None,
) -> CnnFit:
    """Fit one configuration and write its checkpoint.

    Args:
        settings: the network and the training; `num_workers` chooses where it runs.
        data: tiles, statistics and classes.
        seed: of weights, order, augmentation and dropout; the result does not depend on `num_workers`.
        folder: takes `weights.safetensors` and `card.json`.
        on_epoch: called with each epoch's record: at once in-process, after the fit with a worker group.
        n_epochs: stop after so many epochs, whose weights are kept; the schedule falls over `settings.epochs` all the
            same, so that an epoch has the learning rate that it was validated with. None: validation stops.
        progress: file that keeps the fit's state every `checkpoint_every` epochs; the fit goes on from it, if it is
            there, and the caller removes it when the result is safe. All workers' machines reach it. None: no file;
            a fit that loses a worker starts again.

    Raises:
        ConfigError: a GPU is asked for and there is none.
        FloatingPointError: the loss is no number any more.
        ray.train.TrainingFailedError: a worker was lost more than `max_failures` times.
    """
    job = _Job(settings, data, seed, n_epochs)
    if progress is not None:
        job = replace(job, progress=ProgressFile(progress, job.fingerprint(), settings.checkpoint_every))
    if settings.num_workers == 0:
        result = job.run(torch_device("cuda" if settings.use_gpu else "cpu", "cnn.use_gpu"), on_epoch)
    else:
        result = _fit_on_workers(job)
        if on_epoch is not None:
            for record in result.history:
                on_epoch(record)
    model = CropNet(job.network())
    model.load_state_dict(result.weights)
    provenance = {
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "n_epochs": n_epochs,
        "training_zones": sorted(data.train),
        "best_epoch": result.best_epoch,
        "history": list(result.history),
    }
    save_checkpoint(folder, CnnCheckpoint(model, data.stats, data.classes, data.legend_hash, provenance, data.cube))
    return CnnFit(result.history, result.best_epoch, result.validation)


def fit_scored(job: Fit) -> Sequence[FitScore]:
    """`train_cnn` as the family's fit."""
    started = time.monotonic()
    lookup = np.full(256, IGNORE, np.uint8)
    for index, crop in enumerate(job.classes):
        lookup[crop.id] = index
    result = train_cnn(
        job.settings,
        CnnData(
            train=job.train.blocks,
            val=None if job.val is None else job.val.blocks,
            stats=ChannelStats(job.mean, job.std),
            lookup=lookup,
            classes=job.classes,
            legend_hash=job.legend_hash,
            cube=job.cube,
        ),
        job.seed,
        job.folder,
        None if (tell := job.on_step) is None else lambda record: tell(_by_step(record)),
        n_epochs=job.n_steps,
        progress=job.progress,
    )
    scored = result.validation
    if scored is None:
        return ()
    history = tuple(_by_step(record) for record in result.history)
    return (
        FitScore(
            step=result.best_epoch,
            confusion=scored.confusion,
            loss_sum=scored.loss_sum,
            untrained=scored.untrained,
            untrained_loss_sum=scored.untrained_loss_sum,
            history=history,
            seconds=time.monotonic() - started,
        ),
    )


def _by_step(record: Record) -> dict[str, float]:
    return {**{name: value for name, value in record.items() if name != "epoch"}, "step": record["epoch"]}


@dataclass(frozen=True, slots=True)
class _Job:
    """One fit, as it travels to the workers."""

    settings: CnnSettings
    data: CnnData
    seed: int
    n_epochs: int | None = None
    progress: ProgressFile | None = None

    def fingerprint(self) -> str:
        """Of all that the result depends on; the statistics stand for the training pixels."""
        data = self.data
        return fingerprint(
            [
                torch.__version__,
                self.settings.fingerprint(),
                self.seed,
                self.n_epochs,
                sorted(data.train),
                None if data.val is None else sorted(data.val),
                asdict(data.stats),
                data.lookup.tolist(),
                data.legend_hash,
            ]
        )

    def network(self) -> CropNetConfig:
        return CropNetConfig(
            n_classes=len(self.data.classes),
            n_months=self.data.cube.n_steps,
            n_bands=self.data.cube.n_bands,
            temporal_channels=self.settings.temporal_channels,
            kernel_size=self.settings.kernel_size,
            dropout=self.settings.dropout,
            pool=self.settings.pool,
            unet_channels=self.settings.unet_channels,
        )

    def plan(self) -> FitPlan:
        shared = (
            "learning_rate",
            "epochs",
            "batch_size",
            "patience",
            "monitor",
            "schedule",
            "weight_decay",
            "class_weighting",
            "augment",
        )
        return FitPlan(
            n_classes=len(self.data.classes),
            seed=self.seed,
            n_epochs=self.n_epochs,
            **{name: getattr(self.settings, name) for name in shared},
        )

    def run(self, device: torch.device, on_epoch: Callable[[Record], None] | None) -> FitResult:
        """The fit, in one worker."""
        with TileFile() as file, _threads(self.settings.threads), reproducible(device):
            train = self._tiles(self.data.train, file)
            val = None if self.data.val is None else self._tiles(self.data.val, file)
            model = _initialised(self.network(), self.seed).to(device)
            progress = None if self.progress is None else NetworkProgress(self.progress, device)
            return fit(model, train, val, self.plan(), on_epoch, progress)

    def _tiles(self, zones: Mapping[str, Block], file: TileFile) -> TileSet:
        blocks = [_block(zones[zone_id], file) for zone_id in sorted(zones)]
        return TileSet(blocks, self.data.lookup, self.data.stats)


def _fit_on_workers(job: _Job) -> FitResult:
    """Run the job on a worker group. Nothing but sums over all workers is reported, so rank 0 speaks for all.

    After the loss of a worker Ray Train begins a new group, which goes on from the progress file.
    """
    scaling = ray.train.ScalingConfig(
        num_workers=job.settings.num_workers,
        use_gpu=job.settings.use_gpu,
        resources_per_worker=worker_resources(job.settings.cpus, int(job.settings.use_gpu), job.settings.memory_gb),
    )
    # Train's own state is this node's: its controller runs here, and workers hand it no checkpoint.
    with tempfile.TemporaryDirectory(prefix="cropray-") as state:
        trainer = ray.train.torch.TorchTrainer(
            _worker,
            train_loop_config={"job": ray.put(job)},
            scaling_config=scaling,
            run_config=ray.train.RunConfig(
                name="fit",
                storage_path=state,
                failure_config=ray.train.FailureConfig(max_failures=job.settings.max_failures),
            ),
        )
        result: FitResult | FloatingPointError | ConfigError = trainer.fit().return_value
    if isinstance(result, Exception):
        raise result
    return result


def _worker(config: dict[str, Any]) -> FitResult | FloatingPointError | ConfigError:
    job: _Job = ray.get(config["job"])
    try:
        if job.settings.use_gpu:
            torch_device("cuda", "cnn.use_gpu")  # torch's own error would start the group again and again
        return job.run(ray.train.torch.get_device(), None)
    except (FloatingPointError, ConfigError) as error:
        return error  # a fit that diverged, or lacks what it needs: not a worker to start again


def _initialised(config: CropNetConfig, seed: int) -> CropNet:
    """A network whose first weights depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CropNet(config)


def _block(block: Block, file: TileFile) -> TileBlock:
    """A zone's tiles as a fit reads them. The object store is left at once: it may be smaller than the dataset."""
    if not isinstance(block, ray.ObjectRef):
        return block
    tiles: TileBlock = ray.get(block)
    return FileBlock(file.append(tiles.x[:]), file.append(tiles.labels[:]))


@contextlib.contextmanager
def _threads(n_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
