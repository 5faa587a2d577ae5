"""Cutting a zone into tiles of one size, and putting it together again."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cropray.core.legend import IGNORE
from cropray.core.sensors import NODATA


@dataclass(frozen=True, slots=True)
class ZoneArrays:
    """What a zone's dataset is made from."""

    composite: npt.NDArray[np.uint16]
    """[T, C, H, W] gap-filled medians, 0 = no data."""
    clear: npt.NDArray[np.bool_]
    """[T, H, W] true where the step was observed, before gap filling."""
    labels: npt.NDArray[np.uint8]
    """[H, W] class ids, 255 = unlabelled."""
    parcels: npt.NDArray[np.int32]
    """[H, W] parcel index, -1 = no parcel."""


@dataclass(frozen=True, slots=True)
class TrainingTiles:
    """Of the tiles of one zone, what models read."""

    x: npt.NDArray[np.uint16]
    """[N, T, C, S, S]."""
    labels: npt.NDArray[np.uint8]
    """[N, S, S]; 255 beyond the zone's edge."""


@dataclass(frozen=True, slots=True)
class Tiles(TrainingTiles):
    """All that is stored of the tiles of one zone, row by row."""

    valid: npt.NDArray[np.bool_]
    """[N, T, S, S] observed, before gap filling."""
    row: npt.NDArray[np.int32]
    """[N] first row in the zone."""
    col: npt.NDArray[np.int32]
    """[N] first column in the zone."""


def cut_tiles(zone: ZoneArrays, size: int) -> Tiles:
    """Cut a zone into `size` × `size` tiles that cover every pixel once.

    The last row and column of tiles reach beyond the zone where its size is no multiple; what lies
    outside has no data and no label, so no pixel is counted twice. Tiles without any label are left out.
    """
    height, width = zone.labels.shape
    origins = [(row, col) for row in range(0, height, size) for col in range(0, width, size)]
    pad = ((0, -height % size), (0, -width % size))
    x = np.pad(zone.composite, ((0, 0), (0, 0), *pad), constant_values=NODATA)
    labels = np.pad(zone.labels, pad, constant_values=IGNORE)
    valid = np.pad(zone.clear, ((0, 0), *pad), constant_values=False)
    kept = [(r, c) for r, c in origins if (labels[r : r + size, c : c + size] != IGNORE).any()]

    def crop(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        if not kept:
            return np.empty((0, *array.shape[:-2], size, size), array.dtype)
        return np.stack([array[..., r : r + size, c : c + size] for r, c in kept])

    return Tiles(
        x=crop(x).astype(np.uint16, copy=False),
        labels=crop(labels).astype(np.uint8, copy=False),
        valid=crop(valid).astype(np.bool_, copy=False),
        row=np.array([r for r, _ in kept], np.int32),
        col=np.array([c for _, c in kept], np.int32),
    )
