"""Tiles as training sees them: per-zone blocks in memory or in a file, gathered into normalised batches.

Needs numpy and torch only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cropray.core.legend import IGNORE
from cropray.core.sensors import NODATA
from cropray.training.deep.samplers import NO_CLASS
from cropray.training.deep.tile_file import FileRows

TILES_AT_ONCE: Final = 256  # whose labels are counted together

Rows: TypeAlias = npt.NDArray[Any] | FileRows
"""An array in memory or in a file."""


class TileBlock(Protocol):
    """All tiles of one zone, as `cropray.datasets.tiles.Tiles` holds them."""

    @property
    def x(self) -> Rows:
        """[N, T, C, H, W] uint16 digital numbers, 0 = no data."""

    @property
    def labels(self) -> Rows:
        """[N, H, W] uint8 class ids of the dataset's legend, 255 = ignored."""


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """Centre and spread per band, in digital numbers, over the training zones of one fit.

    These are mean and standard deviation, or what stands for them with `scaling: robust` (`training.temp_cnn.fit.scaled`).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalise(self, x: Tensor) -> Tensor:
        """Each band less its centre, in units of its spread; missing values become 0, the centre.

        Args:
            x: [..., T, C, H, W] digital numbers of any numeric type, 0 = no data.

        Returns:
            The same shape, float32.
        """
        x = x.to(torch.float32)
        mean = x.new_tensor(self.mean)[:, None, None]
        std = x.new_tensor(self.std)[:, None, None]
        return torch.where(x == NODATA, 0.0, (x - mean) / std)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some tiles, ready for the network."""

    x: Tensor
    """[B, T, C, H, W] float32, normalised."""
    labels: Tensor
    """[B, H, W] int64, class index 0 … K - 1, or IGNORE."""
    numbers: Tensor
    """[B, T, C, H, W] digital numbers that `x` was made from, 0 = no data."""
    weights: Tensor | None = None
    """[B, H, W] float32: each pixel counts as so many in the training loss; None: 1."""

    def labelled(self) -> Tensor:
        """[B, H, W] bool: pixels that count."""
        return self.labels != IGNORE

    def total(self) -> Tensor:
        """How many pixels count; of weighted ones the sum of the weights."""
        return self.labelled().sum() if self.weights is None else (self.weights * self.labelled()).sum()


Change = Callable[[Tensor], Tensor]
"""[B, T, C, H, W] digital numbers → others, see `augment.augmented`."""


class Samples(Protocol):
    """What the loop trains on: tiles, or pixels as tiles of 1 × 1; numbered from 0."""

    stats: ChannelStats

    def __len__(self) -> int: ...

    def batch(
        self, tiles: npt.NDArray[np.int64], device: torch.device, turns: npt.ArrayLike = 0, change: Change | None = None
    ) -> Batch:
        """See `TileSet.batch`."""

    def class_counts(self, n_classes: int) -> npt.NDArray[np.int64]:
        """See `TileSet.class_counts`."""

    def rarest_classes(self, n_classes: int) -> npt.NDArray[np.uint8]:
        """See `TileSet.rarest_classes`."""


class TileSet:
    """Tiles of some zones, numbered in the order of the blocks."""

    def __init__(self, blocks: Sequence[TileBlock], lookup: npt.NDArray[np.uint8], stats: ChannelStats) -> None:
        """Args: lookup: [256] stored class id → class index, or IGNORE; stats: of the training zones."""
        for block in blocks:
            if block.x.ndim != 5 or block.labels.shape != (block.x.shape[0], *block.x.shape[3:]):
                raise ValueError(
                    f"x must be [N, T, C, H, W] and labels [N, H, W] of the same tiles; "
                    f"got {block.x.shape} and {block.labels.shape}"
                )
        shapes = {block.x.shape[1:] for block in blocks if len(block.x)}
        if len(shapes) > 1:
            raise ValueError(f"all tiles must have one shape [T, C, H, W]; got {sorted(shapes)}")
        self.blocks = [block for block in blocks if len(block.x)]
        self.lookup = lookup
        self.stats = stats
        self._ends = np.cumsum([len(block.x) for block in self.blocks], dtype=np.int64)
        self._rarest: dict[int, npt.NDArray[np.uint8]] = {}  # every epoch asks for it

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.blocks else 0

    def batch(
        self, tiles: npt.NDArray[np.int64], device: torch.device, turns: npt.ArrayLike = 0, change: Change | None = None
    ) -> Batch:
        """Gather, orient, change, normalise and move tiles.

        Args:
            tiles: [B] tile numbers; may be empty.
            device: where the network is.
            turns: symmetry of each tile (or of all), 0 … 7; 0 leaves it as it is.
            change: what else happens to the digital numbers, on the device; None: nothing.
        """
        if not self.blocks:
            raise ValueError("there is no tile to make a batch of; check that these zones hold labels")
        first = self.blocks[0]
        x = np.empty((len(tiles), *first.x.shape[1:]), np.uint16)
        labels = np.empty((len(tiles), *first.labels.shape[1:]), np.uint8)
        for i, (tile, turn) in enumerate(zip(tiles, np.broadcast_to(turns, len(tiles)), strict=True)):
            zone = int(np.searchsorted(self._ends, tile, side="right"))
            block, row = self.blocks[zone], int(tile - self._ends[zone])  # negative: counted from the block's end
            x[i] = _orient(block.x[row], int(turn))
            labels[i] = _orient(block.labels[row], int(turn))
        return make_batch(x, self.lookup[labels], self.stats, device, change)

    def class_counts(self, n_classes: int) -> npt.NDArray[np.int64]:
        """[K] labelled pixels per class index.

        Raises:
            ValueError: a label is neither a class index below `n_classes` nor IGNORE.
        """
        stored = np.zeros(256, np.int64)
        for block in self.blocks:
            for start in range(0, len(block.labels), TILES_AT_ONCE):
                stored += np.bincount(block.labels[start : start + TILES_AT_ONCE].ravel(), minlength=256)
        counts = np.zeros(256, np.int64)
        np.add.at(counts, self.lookup, stored)
        strange = np.flatnonzero(counts[n_classes:IGNORE]) + n_classes
        if strange.size:
            raise ValueError(f"labels hold class indices {strange.tolist()}, but there are only {n_classes} classes")
        return counts[:n_classes]

    def rarest_classes(self, n_classes: int) -> npt.NDArray[np.uint8]:
        """[N] of each tile the class with the fewest pixels in all tiles among its own; NO_CLASS where none is labelled."""
        if n_classes not in self._rarest:
            self._rarest[n_classes] = self._find_rarest(n_classes)
        return self._rarest[n_classes]

    def _find_rarest(self, n_classes: int) -> npt.NDArray[np.uint8]:
        ranks = class_ranks(self.class_counts(n_classes))
        found = []
        for block in self.blocks:
            for start in range(0, len(block.labels), TILES_AT_ONCE):
                labels = self.lookup[block.labels[start : start + TILES_AT_ONCE]]
                found.append(ranks[labels].reshape(len(labels), -1).min(axis=1))
        by_rank = np.full(256, NO_CLASS, np.uint8)
        by_rank[ranks[:n_classes]] = np.arange(n_classes, dtype=np.uint8)
        rarest: npt.NDArray[np.uint8] = by_rank[np.concatenate(found)]
        return rarest


def class_ranks(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """[256] class index → its place among all, the one with the fewest pixels first; 255 for what is no class."""
    ranks = np.full(256, NO_CLASS, np.uint8)
    ranks[np.argsort(counts, kind="stable")] = np.arange(len(counts), dtype=np.uint8)
    return ranks


def make_batch(
    x: npt.NDArray[np.uint16],
    labels: npt.NDArray[np.uint8],
    stats: ChannelStats,
    device: torch.device,
    change: Change | None = None,
) -> Batch:
    """A batch on its device.

    Args:
        x: [B, T, C, H, W] digital numbers.
        labels: [B, H, W] class indices, or IGNORE.
        stats: for the normalisation.
        device: where the network is.
        change: what happens to the digital numbers first; None: nothing.
    """
    numbers = torch.from_numpy(x).to(device)
    if change is not None:
        numbers = change(numbers)
    return Batch(stats.normalise(numbers), torch.from_numpy(labels.astype(np.int64)).to(device), numbers)


def _orient(array: npt.NDArray[np.generic], turn: int) -> npt.NDArray[np.generic]:
    """One of the symmetries of the last two axes; oblong tiles keep to those that preserve their shape."""
    if array.shape[-1] != array.shape[-2]:
        turn &= ~2  # no quarter turns
    turned = np.rot90(array, turn >> 1, axes=(-2, -1))
    return turned[..., ::-1] if turn & 1 else turned
