"""Models that look at one pixel at a time, in use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from cropray.core.cube import CubeSpec
from cropray.core.features import STUDY_FEATURES, FeatureSet
from cropray.core.legend import CropClass
from cropray.training.card import CARD_FILE, naming_damage, recorded_features
from cropray.training.crop_model import CropModel, Probabilities, Samples

_NUMBER_BYTES: Final = 2
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class PixelModel:
    """A `CropModel` around one function; its samples are pixels [N, C · T] in the order of the cube's columns."""

    loader: str
    """See `CropModel`."""
    predict: Callable[..., Probabilities]
    """([N, F] contiguous uint16 features, 0 = missing; number of steps, where only so many count) → [N, K] float32 that
    sums to 1 over K."""
    classes: tuple[CropClass, ...]
    features: FeatureSet = STUDY_FEATURES
    """Computed from the samples."""
    n_steps: int | None = None
    """How many steps of the fit count; None: all."""

    @property
    def cube(self) -> CubeSpec:
        """Bands and steps of the samples."""
        return self.features.cube

    @property
    def columns(self) -> tuple[str, ...]:
        """The cube's."""
        return self.cube.columns

    @property
    def margin_px(self) -> int:
        """One pixel is all that is looked at."""
        return 0

    @property
    def stride_px(self) -> int:
        """One pixel is all that is looked at."""
        return 1

    @property
    def bytes_per_px(self) -> int:
        """Features as numbers and as floats, and the classes' probabilities three times."""
        n_features = len(self.features.columns) + (0 if self.features.is_raw else len(self.columns))
        return (_NUMBER_BYTES + _FLOAT_BYTES) * n_features + 3 * _FLOAT_BYTES * len(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[N, C · T]."""
        return -1, len(self.columns)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[N, K]."""
        return -1, len(self.classes)

    def predict_tiles(self, x: Samples) -> Probabilities:
        """[N, T, C, H, W] uint16 → [N, K, H, W] float32."""
        n, steps, bands, height, width = x.shape
        # Columns are band-major: axes to N, H, W, C, T before the last two become one.
        pixels = x.transpose(0, 3, 4, 2, 1).reshape(-1, bands * steps)
        probabilities = self.predict_samples(pixels).reshape(n, height, width, len(self.classes))
        return np.ascontiguousarray(probabilities.transpose(0, 3, 1, 2))

    def predict_samples(self, x: Samples) -> Probabilities:
        """[N, C · T] uint16 → [N, K] float32."""
        steps = () if self.n_steps is None else (self.n_steps,)
        return self.predict(np.ascontiguousarray(self.features.compute(x)), *steps)


def first_steps(model: CropModel, n_steps: int) -> CropModel:
    """The model that a fit of so many steps would be, of a family whose `predict` takes their number."""
    assert isinstance(model, PixelModel)
    return replace(model, n_steps=n_steps)


def from_card(folder: Path, card: Mapping[str, Any], loader: str, predict: Callable[..., Probabilities]) -> PixelModel:
    """The model of a folder, with its card (`card.read_card`).

    Raises:
        SchemaError: its classes cannot be read.
    """
    with naming_damage(folder / CARD_FILE):
        classes = tuple(CropClass(**record) for record in card["classes"])
    return PixelModel(loader, predict, classes, recorded_features(card))
