"""Bands that sensors measure, and how stored numbers become physical values.

Sources: ESA, Sentinel-2 Products Specification Document (Sentinel-2A central wavelengths, resolutions) and L2A scene
classification; ESA, Sentinel-1 Product Specification. Band ids are ESA's (`B02`); the names of other catalogues
(`B2` at Earth Engine) appear only at their edge.
"""

from dataclasses import dataclass
from typing import Final

from cropray.core.registry import Catalogue

REFLECTANCE_SCALE: Final = 1e-4  # digital number → surface reflectance (Sentinel-2 L2A, harmonised)
ROLES: Final = {
    "blue": "blue", "green": "green", "red": "red", "nir": "near infrared",
    "swir1": "short-wave infrared 1", "swir2": "short-wave infrared 2",
}  # fmt: skip
"""What features call a band, whatever its id → its name for people, in the tables below."""
NODATA: Final = 0  # of every stored number: no data
LARGEST: Final = 65_535  # of a stored number
SATURATED: Final = 65_535  # Sentinel-2 L2A: special value SATURATED; a number that is none
SCL_CLEAR_MIN: Final = 4  # ESA scene classes 4–7: vegetation, bare soil, water, unclassified; the study keeps these
SCL_CLEAR_MAX: Final = 7
SCL_NODATA: Final = 0


@dataclass(frozen=True, slots=True)
class Band:
    """One band of a cube. A stored number n > 0 is the value `n · scale + offset` in `unit`; 0 is no data."""

    id: str
    """`B02`; letters, digits and `-`, unique in a cube."""
    unit: str
    """`reflectance`, `dB`, or a word of the user's."""
    scale: float
    offset: float
    name: str = ""
    """For people."""
    wavelength_nm: float | None = None
    """Central wavelength; None: not optical."""
    resolution_m: float | None = None
    """Of the sensor; coarser bands are resampled by nearest neighbour. None: not known."""
    earth_engine_id: str = ""
    """Name of the band in Earth Engine's collection of the sensor."""

    def means_the_same(self, other: "Band") -> bool:
        """Whether a number of the one is the same value of the other."""
        return (self.id, self.unit, self.scale, self.offset) == (other.id, other.unit, other.scale, other.offset)

    @property
    def is_plain_reflectance(self) -> bool:
        """Whether its numbers are reflectance × 10 000, as scenes of Sentinel-2 hold it."""
        return (self.unit, self.scale, self.offset) == ("reflectance", REFLECTANCE_SCALE, 0.0)


@dataclass(frozen=True, slots=True)
class Sensor:
    """What can be asked of a source by the sensor's name."""

    name: str
    bands: tuple[Band, ...]

    def band(self, band_id: str) -> Band | None:
        """The band of an id; None: the sensor has none."""
        return next((band for band in self.bands if band.id == band_id), None)


def _optical(band_id: str, name: str, wavelength_nm: float, resolution_m: float) -> Band:
    earth_engine_id = "B8A" if band_id == "B8A" else f"B{int(band_id[1:])}"
    return Band(band_id, "reflectance", REFLECTANCE_SCALE, 0.0, name, wavelength_nm, resolution_m, earth_engine_id)


def _backscatter(polarisation: str) -> Band:
    # 0.002 dB from −80 dB on: −79.998 … 51.07 dB, finer than any speckle and wider than any surface.
    return Band(polarisation, "dB", 0.002, -80.0, f"{polarisation} backscatter", None, 10, polarisation)


SENTINEL_2: Final = Sensor(
    "sentinel-2",
    (
        _optical("B02", "blue", 492.4, 10),
        _optical("B03", "green", 559.8, 10),
        _optical("B04", "red", 664.6, 10),
        _optical("B05", "red edge 1", 704.1, 20),
        _optical("B06", "red edge 2", 740.5, 20),
        _optical("B07", "red edge 3", 782.8, 20),
        _optical("B08", "near infrared", 832.8, 10),
        _optical("B8A", "narrow near infrared", 864.7, 20),
        _optical("B11", "short-wave infrared 1", 1613.7, 20),
        _optical("B12", "short-wave infrared 2", 2202.4, 20),
    ),
)
SENTINEL_1: Final = Sensor("sentinel-1", (_backscatter("VV"), _backscatter("VH")))
SENSORS: Final = Catalogue("sensor", (SENTINEL_2, SENTINEL_1), lambda sensor: sensor.name)
"""All sensors; `SENSORS.add` takes another."""


def known_band(band_id: str) -> Band | None:
    """The band of this id, of any sensor; None: no sensor has it, and a job has to say what it is."""
    return next((band for sensor in SENSORS if (band := sensor.band(band_id)) is not None), None)
