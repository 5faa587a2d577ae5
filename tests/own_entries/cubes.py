"""A source of ready cubes of one's own: a file of NumPy for each zone."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cropray.core.errors import InputError
from cropray.imagery.registry import SOURCES, CompositeSettings


@SOURCES.register("toy_cubes")
class ToyCubesSettings(CompositeSettings):
    """What a job writes below `imagery`."""

    source: Literal["toy_cubes"]
    shelf: Path
    """Folder of the files."""

    @property
    def band_ids(self):
        """What the files hold; a job that asks for other bands is refused."""
        return "GLOW", "HAZE"

    def composites(self):
        """The source, which travels to the workers."""
        return ToyCubes(self.shelf, self.band_ids)


@dataclass(frozen=True)
class ToyCubes:
    """A file holds a zone's `numbers` [T, C, H, W] uint16, 0 = no data, bands as named, and `seen` [T, H, W], how often each
    pixel was seen clear; gaps stay as they are. `cropray.imagery.cubes.CompositeSource` says what each method owes."""

    shelf: Path
    band_ids: tuple[str, ...]
    fills: bool = False

    def survey(self, zones):
        """Refuses zones without a file before anything is read; gives remarks on what lies there."""
        missing = [zone.zone_id for zone, _ in zones if not self._file(zone).exists()]
        if missing:
            raise InputError(f"nothing on the shelf for {', '.join(missing)}")
        return {"toys that nobody asked for": ("teddy",)}

    def read(self, zone, season):
        """The season's bands."""
        with np.load(self._file(zone)) as content:
            bands = [self.band_ids.index(band_id) for band_id in season.cube.band_ids]
            return content["numbers"][:, bands], content["seen"]

    def files(self, zone, _season):
        """What is read, for the record of the zone."""
        return (self._file(zone).name,)

    def fingerprint(self, zone, _season):
        """Changes when the file does."""
        return hashlib.sha256(self._file(zone).read_bytes()).hexdigest()

    def _file(self, zone):
        return self.shelf / f"{zone.zone_id}.npz"
