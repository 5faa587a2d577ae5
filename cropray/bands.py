"""Sentinel-2 bands, scene classes, and the order of the 48 features.

Band ids are ESA's (`B02`); Earth Engine's (`B2`) appear only at that edge. Feature columns are
named `<band>_<position>`: band first, then the position 01–12 of the month in the season.
"""

from dataclasses import dataclass
from typing import Final

N_MONTHS: Final = 12  # length of a season; months are positions 01–12 from its first month
REFLECTANCE_SCALE: Final = 1e-4  # digital number → surface reflectance (Sentinel-2 L2A, harmonised)
NODATA: Final = 0  # Sentinel-2 L2A: digital number 0 is no data
SATURATED: Final = 65_535  # Sentinel-2 L2A: special value SATURATED; a number that is none


@dataclass(frozen=True, slots=True)
class Band:
    """One spectral band of Sentinel-2's MSI."""

    id: str
    """ESA id, `B02`."""
    earth_engine_id: str
    """Earth Engine asset band, `B2`."""
    name: str
    wavelength_nm: float
    """Central wavelength of Sentinel-2A, nm."""
    resolution_m: int


BANDS: Final = (
    Band("B02", "B2", "blue", 492.4, 10),
    Band("B03", "B3", "green", 559.8, 10),
    Band("B04", "B4", "red", 664.6, 10),
    Band("B08", "B8", "near infrared", 832.8, 10),
)
BAND_IDS: Final = tuple(band.id for band in BANDS)
N_BANDS: Final = len(BANDS)

# Source: ESA L2A scene classification; the study keeps vegetation, bare soil, water, unclassified.
SCL_CLEAR_MIN: Final = 4
SCL_CLEAR_MAX: Final = 7
SCL_NODATA: Final = 0

FEATURE_COLUMNS: Final = tuple(f"{band}_{month:02d}" for band in BAND_IDS for month in range(1, N_MONTHS + 1))
N_FEATURES: Final = len(FEATURE_COLUMNS)  # 48
