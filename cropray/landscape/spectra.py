"""Spectra beyond the four bands in which canopies and soils are described: what red edge and short waves show of them.

Every other band is a linear mixture of those four, so that a mixture of canopy and ground mixes in all bands alike. The
weights follow typical spectra (green leaves: a steep rise between red and near infrared, water absorption in the short waves;
dry soil and straw: a slow rise that goes on into the short waves), not measurements.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.core.cube import STUDY_CUBE
from cropray.core.sensors import SENTINEL_2, Band

Floats = npt.NDArray[np.float64]

DESCRIBED: Final = STUDY_CUBE.band_ids
"""Bands of the spectra of canopies, soils and clouds."""
BAND_IDS: Final = tuple(band.id for band in SENTINEL_2.bands)
DERIVED: Final = tuple(band_id for band_id in BAND_IDS if band_id not in DESCRIBED)

# (weight of red B04, weight of near infrared B08) of each derived band.
_GREEN: Final = {
    "B05": (0.90, 0.17), "B06": (0.35, 0.66), "B07": (0.05, 0.93), "B8A": (0.0, 1.02), "B11": (0.60, 0.42), "B12": (0.70, 0.17),
}  # fmt: skip
_DRY: Final = {
    "B05": (0.80, 0.18), "B06": (0.55, 0.42), "B07": (0.22, 0.78), "B8A": (-0.15, 1.14), "B11": (-0.55, 1.80), "B12": (-0.30, 1.40),
}  # fmt: skip
_WHITE: Final = {
    "B05": (0.70, 0.27), "B06": (0.40, 0.55), "B07": (0.15, 0.82), "B8A": (0.0, 0.98), "B11": (0.0, 0.62), "B12": (0.0, 0.45),
}  # fmt: skip
_RED, _NEAR_INFRARED = DESCRIBED.index("B04"), DESCRIBED.index("B08")


@dataclass(frozen=True, slots=True)
class Spectra:
    """Colours that are the same for every landscape, in some bands."""

    straw: Floats
    cloud: Floats
    """Of a thick one."""
    cirrus: Floats
    haze: Floats
    """Standard deviation of a scene's offset."""


def green(described: Floats) -> Floats:
    """[…, 4] reflectance of green leaves, or what flowers add → […, 6] in the derived bands."""
    return _mixed(described, _GREEN)


def dry(described: Floats) -> Floats:
    """[…, 4] reflectance of soil or straw → […, 6] in the derived bands."""
    return _mixed(described, _DRY)


IN_DESCRIBED: Final = Spectra(
    straw=np.array([0.085, 0.130, 0.175, 0.300]),  # cut stubble and dry grass
    cloud=np.array([0.52, 0.53, 0.54, 0.60]),
    cirrus=np.array([0.17, 0.17, 0.17, 0.22]),
    haze=np.array([0.012, 0.008, 0.005, 0.003]),
)


def _mixed(described: Floats, weights: dict[str, tuple[float, float]]) -> Floats:
    red, near = described[..., _RED], described[..., _NEAR_INFRARED]
    return np.stack([weights[band][0] * red + weights[band][1] * near for band in DERIVED], axis=-1)


IN_DERIVED: Final = Spectra(
    straw=dry(IN_DESCRIBED.straw),
    cloud=_mixed(IN_DESCRIBED.cloud, _WHITE),
    cirrus=_mixed(IN_DESCRIBED.cirrus, _WHITE),
    haze=np.array([0.0045, 0.004, 0.0035, 0.003, 0.0015, 0.001]),
)


def bands_of(band_ids: Sequence[str]) -> tuple[Band, ...]:
    """The bands of some ids, in their order.

    Raises:
        ValueError: the landscape is not drawn in one of them.
    """
    unknown = sorted(set(band_ids) - set(BAND_IDS))
    if unknown or not band_ids or len(set(band_ids)) < len(band_ids):
        raise ValueError(f"bands are {list(band_ids)}; draw some of {', '.join(BAND_IDS)}, each once")
    found = {band.id: band for band in SENTINEL_2.bands}
    return tuple(found[band_id] for band_id in band_ids)
