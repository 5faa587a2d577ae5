"""ESA's offset: which products hold it, and how it is taken out of their digital numbers.

Products of processing baseline 04.00 and later carry 1000 in every digital number, so that negative reflectance can be
stored. Collection 1 carries it on old dates as well: the baseline decides, not the day of sensing.
"""

import datetime as dt
import math
import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.core.sensors import NODATA, REFLECTANCE_SCALE, Band
from cropray.imagery.kernels import Words, compiled

Baseline = tuple[int, int]

BASELINE_WITH_OFFSET: Final = (4, 0)
BOA_OFFSET: Final = -1000  # digital numbers; ESA, processing baseline 04.00, BOA_ADD_OFFSET of every 10 m band
LEAST_OFFSET: Final = -10_000  # a reflectance of −1
FIRST_DAY_WITH_OFFSET: Final = dt.date(2022, 1, 25)  # ESA: baseline 04.00 was put into operation

_BASELINE: Final = re.compile(r"(?:^|[_.-])N(\d{2})\.?(\d{2})(?=[_.-]|$)")
_MAX_MAJOR: Final = 19  # ESA's are at 5; what else stands there, 99.99 or 00.00, is a catalogue's own processing
_MAX_MAJOR_IN_NAME: Final = 9  # from N1000 on it is rather a latitude
_MAX_MINOR: Final = 89
_VEGETATION: Final = 4  # SCL
_SOIL: Final = 5  # SCL
_VISIBLE: Final = ("B02", "B03", "B04")
_MIN_PIXELS: Final = 100  # pixels; fewer say nothing
_MANY_PIXELS: Final = 100_000
_OFFSET_IS_GONE_BELOW: Final = 900  # digital number of the darkest visible band over land


def is_esas(baseline: Baseline) -> bool:
    """Whether ESA numbers its processing so; nothing follows from another number (99.99, 00.00) for the offset."""
    major, minor = baseline
    return 1 <= major <= _MAX_MAJOR and minor <= _MAX_MINOR


def offset_of_baseline(baseline: Baseline) -> int:
    """Digital numbers to add to a product of one of ESA's baselines."""
    return BOA_OFFSET if baseline >= BASELINE_WITH_OFFSET else 0


def baseline_in_name(name: str) -> Baseline | None:
    """ESA's baseline in a product's name (`N0400`); None where there is none, or one that is not ESA's (`N9999`)."""
    found = [(int(match[1]), int(match[2])) for match in _BASELINE.finditer(name)]
    return next((baseline for baseline in found if is_esas(baseline) and baseline[0] <= _MAX_MAJOR_IN_NAME), None)


def offset_of_scale(scale: float, offset: float) -> int | None:
    """Digital numbers to add to a band that says: reflectance = number × scale + offset.

    None where it says nothing: scale 1 and offset 0 are what a file without such tags has.

    Raises:
        ValueError: its numbers are not reflectance × 10000, or shifted in a way that no product has.
    """
    if (scale, offset) == (1, 0):
        return None
    added = offset / REFLECTANCE_SCALE if math.isclose(scale, REFLECTANCE_SCALE, rel_tol=1e-6) else offset
    is_known = scale == 1 or math.isclose(scale, REFLECTANCE_SCALE, rel_tol=1e-6)
    if not is_known or not math.isclose(added, round(added), abs_tol=1e-3) or not LEAST_OFFSET <= round(added) <= 0:
        raise ValueError(
            f"scale {scale:.15g} and offset {offset:.15g}; needed is reflectance × 10000, which is scale 0.0001 and "
            f"offset 0 or -0.1"
        )
    return round(added)


def visible(bands: Sequence[Band]) -> list[int]:
    """Positions of the bands that `offset_is_gone` looks at: the visible ones, where there is none all."""
    return [i for i, band in enumerate(bands) if band.id in _VISIBLE] or list(range(len(bands)))


def offset_is_gone(bands: Words, scl: npt.NDArray[np.uint8]) -> bool:
    """Whether land is darker than it could be if the numbers [C, H, W] of `visible` bands still held ESA's offset.

    More than half of the vegetation, or of the bare soil where that is most of what there is, must read less than 900 in
    its darkest visible band, which with the offset would be a reflectance below −1 %. Of 102 real scenes without the
    offset, 101 have such vegetation. Every fourth row of large images is enough.
    """
    rows = slice(None, None, 4 if scl.size > _MANY_PIXELS else 1)
    darkest = bands[:, rows].min(axis=0)
    has_data = darkest > NODATA
    vegetation, soil = (darkest[has_data & (scl[rows] == land)] for land in (_VEGETATION, _SOIL))
    return _is_too_dark(vegetation) or (soil.size * 2 > has_data.sum() and _is_too_dark(soil))


def _is_too_dark(darkest: Words) -> bool:
    return bool(darkest.size >= _MIN_PIXELS and (darkest < _OFFSET_IS_GONE_BELOW).sum() * 2 > darkest.size)


def shift(bands: Words, scl: npt.NDArray[np.uint8], offset: int) -> None:
    """Add an offset of 0 or less to [C, H, W] numbers in place, least result 1.

    A number of 0 stays 0, and takes the scene class [H, W] of its pixel away.
    """
    _shift_kernel(bands.reshape(len(bands), -1), scl.reshape(-1), np.uint16(-offset))


@compiled
def _shift_kernel(bands: Words, scl: npt.NDArray[np.uint8], darkening: np.uint16) -> None:
    for band in range(len(bands)):
        _darken(bands[band], darkening)
        _take_class_away(bands[band], scl)


@compiled
def _darken(numbers: Words, amount: np.uint16) -> None:
    for p in range(len(numbers)):
        has_data = np.uint16(0) - np.uint16(numbers[p] > 0)
        numbers[p] = (max(numbers[p], np.uint16(amount + np.uint16(1))) - amount) & has_data


@compiled
def _take_class_away(numbers: Words, scl: npt.NDArray[np.uint8]) -> None:
    for p in range(len(scl)):
        scl[p] &= np.uint8(0) - np.uint8(numbers[p] > 0)
