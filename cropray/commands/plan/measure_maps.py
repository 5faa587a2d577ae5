"""Unit costs of prediction: a few rows of a zone, or of a table; and the map of that zone with what they gave."""

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa

from cropray.imagery.composites import read_composite
from cropray.io.storage import size_of
from cropray.io.zones import Zone
from cropray.maps.predict import windows
from cropray.maps.zone import MapJob, map_zone
from cropray.training.family import CropModel, Probabilities, Samples, TilePredictor

ResultT = TypeVar("ResultT")
MOST_PX: Final = 1 << 16  # of a zone that are predicted
_MOST_ROWS: Final = 40_000
_QUICK_S: Final = 3.0  # what takes longer is not done a second time


class Answered:
    """A model whose prediction is known: for every window the same one, repeated to its size, so that maps look like real ones."""

    def __init__(self, model: TilePredictor, answer: Probabilities) -> None:
        self._answer = answer
        self.spent_s = 0.0
        """Seconds of repeating."""
        # It is cut into windows like the model.
        self.classes, self.bytes_per_px = model.classes, model.bytes_per_px
        self.margin_px, self.stride_px, self.cube = model.margin_px, model.stride_px, model.cube

    def predict_tiles(self, x: Samples) -> Probabilities:
        """[1, T, C, H, W] uint16 → [1, K, H, W] float32."""
        started = time.perf_counter()
        rows, columns = (np.arange(n) % m for n, m in zip(x.shape[-2:], self._answer.shape[-2:], strict=True))
        repeated = self._answer[..., rows[:, None], columns]
        self.spent_s += time.perf_counter() - started
        return repeated


def measure_map(model: CropModel, zone: Zone, job: MapJob) -> tuple[float, float, float]:
    """(seconds of a pixel, seconds of a zone's map beside its prediction, its bytes).

    A zone of 10 km takes a full-size network half a minute or more on a CPU, and every pixel that it reads, margins of
    windows included, the same time.
    """
    grid, at = zone.grid, job.workspace
    x = read_composite(at.composite(zone.zone_id), grid, model.cube)[None, ..., : max(MOST_PX // grid.width, 1), :]
    predict_s, answer = _timed(lambda: model.predict_tiles(x))

    def mapped() -> tuple[float, tuple[int, int]]:
        answered = Answered(model, answer)
        window_px = map_zone(answered, zone, job)
        return answered.spent_s, window_px

    map_s, (repeat_s, window_px) = _timed(mapped)
    parts = windows(grid.shape, window_px, model.margin_px, model.stride_px)
    n_read = sum(outer.height * outer.width for outer, _ in parts)
    paths = [of(job.model_name, zone.zone_id) for of in (at.map, at.map_preview, at.mapped_parcels)]
    pixel_s = predict_s / (x.shape[-2] * grid.width) * n_read / (grid.height * grid.width)
    return pixel_s, map_s - repeat_s, sum(map(size_of, paths))


def measure_row(model: CropModel, table: pa.Table) -> float:
    """Seconds of a row."""
    x: Any = np.stack([table[name].slice(0, _MOST_ROWS).to_numpy() for name in model.columns], axis=1)
    return _timed(lambda: model.predict_samples(x))[0] / len(x)


def _timed(work: Callable[[], ResultT]) -> tuple[float, ResultT]:
    """(seconds, result) of some work; what is quick is done twice, as the first time may pay for imports."""
    seconds: list[float] = []
    while not seconds or (len(seconds) == 1 and seconds[0] < _QUICK_S):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    return min(seconds), result
