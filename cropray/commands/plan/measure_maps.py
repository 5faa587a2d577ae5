"""Unit costs of prediction: a zone mapped for real, of which a few rows are predicted; or rows of a table."""

import time
from typing import Any, Final

import numpy as np
import pyarrow as pa

from cropray.io.storage import size_of
from cropray.io.zones import Zone
from cropray.maps.zone import MapJob, map_zone
from cropray.training.family import CropModel, Probabilities, Samples, TilePredictor

MOST_PX: Final = 1 << 16  # of a window that are predicted
MOST_S: Final = 10.0  # of prediction, after which no further window is begun
_MOST_ROWS: Final = 40_000
_QUICK_S: Final = 3.0  # what takes longer is not done a second time


class SampledModel:
    """A model that predicts the first rows of windows only, and says how long all of them would have taken.

    A zone of 10 km takes a full-size network half a minute or more on a CPU, and every pixel of a window the same time. Rows that
    are left out get the prediction of others, so that the map compresses like a real one.
    """

    def __init__(self, model: TilePredictor) -> None:
        self._model = model
        self.spent_s = 0.0
        """Seconds of prediction."""
        self._n_pixels = self._n_predicted = 0  # margins included
        self._last: Probabilities = np.empty(0, np.float32)
        # It is cut into windows like the model.
        self.classes, self.bytes_per_px = model.classes, model.bytes_per_px
        self.margin_px, self.stride_px, self.cube = model.margin_px, model.stride_px, model.cube

    @property
    def predicted_s(self) -> float:
        """Seconds that all pixels take, those that were left out as well."""
        return self.spent_s * self._n_pixels / max(self._n_predicted, 1)

    def predict_tiles(self, x: Samples) -> Probabilities:
        """[N, T, C, H, W] uint16 → [N, K, H, W] float32: as predicted, repeated to the size."""
        height, width = x.shape[-2:]
        if not self._n_pixels or self.spent_s < MOST_S:
            some = x[..., : max(MOST_PX // (len(x) * width), 1), :]
            started = time.perf_counter()
            self._last = self._model.predict_tiles(some)
            self.spent_s += time.perf_counter() - started
            self._n_predicted += len(x) * some.shape[-2] * width
        self._n_pixels += len(x) * height * width
        rows, columns = (np.arange(n) % m for n, m in zip((height, width), self._last.shape[-2:], strict=True))
        return self._last[..., rows[:, None], columns]


def measure_map(model: CropModel, zone: Zone, job: MapJob) -> tuple[float, float, float]:
    """(seconds of a pixel, seconds of a zone's map beside them, its bytes); the first time may pay for imports."""

    def mapped() -> tuple[float, float]:
        started = time.perf_counter()
        sampled = SampledModel(model)
        map_zone(sampled, zone, job)
        return sampled.predicted_s, time.perf_counter() - started - sampled.spent_s

    predicted_s, rest_s = mapped()
    if predicted_s + rest_s < _QUICK_S:
        predicted_s, rest_s = min((predicted_s, rest_s), mapped())
    at = job.workspace
    paths = [of(job.model_name, zone.zone_id) for of in (at.map, at.map_preview, at.mapped_parcels)]
    return predicted_s / (zone.grid.height * zone.grid.width), rest_s, sum(map(size_of, paths))


def measure_row(model: CropModel, table: pa.Table) -> float:
    """Seconds of a row, the second time that it is predicted."""
    x: Any = np.stack([table[name].slice(0, _MOST_ROWS).to_numpy() for name in model.columns], axis=1)
    model.predict_samples(x)
    started = time.perf_counter()
    model.predict_samples(x)
    return (time.perf_counter() - started) / len(x)
