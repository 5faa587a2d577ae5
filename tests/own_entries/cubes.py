"""A source of ready cubes of one's own."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cropray.core.errors import InputError
from cropray.imagery.registry import SOURCES, CompositeSettings


@SOURCES.register("toy_cubes")
class ToyCubesSettings(CompositeSettings):
    """Cubes in NumPy's files."""

    source: Literal["toy_cubes"]
    shelf: Path

    @property
    def band_ids(self):
        """What the files hold."""
        return "GLOW", "HAZE"

    def composites(self):
        """The source."""
        return ToyCubes(self.shelf, self.band_ids)


@dataclass(frozen=True)
class ToyCubes:
    """A file holds a zone's `numbers` [T, C, H, W], bands as named, and `seen` [T, H, W]; gaps stay as they are."""

    shelf: Path
    band_ids: tuple[str, ...]
    fills: bool = False

    def survey(self, zones):
        """Refuses zones without a file."""
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
        """One."""
        return (self._file(zone).name,)

    def fingerprint(self, zone, _season):
        """Of its content."""
        return hashlib.sha256(self._file(zone).read_bytes()).hexdigest()

    def _file(self, zone):
        return self.shelf / f"{zone.zone_id}.npz"
