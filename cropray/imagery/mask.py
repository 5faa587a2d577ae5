"""Which observations may be used, by Sentinel-2's scene classification (SCL)."""

from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.bands import SCL_CLEAR_MAX, SCL_CLEAR_MIN

_FIRST: Final = np.uint8(SCL_CLEAR_MIN)
_SPAN: Final = np.uint8(SCL_CLEAR_MAX - SCL_CLEAR_MIN)


def clear(scl: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Whether each observation is vegetation, bare soil, water or unclassified.

    Args:
        scl: any shape, uint8 scene classes 0–11.

    Returns:
        Same shape, true where the class is 4–7.
    """
    return (scl - _FIRST) <= _SPAN  # classes below 4 wrap around to 252 and more: one comparison serves both ends
