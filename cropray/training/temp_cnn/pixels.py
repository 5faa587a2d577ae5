"""Pixels as the loop sees them: tiles of 1 × 1, thousands a batch, gathered at once."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from cropray.core.cube import CubeSpec
from cropray.core.legend import IGNORE
from cropray.training.deep.tiles import Batch, Change, ChannelStats, make_batch
from cropray.training.pixel_blocks import LABEL, WEIGHT, samples


class PixelSet:
    """Pixels of some zones in memory, numbered in the order of their tables; see `tiles.Samples`."""

    def __init__(
        self, tables: Iterable[pa.Table], lookup: npt.NDArray[np.uint8], stats: ChannelStats, cube: CubeSpec
    ) -> None:
        """Gather all rows.

        Args:
            tables: columns `label`, the cube's and, in all or in none, `weight`, which the training loss alone looks at.
            lookup: [256] class id → class index.
            stats: of the training zones.
            cube: what a row holds.
        """
        x, labels = [np.empty((0, *cube.shape), np.uint16)], [np.empty(0, np.uint8)]
        weights = list[npt.NDArray[np.float32]]()
        for table in tables:
            x.append(series(samples(table, cube.columns), cube))
            labels.append(lookup[table[LABEL].to_numpy()])
            if WEIGHT in table.column_names:
                weights.append(table[WEIGHT].to_numpy())
        self.x = np.concatenate(x)
        self.labels = np.concatenate(labels)
        self.weights = np.concatenate(weights) if weights else None
        if self.weights is not None and (self.weights == 1).all():
            self.weights = None  # to the bit: weighted losses are summed in another order
        self.stats = stats

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self,
        tiles: npt.NDArray[np.int64],
        device: torch.device,
        turns: npt.ArrayLike = 0,  # noqa: ARG002 - a pixel looks the same from all sides
        change: Change | None = None,
    ) -> Batch:
        """Gather, change, normalise and move pixels, see `TileSet.batch`."""
        if not len(self):
            raise ValueError("there is no pixel to make a batch of; check that these zones hold labels")
        x, labels = self.x[tiles], self.labels[tiles]
        batch = make_batch(x[..., None, None], labels[:, None, None], self.stats, device, change)
        if self.weights is None:
            return batch
        return replace(batch, weights=torch.from_numpy(self.weights[tiles][:, None, None]).to(device))

    def class_counts(self, n_classes: int) -> npt.NDArray[np.int64]:
        """[K] pixels per class index.

        Raises:
            ValueError: a label is no class of the dataset.
        """
        counts = np.bincount(self.labels, minlength=256)
        strange = np.flatnonzero(counts[n_classes:]) + n_classes
        if strange.size:
            raise ValueError(
                f"the pixel tables hold labels that are none of the {n_classes} classes (indices {strange.tolist()}, "
                f"{IGNORE}: unknown); run `cropray dataset CONFIG.yaml --set overwrite=true`"
            )
        return counts[:n_classes].astype(np.int64)

    def rarest_classes(self, n_classes: int) -> npt.NDArray[np.uint8]:  # noqa: ARG002 - it has one
        """[N] class of each pixel."""
        return self.labels


def series(rows: npt.NDArray[np.uint16], cube: CubeSpec) -> npt.NDArray[np.uint16]:
    """[N, T·C] numbers in the order of `cube.columns` → [N, T, C]."""
    return np.ascontiguousarray(rows.reshape(-1, cube.n_bands, cube.n_steps).transpose(0, 2, 1))
