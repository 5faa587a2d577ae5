"""A source of scenes of one's own: files of NumPy, each with a grid, a time, and bands with the scene classes last."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cropray.core.fingerprint import fingerprint
from cropray.core.grid import Grid
from cropray.core.sensors import Band
from cropray.imagery.registry import SOURCES, SceneSettings
from cropray.imagery.scenes import Found, Scene


@SOURCES.register("toy_scenes")
class ToySettings(SceneSettings):
    """What a job writes below `imagery`."""

    source: Literal["toy_scenes"]
    folder: Path
    """Folder of the files."""

    @property
    def band_ids(self):
        """What there is; a job that asks for other bands is refused."""
        return "T1", "T2"

    def scenes(self, bands):
        """The source, which travels to the workers."""
        return ToyScenes(self.folder, tuple(bands))


@dataclass(frozen=True)
class ToyScenes:
    """Reads scenes; `cropray.imagery.scenes.SceneSource` says what each method owes."""

    folder: Path
    bands: tuple[Band, ...]
    scenes_at_once: int = 1

    def survey(self, grid, start, end):
        """All that lie on the grid's ground, acquired in [start, end)."""
        found = []
        for path in sorted(self.folder.glob("*.npz")):
            with np.load(path, allow_pickle=True) as content:
                acquired, there = content["acquired"].item(), Grid(*content["grid"].tolist())
            if start <= acquired.date() < end and there.distance_m(grid) == 0:
                found.append(Scene(path.stem, acquired, str(path)))
        return Found(tuple(found))

    def never_used(self, scenes):
        """Remarks on what lies there besides these scenes: none."""
        return {}

    def read(self, scene, grid):
        """Numbers [C, H, W] and classes [H, W] on the grid, which lies within the file's; 0 = no data."""
        with np.load(scene.href, allow_pickle=True) as content:
            pixels = content["pixels"][:, *Grid(*content["grid"].tolist()).window_of(grid).slices]
            names = content["bands"].tolist()
        bands = pixels[[names.index(band.id) for band in self.bands]]
        return bands, np.where((bands == 0).any(0), 0, pixels[-1]).astype(np.uint8)

    def fingerprint(self, scenes):
        """Changes when the files do."""
        return fingerprint([[scene.href, Path(scene.href).stat().st_size] for scene in scenes])
