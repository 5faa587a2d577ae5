"""Unit costs of prediction: a few rows of a zone, or of a table; and the map of that zone with what they gave."""

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa

from cropray.imagery.composites import read_composite
from cropray.io.storage import size_of
from cropray.io.zones import Zone
from cropray.maps.predict import windows
from cropray.maps.zone import MapJob, map_zone
from cropray.training.crop_model import CropModel, Probabilities, Samples, TilePredictor

MOST_PX: Final = 1 << 16  # of a zone that are predicted
_MOST_ROWS: Final = 40_000
_QUICK_S: Final = 3.0  # what takes longer is not done a second time


class Answered:
    """A model whose prediction of a zone's first rows is known, and is that of all others: their map looks like a real one."""

    def __init__(self, model: TilePredictor, rows: Probabilities) -> None:
        self._rows = rows
        # It is cut into windows like the model.
        self.classes, self.bytes_per_px = model.classes, model.bytes_per_px
        self.margin_px, self.stride_px, self.cube = model.margin_px, model.stride_px, model.cube

    def predict_tiles(self, x: Samples) -> Probabilities:
        """[1, T, C, H, W] uint16 → [1, K, H, W] float32."""
        wanted = np.arange(x.shape[-2]) % self._rows.shape[-2]
        repeated: Probabilities = self._rows[..., : x.shape[-1]].take(wanted, axis=-2)
        return repeated


def measure_map(model: CropModel, zone: Zone, job: MapJob) -> tuple[float, float, float]:
    """(seconds of a pixel, seconds of a zone's map beside its prediction, its bytes).

    A zone of 10 km takes a full-size network half a minute or more on a CPU, and every pixel that it reads, margins of
    windows included, the same time.
    """
    grid, at = zone.grid, job.workspace
    x = read_composite(at.composite(zone.zone_id), grid, model.cube)[None, ..., : max(MOST_PX // grid.width, 1), :]
    predict_s, answer = _timed(lambda: model.predict_tiles(x))

    map_s, window_px = _timed(lambda: map_zone(Answered(model, answer), zone, job))
    parts = windows(grid.shape, window_px, model.margin_px, model.stride_px)
    n_read = sum(outer.height * outer.width for outer, _ in parts)
    paths = [of(job.model_name, zone.zone_id) for of in (at.map, at.map_preview, at.mapped_parcels)]
    pixel_s = predict_s / (x.shape[-2] * grid.width) * n_read / (grid.height * grid.width)
    return pixel_s, map_s, sum(map(size_of, paths))


def measure_row(model: CropModel, table: pa.Table) -> float:
    """Seconds of a row."""
    x: Any = np.stack([table[name].slice(0, _MOST_ROWS).to_numpy() for name in model.columns], axis=1)
    return _timed(lambda: model.predict_samples(x))[0] / len(x)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, result) of some work; what is quick is done twice, as the first time may pay for imports."""
    seconds: list[float] = []
    while not seconds or (len(seconds) == 1 and seconds[0] < _QUICK_S):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    return min(seconds), result
