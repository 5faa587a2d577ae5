"""A source of ready cubes of one's own: a file of NumPy for each zone, [T, C, H, W] uint16, 0 = no data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cropray.core.errors import InputError
from cropray.core.fingerprint import fingerprint
from cropray.imagery.registry import SOURCES, CompositeSettings


@SOURCES.register("toy_cubes")
class ToyCubesSettings(CompositeSettings):
    """What a job writes below `imagery`."""

    source: Literal["toy_cubes"]
    folder: Path
    """Folder of the files."""

    def composites(self):
        """The source, which travels to the workers."""
        return ToyCubes(self.folder)


@dataclass(frozen=True)
class ToyCubes:
    """Reads cubes; `cropray.imagery.cubes.CompositeSource` says what each method owes."""

    folder: Path
    fills: bool = False

    def path(self, zone):
        """File of a zone."""
        return self.folder / f"{zone.zone_id}.npy"

    def survey(self, zones):
        """Refuses zones without a file before anything is read."""
        missing = [zone.zone_id for zone, _season in zones if not self.path(zone).exists()]
        if missing:
            raise InputError(f"{self.folder} has no cube of {', '.join(missing)}; add the files, or set 'zones'")
        return {}

    def read(self, zone, season):
        """The cube, and how often each pixel was seen clear at each step: here once where it has data."""
        cube = np.load(self.path(zone))
        return cube, (cube > 0).all(1).astype(np.uint8)

    def files(self, zone, season):
        """What is read, for the record of the zone."""
        return (str(self.path(zone)),)

    def fingerprint(self, zone, season):
        """Changes when the file does."""
        state = self.path(zone).stat()
        return fingerprint([state.st_size, state.st_mtime_ns])
