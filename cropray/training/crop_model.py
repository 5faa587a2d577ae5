"""A trained model, as those see it that predict with it: maps, scores, servers, and families that are built from others."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from cropray.core.cube import CubeSpec
from cropray.core.legend import CropClass

Samples = npt.NDArray[np.uint16]
Probabilities = npt.NDArray[np.float32]


class TilePredictor(Protocol):
    """What mapping a zone needs of a model."""

    @property
    def cube(self) -> CubeSpec:
        """Bands and steps that it reads."""

    @property
    def classes(self) -> tuple[CropClass, ...]:
        """Class of each output, in order."""

    @property
    def margin_px(self) -> int:
        """Predictions are exact this far from an edge where a window cuts the image."""

    @property
    def stride_px(self) -> int:
        """Windows must start at multiples of this."""

    @property
    def bytes_per_px(self) -> int:
        """Most memory that a prediction takes, bytes per pixel of its window."""

    def predict_tiles(self, x: Samples) -> Probabilities:
        """Class probabilities of each pixel.

        Args:
            x: [N, T, C, H, W] uint16 digital numbers, 0 = no data.

        Returns:
            [N, K, H, W] float32, sums to 1 over K.
        """


class CropModel(TilePredictor, Protocol):
    """What serving and the registry need beside it."""

    @property
    def loader(self) -> str:
        """Module with MLflow's `_load_pyfunc`; a registered model carries it and what it imports."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a table of samples, in order; empty: samples are tiles."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Axes of `predict_samples`' input, -1 where any length is accepted."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Axes of `predict_samples`' output."""

    def predict_samples(self, x: Samples) -> Probabilities:
        """Class probabilities of samples in the model's own form, as a model server gets them."""
