"""The regions of the drawn landscape: crop mix, soil, field size and weather of each.

Crop shares are rounded from what the parcel register shows around the study's zones; over all
regions they add up to the imbalance of the study's labels (wheat, maize, meadow and vines first,
a long tail below one per cent).
"""

from dataclasses import dataclass
from typing import Final

EXCLUDED_CODE: Final = "SNE"  # not farmed this year: known to the legend, and excluded from it
UNKNOWN_CODE: Final = "XYZ"  # in no code table; one parcel of every landscape carries it

Spectrum = tuple[float, float, float, float]
"""Surface reflectance, 0–1, in the order of `spectra.DESCRIBED`."""

_LOAM: Final[Spectrum] = (0.075, 0.105, 0.135, 0.205)
_CHALKY: Final[Spectrum] = (0.105, 0.145, 0.180, 0.260)
_VOLCANIC: Final[Spectrum] = (0.060, 0.080, 0.100, 0.155)
_RED_CLAY: Final[Spectrum] = (0.080, 0.120, 0.185, 0.270)


@dataclass(frozen=True, slots=True)
class RegionStyle:
    """How one region is drawn."""

    region: str
    """Name in the bundled zone table."""
    phenology_shift_days: float
    """Days by which crops are later than in the Paris basin; negative in the south."""
    drought: float
    """Share of the green cover that grassland loses in August, 0–1."""
    parcel_ha: float
    """Median area of a parcel, ha (smaller than in France: zones are small)."""
    rows_deg: float
    """Direction of the field rows, degrees from east."""
    cloudiness: float
    """Mean cloud cover of a scene that is not overcast, winter and summer, 0–1."""
    soil: Spectrum
    n_zones_with_test: int
    """Zones to take, in table order, until the region's test zone is among them."""
    crop_shares: tuple[tuple[str, float], ...]
    """(RPG code, relative frequency among parcels)."""


REGION_STYLES: Final = (
    RegionStyle("picardie", 7, 0.05, 1.3, 18, 0.38, _LOAM, 1, (
        ("BTH", 38), ("BTN", 19), ("CZH", 8), ("PTC", 9), ("MIS", 9), ("ORH", 6), ("ORP", 4), ("PPR", 3), ("PPH", 4),
    )),
    RegionStyle("beauce", 0, 0.15, 1.5, -12, 0.34, _CHALKY, 1, (
        ("BTH", 38), ("CZH", 16), ("BDH", 8), ("ORH", 9), ("ORP", 7), ("MIS", 9), ("BTN", 4), ("PPR", 3), ("TRN", 3),
        ("PPH", 3),
    )),
    RegionStyle("bretagne", 2, 0.05, 0.7, 35, 0.42, _LOAM, 1, (
        ("MIS", 36), ("BTH", 22), ("PTR", 18), ("PPH", 12), ("ORH", 5), ("TTH", 4), ("CZH", 3),
    )),
    RegionStyle("gascogne", -11, 0.30, 1.0, 50, 0.30, _CHALKY, 1, (
        ("BTH", 23), ("TRN", 22), ("MIS", 16), ("SOJ", 9), ("PPH", 9), ("CZH", 6), ("BDH", 5), ("ORH", 4), ("LUZ", 3),
        ("JAC", 3),
    )),
    RegionStyle("comtat", -14, 0.50, 0.7, 8, 0.24, _RED_CLAY, 2, (
        ("VRC", 38), ("PPH", 11), ("BDH", 8), ("VRG", 9), ("LAV", 8), ("LUZ", 7), ("JAC", 6), ("TRN", 5), ("BTH", 5),
        (EXCLUDED_CODE, 3),
    )),
    RegionStyle("limagne", 2, 0.20, 1.0, -30, 0.32, _VOLCANIC, 2, (
        ("BTH", 34), ("MIS", 22), ("PPH", 14), ("TRN", 9), ("BTN", 7), ("CZH", 5), ("ORH", 4), ("TTH", 3), ("LUZ", 2),
    )),
    RegionStyle("alsace", 4, 0.10, 0.8, -55, 0.36, _LOAM, 1, (
        ("MIS", 48), ("BTH", 20), ("PPH", 9), ("SOJ", 8), ("BTN", 6), ("VRC", 4), ("TTH", 3), (EXCLUDED_CODE, 2),
    )),
    RegionStyle("languedoc", -17, 0.55, 0.7, 25, 0.22, _RED_CLAY, 1, (
        ("VRC", 54), ("BDH", 11), ("PPH", 9), ("JAC", 8), ("LUZ", 6), ("TRN", 5), ("VRG", 5), (EXCLUDED_CODE, 2),
    )),
)  # fmt: skip
