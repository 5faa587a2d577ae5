"""Fitting a network: in this process, or on a Ray Train worker group, by the same loop."""

import contextlib
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import ray
import ray.train
import ray.train.torch
import torch

from cropray.cluster.resources import worker_resources
from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import ConfigError
from cropray.core.fingerprint import fingerprint
from cropray.core.legend import CropClass
from cropray.io.storage import Location
from cropray.nets.registry import NETS, Net, net_config
from cropray.training.deep.checkpoint import NetworkCheckpoint, save_checkpoint
from cropray.training.deep.device import reproducible, torch_device
from cropray.training.deep.loop import FitPlan, FitResult, Record, evaluate, fit
from cropray.training.deep.losses import require_weighing
from cropray.training.deep.network_file import together
from cropray.training.deep.progress import NetworkProgress
from cropray.training.deep.settings import NetworkSettings
from cropray.training.deep.tile_file import FileBlock, TileFile
from cropray.training.deep.tiles import ChannelStats, Samples, TileBlock, TileSet
from cropray.training.family import Fit, FitScore
from cropray.training.pixel_blocks import class_lookup
from cropray.training.progress_file import ProgressFile

Block: TypeAlias = TileBlock | ray.ObjectRef
"""A zone's tiles, or where they are in Ray's object store; from there a fit copies them to its scratch file."""
_MEMBER: Final = "members."  # before the names of weights of several networks, as `nets.ensemble` has them
_SEEDS_APART: Final = 1 << 16  # between networks of one model


@dataclass(frozen=True, slots=True)
class NetworkData:
    """What one fit may see."""

    train: Mapping[str, Any]
    """Training zone → tiles (`Block`), or what the kind of network reads."""
    val: Mapping[str, Any] | None
    """Validation zone → the same; None: train for a fixed number of epochs."""
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
class Kind:
    """How a family of networks reads its samples."""

    name: str
    """Of the family, and of its section in a job file."""
    samples: Callable[[Mapping[str, Any], NetworkData, TileFile], Samples]
    """(zone → what is stored of it, the data's statistics and classes, a scratch file) → samples in order of their zones."""


def tile_samples(zones: Mapping[str, Any], data: NetworkData, file: TileFile) -> Samples:
    """Tiles of some zones, out of a scratch file; see `Kind.samples`."""
    return TileSet([_block(zones[zone_id], file) for zone_id in sorted(zones)], data.lookup, data.stats)


def train_network(  # noqa: PLR0913 - what to fit, on what, and whom to tell
    settings: NetworkSettings,
    data: NetworkData,
    seed: int,
    folder: Path,
    on_epoch: Callable[[Record], None] | None = None,
    *,
    n_epochs: int | None = None,
    progress: Location | None = None,
    kind: Kind,
) -> FitResult:
    """Fit one configuration and write its checkpoint.

    Of several networks the result is that of what is kept: `validation` of the mean of their probabilities, as they
    predict; `best_epoch` their mean, rounded; `history` see `_mean_history`.

    Args:
        settings: the network and the training; `num_workers` chooses where it runs.
        data: tiles, statistics and classes.
        seed: of weights, order, augmentation and dropout; the result does not depend on `num_workers`.
        folder: takes `weights.safetensors` and `card.json`.
        on_epoch: called with each epoch's record: at once in-process, of the first of several networks; with a worker group
            after the fit.
        n_epochs: stop after so many epochs, whose weights are kept; the schedule falls over `settings.epochs` all the
            same, so that an epoch has the learning rate that it was validated with. None: validation stops.
        progress: file that keeps the fit's state every `checkpoint_every` epochs; the fit goes on from it, if it is
            there, and the caller removes it when the result is safe. All workers' machines reach it. None: no file;
            a fit that loses a worker starts again.
        kind: the family.

    Raises:
        ConfigError: a GPU is asked for and there is none.
        FloatingPointError: the loss is no number any more.
        ray.train.TrainingFailedError: a worker was lost more than `max_failures` times.
    """
    job = _Job(settings, data, seed, n_epochs, kind=kind)
    if progress is not None:
        job = replace(job, progress=ProgressFile(progress, job.fingerprint(), settings.checkpoint_every))
    if settings.num_workers == 0:
        result = job.run(torch_device("cuda" if settings.use_gpu else "cpu", job.gpu_setting), on_epoch)
    else:
        result = _fit_on_workers(job)
        if on_epoch is not None:
            for record in result.history:
                on_epoch(record)
    save_checkpoint(folder, job.checkpoint(result))
    job.forget()
    return result


def fit_scored(job: Fit, kind: Kind) -> Sequence[FitScore]:
    """`train_network` as a family's fit."""
    started = time.monotonic()
    if job.is_weighted:
        require_weighing(job.settings.loss)
    result = train_network(
        job.settings,
        NetworkData(
            train=job.train.blocks,
            val=None if job.val is None else job.val.blocks,
            stats=ChannelStats(job.mean, job.std),
            lookup=class_lookup(job.classes),
            classes=job.classes,
            legend_hash=job.legend_hash,
            cube=job.cube,
        ),
        job.seed,
        job.folder,
        None if (tell := job.on_step) is None else lambda record: tell(_by_step(record)),
        n_epochs=job.n_steps,
        progress=job.progress,
        kind=kind,
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

    settings: NetworkSettings
    data: NetworkData
    seed: int
    n_epochs: int | None = None
    progress: ProgressFile | None = None
    kind: Kind = field(kw_only=True)

    @property
    def gpu_setting(self) -> str:
        return f"{self.kind.name}.use_gpu"

    def fingerprint(self) -> str:
        """Of all that the result depends on; the statistics stand for the training pixels, `fit_one` adds their labels."""
        data = self.data
        return fingerprint(
            [
                torch.__version__,
                self.kind.name,
                data.cube.fingerprint(),
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

    def network(self) -> Net:
        """An untrained one; its weights come from torch's global generator."""
        sizes = {
            "n_classes": len(self.data.classes),
            "n_months": self.data.cube.n_steps,
            "n_bands": self.data.cube.n_bands,
        }
        net, shared = self.settings.net, self.settings.architecture()
        return NETS.entry(net)(net_config(net, shared, sizes))

    def checkpoint(self, result: FitResult) -> NetworkCheckpoint:
        """What is kept of the fit."""
        data, settings = self.data, self.settings
        model = together([self.network() for _ in range(settings.n_seeds)])
        model.load_state_dict(result.weights)
        model.eval()
        provenance = {
            "settings": settings.model_dump(mode="json"),
            "seed": self.seed,
            "n_epochs": self.n_epochs,
            "training_zones": sorted(data.train),
            "best_epoch": result.best_epoch,
            "history": list(result.history),
        }
        return NetworkCheckpoint(
            model,
            data.stats,
            data.classes,
            data.legend_hash,
            provenance,
            data.cube,
            net=settings.net,
            kind=self.kind.name,
        )

    def plan(self) -> FitPlan:
        shared = NetworkSettings.model_fields.keys() & {each.name for each in fields(FitPlan)}
        return FitPlan(
            n_classes=len(self.data.classes),
            seed=self.seed,
            n_epochs=self.n_epochs,
            classes=self.data.classes,
            zero=tuple(-band.offset / band.scale for band in self.data.cube.bands),
            **{name: getattr(self.settings, name) for name in shared},
        )

    def members(self) -> "Iterator[_Job]":
        """The fit of each network; the first one is the job's own."""
        yield self
        for number in range(1, self.settings.n_seeds):
            one = replace(self, seed=self.seed + number * _SEEDS_APART)
            if self.progress is not None:
                path = self.progress.path.with_name(f"{self.progress.path.name}.{number}")
                one = replace(one, progress=ProgressFile(path, one.fingerprint(), self.progress.every))
            yield one

    def forget(self) -> None:
        """Remove the progress of networks beside the first; the caller removes that one."""
        for member in self.members():
            if member.progress is not None and member.progress is not self.progress:
                member.progress.path.unlink(missing_ok=True)

    def run(self, device: torch.device, on_epoch: Callable[[Record], None] | None) -> FitResult:
        """The fit, in one worker."""
        with TileFile() as file, _threads(self.settings.threads), reproducible(device):
            train = self.kind.samples(self.data.train, self.data, file)
            val = None if self.data.val is None else self.kind.samples(self.data.val, self.data, file)
            members = self.members()
            first = next(members).fit_one(train, val, device, on_epoch)
            others = [member.fit_one(train, val, device, None) for member in members]
            return self._together([first, *others], val, device) if others else first

    def fit_one(
        self, train: Samples, val: Samples | None, device: torch.device, on_epoch: Callable[[Record], None] | None
    ) -> FitResult:
        """The fit of one network."""
        model = _initialised(self).to(device)
        progress = None
        if (file := self.progress) is not None:
            counts = train.class_counts(len(self.data.classes)).tolist()
            progress = NetworkProgress(replace(file, fingerprint=fingerprint([file.fingerprint, counts])), device)
        return fit(model, train, val, self.plan(), on_epoch, progress)

    def _together(self, results: Sequence[FitResult], val: Samples | None, device: torch.device) -> FitResult:
        """Networks as one, scored by the mean of their probabilities, as it predicts."""
        weights = {f"{_MEMBER}{i}.{name}": w for i, one in enumerate(results) for name, w in one.weights.items()}
        scored = results[0].validation
        if val is not None and scored is not None:
            model = together([self.network() for _ in results])
            model.load_state_dict(weights)
            plan = self.plan()
            scored = evaluate(model.to(device), val, plan.n_classes, plan.batch_size, scored.untrained)
        best = round(sum(one.best_epoch for one in results) / len(results))
        return FitResult(weights, _mean_history([one.history for one in results]), best, scored)


def _mean_history(histories: Sequence[Sequence[Record]]) -> tuple[Record, ...]:
    """Per epoch the mean of the records of all networks that came so far: each is validated alone while it trains."""
    epochs = ([record for record in records if record] for records in itertools.zip_longest(*histories))
    return tuple(
        {
            name: math.fsum(of_name) / len(of_name)
            for name in records[0]
            if (of_name := [r[name] for r in records if name in r])
        }
        for records in epochs
    )


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
            torch_device("cuda", job.gpu_setting)  # torch's own error would start the group again and again
        return job.run(ray.train.torch.get_device(), None)
    except (FloatingPointError, ConfigError) as error:
        return error  # a fit that diverged, or lacks what it needs: not a worker to start again


def _initialised(job: _Job) -> Net:
    """A network whose first weights depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        return job.network()


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
