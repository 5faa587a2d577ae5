"""A fit small enough for a test, in this process or on two; importable by spawned processes."""

import gc
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from cropray.core.legend import IGNORE, legend_from_names
from cropray.datasets.tiles import cut_tiles
from cropray.nets.crop_net import CropNet, CropNetConfig
from cropray.training.deep import loop
from cropray.training.deep.loop import FitPlan, FitResult, fit
from cropray.training.deep.progress import NetworkProgress
from cropray.training.deep.tiles import ChannelStats, TileSet
from cropray.training.progress_file import ProgressFile
from tests.study import INPUT
from tests.synthetic import zone_arrays

N_CLASSES = 4
CLASSES = legend_from_names([f"crop {i}" for i in range(N_CLASSES)]).classes
LOOKUP = np.where(np.arange(256) < N_CLASSES, np.arange(256), IGNORE).astype(np.uint8)
STATS = ChannelStats((1200.0,) * 4, (600.0,) * 4)


@dataclass(frozen=True)
class Block:
    """The least that a `TileBlock` is."""

    x: np.ndarray
    labels: np.ndarray


def block(seed=0, shape=(24, 24), size=8):
    tiles = cut_tiles(zone_arrays(shape, N_CLASSES, seed), size)
    return Block(tiles.x, tiles.labels)


def tile_set(*seeds, **kwargs):
    return TileSet([block(seed, **kwargs) for seed in seeds], LOOKUP, STATS)


def plan(**changes):
    return FitPlan(
        **{"n_classes": N_CLASSES, "learning_rate": 3e-3, "seed": 7, "epochs": 3, "batch_size": 8, **changes}
    )


def network(seed=0, dropout=0.3):
    torch.manual_seed(seed)
    config = CropNetConfig(**INPUT, n_classes=N_CLASSES, temporal_channels=8, unet_channels=(8, 8), dropout=dropout)
    return CropNet(config)


def small_fit(**changes) -> FitResult:
    # 13 + 5 tiles: batches of unequal size and unequal shares for two workers.
    train, val = tile_set(0, 1), tile_set(2)
    train.blocks[1] = Block(train.blocks[1].x[:4], train.blocks[1].labels[:4])
    train = TileSet(train.blocks, LOOKUP, STATS)
    train.blocks[0].labels[:3, :4] = IGNORE  # unlabelled pixels are spread unevenly
    return fit(network(), train, val, plan(**changes))


def plain_epoch(**changes):
    """One epoch of gradient descent: unlike Adam's, its steps show the size of the gradients."""
    model, tiles = network(), tile_set(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = loop.train_epoch(loop._parallel(model), optimizer, tiles, torch.ones(N_CLASSES), plan(**changes), 1)
    return loss, model.state_dict()


class Fixed(torch.nn.Module):
    """Answers logits that rise with a pixel's brightness; steep ones make most probabilities 0 or 1."""

    def __init__(self, steepness):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([float(steepness * k) for k in range(N_CLASSES)]))

    def forward(self, x, context=None):
        """[B, K, H, W] from [B, T, C, H, W]."""
        return x.mean(dim=(1, 2))[:, None] * self.scale[:, None, None]


def scored(steepness, untrained=()) -> loop.Evaluation:
    """Scores of two zones' tiles by `Fixed`, on this worker and its fellows."""
    return loop.evaluate(Fixed(steepness), tile_set(0, 3), N_CLASSES, 4, untrained)


def one_of_two(rank, port, folder, function, changes):
    """A spawned worker: run a function of this module and save what it returns."""
    one_of_some(rank, port, folder, function, changes, 2)


def one_of_some(rank, port, folder, function, changes, n_workers):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=n_workers)
    torch.save(globals()[function](**changes), f"{folder}/{rank}.pt")
    leave_group()


def leave_group():
    """End a worker's group once all are done. What the networks' cycles hold of it goes first: released while the
    interpreter ends, it aborts the process."""
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


class FatalPath(type(Path())):
    """A progress file whose second write kills the process that writes it; a list beside it tells of every write."""

    def with_name(self, name):
        """The temporary file of a write."""
        writes = f"{self}.writes"
        with open(writes, "a") as file:
            file.write(f"{os.getpid()}\n")
        if len(Path(writes).read_text().splitlines()) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().with_name(name)

    @property
    def writers(self):
        """Process of each write, in order."""
        return Path(f"{self}.writes").read_text().split()


def kept_fit(path=None, lose_at=None, **changes) -> FitResult | None:
    """`small_fit` with a progress file; with `lose_at` it ends in that epoch, as if its process were lost."""

    def on_epoch(record):
        if record["epoch"] == lose_at:
            raise InterruptedError

    progress = path and NetworkProgress(ProgressFile(Path(path), "job", 1), torch.device("cpu"))
    try:
        return fit(network(), tile_set(0), tile_set(2), plan(**changes), on_epoch, progress)
    except InterruptedError:
        return None
