"""What the name of a scene file says: when it was sensed and processed, of which tile, with ESA's offset or without."""

import datetime as dt
import functools
import re
from dataclasses import dataclass
from typing import Final

from cropray.core.errors import InputError
from cropray.imagery.offsets import (
    BOA_OFFSET,
    FIRST_DAY_WITH_OFFSET,
    Baseline,
    baseline_in_name,
    offset_of_baseline,
)
from cropray.io.storage import Location, relative

_SENSED: Final = re.compile(r"_V(\d{8}T\d{6})")  # in ESA's names until 2016 the time of processing stands before it
_INSTANT: Final = re.compile(r"\d{8}T\d{6}")
_TILE: Final = re.compile(r"(?:^|_)T?(\d{2}[C-X][A-Z]{2})(?=[_.-]|$)")


@dataclass(frozen=True, slots=True)
class FileName:
    """The name of a scene file, understood."""

    path: Location
    acquired: dt.datetime
    """Start of sensing, UTC: what ESA's old names mark by `V`, else the first instant in the name."""
    last_instant: str
    """`YYYYMMDDTHHMMSS`; in ESA's names the time of processing."""
    baseline: Baseline | None
    """ESA's processing baseline in the name of the file or of a folder above it."""
    mgrs_tile: str
    """Empty where the name says none."""

    @property
    def version(self) -> tuple[Baseline, str]:
        """Greater for a newer processing."""
        return self.baseline or (0, 0), self.last_instant


@functools.lru_cache(maxsize=100_000)
def understand_name(path: Location, folder: Location) -> FileName:
    """Read the name of a file below a folder.

    Raises:
        InputError: it holds no instant.
    """
    instants, sensed = _INSTANT.findall(path.name), _SENSED.findall(path.name)
    try:
        acquired = dt.datetime.strptime(next(iter([*sensed, *instants]), ""), "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
    except ValueError:
        raise InputError(
            f"file '{path}' has no date in its name; a scene is named like 'S2_area_20230714T105031.tif': "
            f"rename it, or narrow 'pattern' so that it is left out"
        ) from None
    names = [folder.name, *relative(path, folder).split("/")]
    baseline = next((found for name in reversed(names) if (found := baseline_in_name(name))), None)
    tile = _TILE.search(path.stem)
    return FileName(path, acquired, max(instants), baseline, tile[1] if tile else "")


def says_nothing_of_offset(name: FileName, tagged: int | None) -> bool:
    """Whether neither the name nor the tags of a scene file say if ESA's offset is in it."""
    return name.baseline is None and tagged is None


def offset_of_file(name: FileName, tagged: int | None) -> int:
    """Digital numbers to add to a scene file, by its name and what its scale and offset tags say; None: nothing.

    Raises:
        InputError: name and tags contradict each other, or neither says anything and the offset may be there.
    """
    named = None if name.baseline is None else offset_of_baseline(name.baseline)
    if named is not None and tagged not in {None, named}:
        raise InputError(
            f"scene '{name.path}' has two offsets: {_in_name(name)} means {named} digital numbers, its scale and offset "
            f"tags mean {tagged}; mend the tags (`gdal_edit.py -offset`), or set 'imagery.offset' for all scenes"
        )
    if tagged is not None:
        return tagged
    if named is not None:
        return named
    if name.last_instant < f"{FIRST_DAY_WITH_OFFSET:%Y%m%d}":
        return 0
    raise InputError(
        f"scene '{name.path}' does not say whether its numbers hold ESA's offset of {-BOA_OFFSET}, as products of "
        f"baseline 04.00 do since {FIRST_DAY_WITH_OFFSET}: it has no scale and offset tags, and no baseline like 'N0400' "
        f"in its name; set 'imagery.offset' to 0 (harmonised, offset taken out) or {BOA_OFFSET} (as ESA delivers), or "
        f"tag each file (`gdal_edit.py -scale 0.0001 -offset -0.1`)"
    )


def _in_name(name: FileName) -> str:
    major, minor = name.baseline or (0, 0)
    return f"baseline N{major:02d}{minor:02d} in its name"
