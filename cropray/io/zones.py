"""Zones: the study squares, their regions and their split.

The zone is the unit of split and of work. A zone table is a CSV file with the columns
`zone_id region split epsg x_min y_max height width` and, optionally, `season_start` (`2023-01`).
"""

import csv
import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final, Literal, cast, get_args

from cropray.core.errors import ConfigError, InputError
from cropray.core.fingerprint import fingerprint
from cropray.core.grid import Grid
from cropray.io.csv_rows import read_rows
from cropray.io.storage import Location

Split = Literal["train", "test"]
SPLITS: Final[tuple[str, ...]] = get_args(Split)
COLUMNS: Final = ("zone_id", "region", "split", "epsg", "x_min", "y_max", "height", "width")
_SEASON: Final = "season_start"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True)
class Zone:
    """One study square."""

    zone_id: str
    """Letters, digits, `-` and `_`: it becomes a file name."""
    region: str
    split: Split
    """`train` zones are cross-validated; `test` zones are read once, by `evaluate`."""
    grid: Grid
    season_start: str | None = None
    """First month `YYYY-MM` of the zone's season; None: the job's own."""

    def __post_init__(self) -> None:
        if not is_zone_id(self.zone_id):
            raise ValueError(f"zone id '{self.zone_id}' must hold only letters, digits, '-' and '_'")
        if not self.region.strip():
            raise ValueError(f"zone '{self.zone_id}' has no region; any name will do")
        if not all(map(math.isfinite, self.grid.bounds)):
            raise ValueError(f"zone '{self.zone_id}' has its edges at {self.grid.bounds}; they must be numbers, m")
        if self.split not in SPLITS:
            raise ValueError(f"zone '{self.zone_id}' has split '{self.split}'; it must be train or test")
        if self.season_start is not None and not _MONTH.fullmatch(self.season_start):
            raise ValueError(f"zone '{self.zone_id}' has season_start '{self.season_start}'; write YYYY-MM")


def zone_fingerprint(zone: Zone) -> str:
    """SHA-256 of a zone's record."""
    grid = zone.grid
    return fingerprint([zone.zone_id, zone.region, zone.split, zone.season_start, grid.epsg, grid.bounds, grid.shape])


def is_zone_id(text: str) -> bool:
    """Whether a text can name a zone: letters, digits, `-` and `_`, as it becomes a file name."""
    return _ID.fullmatch(text) is not None


def bundled_zones() -> tuple[Zone, ...]:
    """The 40 zones of 10 km × 10 km in 8 regions of France that come with cropray."""
    return read_zones(str(resources.files("cropray").joinpath("data/zones.csv")))


def read_zones(path: str | Location) -> tuple[Zone, ...]:
    """Read a zone table.

    Raises:
        InputError: the file or a column is missing or unreadable, a value is refused, or an id occurs twice.
    """
    rows = read_rows(path, COLUMNS, "zone table", "zone_table")
    _require_season_column(next(iter(rows.values())), path)
    zones = tuple(_zone(row, path, line) for line, row in rows.items())
    twice = [zone_id for zone_id, n in Counter(zone.zone_id for zone in zones).items() if n > 1]
    if twice:
        raise InputError(f"zone table '{path}' names {twice} more than once; every zone_id must be unique")
    for epsg in sorted({zone.grid.epsg for zone in zones}):
        _require_metres(epsg, path)
    return zones


def _require_season_column(names: Iterable[str], path: str | Location) -> None:
    """Other columns are the user's own; one that was meant as the season would go unheard."""
    own = {name.casefold(): name for name in names if name not in COLUMNS}
    near = difflib.get_close_matches(_SEASON, own, n=1)
    if near and _SEASON not in own.values():
        raise InputError(
            f"zone table '{path}' has a column '{own[near[0]]}', which is not read; name it '{_SEASON}' if it is the first "
            f"month of each zone's season, otherwise give it another name"
        )


def _require_metres(epsg: int, path: str | Location) -> None:
    from pyproj import CRS  # noqa: PLC0415  few runs read a table, all load this module
    from pyproj.exceptions import CRSError  # noqa: PLC0415

    try:
        system = CRS.from_epsg(epsg)
    except CRSError:
        raise InputError(
            f"zone table '{path}' names EPSG:{epsg}, which does not exist; write a UTM zone's (326xx)"
        ) from None
    if not system.is_projected or {axis.unit_conversion_factor for axis in system.axis_info} != {1.0}:
        raise InputError(
            f"zone table '{path}' names EPSG:{epsg} ({system.name}), which is not in metres; lay the zones in their UTM "
            f"zone (326xx)"
        )


def write_zones(zones: Sequence[Zone], path: str | Path) -> None:
    """Write a zone table that `read_zones` reads back."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, _SEASON])
        for zone in zones:
            grid = zone.grid
            writer.writerow(
                (
                    *(zone.zone_id, zone.region, zone.split, grid.epsg, f"{grid.x_min:.12g}", f"{grid.y_max:.12g}"),
                    *(grid.height, grid.width, zone.season_start or ""),
                )
            )


def select_zones(zones: Sequence[Zone], wanted: Iterable[str] | None) -> tuple[Zone, ...]:
    """The zones named in `wanted`, in table order; all of them when `wanted` is None.

    Raises:
        ConfigError: a name is not in the table, or there is none.
    """
    if wanted is None:
        return tuple(zones)
    names = set(wanted)
    if not names:
        raise ConfigError("'zones' names no zone; name some, or leave it out to run on all")
    unknown = names - {zone.zone_id for zone in zones}
    if unknown:
        raise ConfigError(f"zones {sorted(unknown)} are not in the zone table; it has {[z.zone_id for z in zones]}")
    return tuple(zone for zone in zones if zone.zone_id in names)


def _zone(row: dict[str, str], path: str | Location, line: int) -> Zone:
    try:
        grid = Grid(int(row["epsg"]), float(row["x_min"]), float(row["y_max"]), int(row["height"]), int(row["width"]))
        return Zone(row["zone_id"], row["region"], cast("Split", row["split"]), grid, row.get(_SEASON) or None)
    except (TypeError, ValueError) as error:
        raise InputError(f"zone table '{path}', line {line}: {error}") from None
