"""Ready cubes: composites that somebody else has made, taken over as a zone's own."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cropray.core.cube import Season
from cropray.imagery.acquire import ZoneAcquisition, store_zone, write_record
from cropray.imagery.scenes import Remarks
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone

ZoneSeason = tuple[Zone, Season]


class CompositeSource(Protocol):
    """Where finished composites come from. Picklable: it is sent to the workers, and opens files there."""

    @property
    def fills(self) -> bool:
        """Whether `read` fills gaps in time."""
        ...

    def survey(self, zones: Sequence[ZoneSeason]) -> Remarks:
        """What a person should know of what every zone will be made from, before any pixel is read: remark → names.

        Raises:
            InputError: a zone has no cube, or one that cannot be used.
        """
        ...

    def read(self, zone: Zone, season: Season) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
        """The season's cube on the zone's grid, as it is to be stored, and its clear observations before gap filling.

        They are [T, C, H, W] uint16 numbers, 0 = no data; [T, H, W] uint8.

        Raises:
            InputError: the cube cannot be read, or it holds values that cannot be stored.
        """
        ...

    def files(self, zone: Zone, season: Season) -> tuple[str, ...]:
        """What a zone's cube is read from."""
        ...

    def fingerprint(self, zone: Zone, season: Season) -> str:
        """Identity of what is read: it changes whenever `read` could give other numbers.

        Raises:
            InputError: a file is not there any more.
        """
        ...


def acquire_cube(source: CompositeSource, zone: Zone, season: Season, workspace: Workspace) -> ZoneAcquisition:
    """Write a zone's composite, observation counts and record from a ready cube, each whole.

    Raises:
        InputError: as `CompositeSource.read`.
    """
    composite, n_obs = source.read(zone, season)
    n_scenes = [int(step.any()) for step in n_obs]
    record = store_zone(zone, season, n_scenes, composite, n_obs, workspace)
    record = replace(record, is_filled=source.fills)
    write_record(workspace, record, source.files(zone, season), {})
    return record
