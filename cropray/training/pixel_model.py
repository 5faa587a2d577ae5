"""Models that look at one pixel at a time, in use."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from cropray.bands import FEATURE_COLUMNS
from cropray.legend import CropClass
from cropray.training.family import Probabilities, Samples

_NUMBER_BYTES: Final = 2
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class PixelModel:
    """A `CropModel` around one function; its samples are pixels [N, 48] in the order of `FEATURE_COLUMNS`."""

    loader: str
    """See `CropModel`."""
    predict: Callable[[Samples], Probabilities]
    """[N, 48] contiguous uint16 digital numbers, 0 = no data → [N, K] float32 that sums to 1 over K."""
    classes: tuple[CropClass, ...]
    columns: tuple[str, ...] = FEATURE_COLUMNS

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
        return (_NUMBER_BYTES + _FLOAT_BYTES) * len(self.columns) + 3 * _FLOAT_BYTES * len(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[N, 48]."""
        return -1, len(self.columns)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[N, K]."""
        return -1, len(self.classes)

    def predict_tiles(self, x: Samples) -> Probabilities:
        """[N, T, C, H, W] uint16 → [N, K, H, W] float32."""
        n, months, bands, height, width = x.shape
        # Features are band-major: axes to N, H, W, C, T before the last two become one.
        pixels = x.transpose(0, 3, 4, 2, 1).reshape(-1, bands * months)
        probabilities = self.predict_samples(pixels).reshape(n, height, width, len(self.classes))
        return np.ascontiguousarray(probabilities.transpose(0, 3, 1, 2))

    def predict_samples(self, x: Samples) -> Probabilities:
        """[N, 48] uint16 → [N, K] float32."""
        return self.predict(np.ascontiguousarray(x))
