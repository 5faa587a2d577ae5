"""Predicting rows of pixels by a network. Needs numpy, torch and safetensors only: a registered model carries this module."""

from typing import Final

import numpy as np
import numpy.typing as npt
from torch import nn

from cropray.core.cube import CubeSpec
from cropray.training.deep.device import predict_tiles
from cropray.training.deep.tiles import ChannelStats

KIND: Final = "temp_cnn"  # the family's name, in its cards
ROWS_AT_ONCE: Final = 1 << 14


def predict_rows(
    model: nn.Module, stats: ChannelStats, cube: CubeSpec, x: npt.NDArray[np.uint16]
) -> npt.NDArray[np.float32]:
    """Class probabilities of pixels.

    Args:
        model: a `Net` in evaluation mode.
        stats: its normalisation.
        cube: T steps × C bands of a pixel.
        x: [N, T·C] digital numbers in the order of `cube.columns`, 0 = no data.

    Returns:
        [N, K] float32, sums to 1 over K.
    """
    tiles = x.reshape(-1, cube.n_bands, cube.n_steps).transpose(0, 2, 1)[..., None, None]
    # No row at all is one piece, whose answer has K columns.
    pieces = [tiles[start : start + ROWS_AT_ONCE] for start in range(0, max(len(x), 1), ROWS_AT_ONCE)]
    return np.concatenate([predict_tiles(model, stats, piece)[..., 0, 0] for piece in pieces])
