"""Regions: the towns around which zones are chosen.

A region table is a CSV file with the columns `region lon lat` (degrees, WGS 84) and, optionally, `epsg` (the system of
its zones, in metres) and `town` (a name for the picture).
"""

import math
import re
import unicodedata
from dataclasses import dataclass
from importlib import resources
from typing import Final

from pyproj import CRS
from pyproj.exceptions import CRSError

from cropray.core.errors import InputError
from cropray.io.csv_rows import read_rows
from cropray.io.storage import Location
from cropray.io.systems import between

COLUMNS: Final = ("region", "lon", "lat")


@dataclass(frozen=True, slots=True)
class Region:
    """One region and its town."""

    region: str
    lon: float
    """Longitude of the town, degrees east."""
    lat: float
    """Latitude of the town, degrees north."""
    epsg: int
    """System of the region's zones, in metres."""
    town: str
    """Name to show; the region's where the table has none."""
    stays_in_strip: bool = True
    """Whether zones stay within the town's own UTM strip of 6°; not where the table names the system."""

    def __post_init__(self) -> None:
        if not self.slug:
            raise ValueError(f"region '{self.region}' must have a name with letters or digits")
        if not (-180 <= self.lon <= 180 and -80 <= self.lat <= 84):  # where UTM is defined
            raise ValueError(f"region '{self.region}' lies at lon {self.lon:g}, lat {self.lat:g}: no place in UTM")
        system = CRS.from_epsg(self.epsg)
        if not system.is_projected or system.axis_info[0].unit_name != "metre":
            raise ValueError(f"region '{self.region}' has EPSG:{self.epsg}, which is no projected system in metres")

    @property
    def slug(self) -> str:
        """The name in letters, digits and `-`: the head of its zones' ids."""
        plain = unicodedata.normalize("NFKD", self.region).encode("ascii", "ignore").decode()
        return re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-").lower()

    @property
    def town_m(self) -> tuple[int, int]:
        """(x, y) of the town in the zones' system, whole metres: distances are compared exactly."""
        x, y = between(4326, self.epsg).transform(self.lon, self.lat)
        return round(x), round(y)


def utm_epsg(lon: float, lat: float) -> int:
    """EPSG code of the UTM strip of a place."""
    strip = min(math.floor((lon + 180) / 6) + 1, 60)
    return (32600 if lat >= 0 else 32700) + strip


def bundled_regions() -> tuple[Region, ...]:
    """The 8 regions of France that come with cropray."""
    return read_regions(str(resources.files("cropray").joinpath("data/regions.csv")))


def read_regions(path: str | Location) -> tuple[Region, ...]:
    """Read a region table.

    Raises:
        InputError: the file or a column is missing, a value is refused, or two regions would name the same zones.
    """
    rows = read_rows(path, COLUMNS, "region table", "zone_selection.region_table")
    regions = tuple(_region(row, path, line) for line, row in rows.items())
    slugs: dict[str, str] = {}
    for region in regions:
        if region.slug in slugs:
            raise InputError(
                f"region table '{path}' has '{slugs[region.slug]}' and '{region.region}', whose zones would both be "
                f"called '{region.slug}-1' …; give every region a name of its own"
            )
        slugs[region.slug] = region.region
    return regions


def _region(row: dict[str, str], path: str | Location, line: int) -> Region:
    try:
        name, lon, lat, given = row["region"], float(row["lon"]), float(row["lat"]), row.get("epsg")
        epsg = int(given) if given else utm_epsg(lon, lat)
        return Region(name, lon, lat, epsg, row.get("town") or name, not given)
    except (OverflowError, ValueError, CRSError) as error:
        raise InputError(f"region table '{path}', line {line}: {error}") from None
