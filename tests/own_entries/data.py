"""A sensor, a source of scenes and a score of one's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cropray.core.fingerprint import fingerprint
from cropray.core.grid import Grid, Window
from cropray.core.metrics import METRICS, Metric
from cropray.core.sensors import SENSORS, Band, Sensor
from cropray.imagery.registry import SOURCES, SceneSettings
from cropray.imagery.scenes import Found, Scene

RED, NEAR = (Band(name, "reflectance", 1e-4, 0.0, resolution_m=10) for name in ("T1", "T2"))
SENSORS.add(Sensor("toy-sat", (RED, NEAR)))


@SOURCES.register("toy_scenes")
class ToySettings(SceneSettings):
    """Scenes in NumPy's files."""

    source: Literal["toy_scenes"]
    folder: Path

    @property
    def band_ids(self):
        """Of the sensor."""
        return RED.id, NEAR.id

    def scenes(self, bands):
        """The source."""
        return ToyScenes(self.folder, tuple(bands))


@dataclass(frozen=True)
class ToyScenes:
    """A file holds a grid, the time, and bands with scene classes last."""

    folder: Path
    bands: tuple[Band, ...]
    scenes_at_once: int = 1

    def survey(self, grid, start, end):
        """All that lie on the grid's ground."""
        found = []
        for path in sorted(self.folder.glob("*.npz")):
            with np.load(path, allow_pickle=True) as content:
                acquired, there = content["acquired"].item(), Grid(*content["grid"].tolist())
            if start <= acquired.date() < end and there.distance_m(grid) == 0:
                found.append(Scene(path.stem, acquired, str(path)))
        return Found(tuple(found))

    def never_used(self, scenes):
        """Nothing is."""
        return {}

    def read(self, scene, grid):
        """The grid lies within the file's."""
        with np.load(scene.href, allow_pickle=True) as content:
            window: Window = Grid(*content["grid"].tolist()).window_of(grid)
            pixels = content["pixels"][:, *window.slices]
            names = content["bands"].tolist()
        bands = pixels[[names.index(band.id) for band in self.bands]]
        return bands, np.where((bands == 0).any(0), 0, pixels[-1]).astype(np.uint8)

    def fingerprint(self, scenes):
        """Sizes will do."""
        return fingerprint([[scene.href, Path(scene.href).stat().st_size] for scene in scenes])


def balance(matrix, _loss):
    """Mean recall, less what chance would give."""
    there = matrix.sum(1) > 0
    recall = np.diagonal(matrix)[there] / matrix.sum(1)[there]
    return float(recall.mean() - 1 / there.sum())


METRICS.add(Metric("balance", "Recall beyond chance", balance, short="balance"))
