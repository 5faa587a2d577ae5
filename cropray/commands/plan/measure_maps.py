"""Time of mapping a zone, out of a few of its rows."""

import time
from typing import Final

import numpy as np

from cropray.training.family import Probabilities, Samples, TilePredictor

STRIP_PX: Final = 1 << 16  # pixels that are predicted, or left out, together


class SampledModel:
    """A model that predicts the first rows of a zone only, and says how long the others would have taken.

    A zone of 10 km takes a full-size network half a minute or more on a CPU, and every pixel of a window the same time. Rows that
    are left out get the last prediction again, so that the map compresses like a real one.
    """

    def __init__(self, model: TilePredictor, most_s: float) -> None:
        """Args: model: predicts; most_s: it begins no further strip after so many seconds of prediction."""
        self._model = model
        self._most_s = most_s
        self.spent_s = 0.0
        """Seconds of prediction."""
        self._n_predicted = self._n_left_out = 0  # pixels, margins included
        self._last: Probabilities | None = None
        # It is cut into windows like the model.
        self.classes, self.bytes_per_px = model.classes, model.bytes_per_px
        self.margin_px, self.stride_px, self.cube = model.margin_px, model.stride_px, model.cube

    @property
    def predicted_s(self) -> float:
        """Seconds that all pixels take, those that were left out as well."""
        return self.spent_s * (1 + self._n_left_out / self._n_predicted) if self._n_predicted else 0.0

    def predict_tiles(self, x: Samples) -> Probabilities:
        """[N, T, C, H, W] uint16 → [N, K, H, W] float32: predicted, or the last prediction, repeated to the size."""
        n_rows = max(STRIP_PX // (x.shape[0] * x.shape[-1]), 1)
        strips = [x[..., row : row + n_rows, :] for row in range(0, x.shape[-2], n_rows)]
        return np.concatenate([self._predict(strip) for strip in strips], axis=-2)

    def _predict(self, x: Samples) -> Probabilities:
        n_pixels = x.shape[0] * x.shape[-2] * x.shape[-1]
        if self._last is not None and self.spent_s >= self._most_s:
            self._n_left_out += n_pixels
            rows, columns = (np.arange(n) % m for n, m in zip(x.shape[-2:], self._last.shape[-2:], strict=True))
            return self._last[..., rows[:, None], columns]
        started = time.perf_counter()
        self._last = self._model.predict_tiles(x)
        self.spent_s += time.perf_counter() - started
        self._n_predicted += n_pixels
        return self._last
