"""Filling steps without a clear observation from their neighbours in time."""

from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.imagery.kernels import Words, compiled, rounded_mean

_BLOCK: Final = 4096  # pixels filled together: 12 steps of one band, 96 KiB, stay in the second-level cache


def fill_gaps(composites: Words, valid: npt.NDArray[np.bool_]) -> Words:
    """Fill each gap with the mean of the nearest valid step before and after it.

    A gap with valid steps on one side only takes that side's nearest; a pixel without any valid step stays 0.
    Only values that were observed are read, never values that were filled. Where the study's rule (mean of the
    month before and the month after) is defined, the result equals it.

    Args:
        composites: [M, C, H, W] uint16, medians in time order; values where `valid` is false are not read.
        valid: [M, H, W] bool, true where a step was observed.

    Returns:
        [M, C, H, W] uint16, a new array; means are rounded half up.

    Raises:
        ValueError: shapes or types do not fit.

    Source: original study, "Data cleaning"; extended to gaps of several steps, of any length.
    """
    if composites.ndim != 4 or valid.shape != (composites.shape[0], *composites.shape[2:]):
        raise ValueError(f"needs composites [M, C, H, W], valid [M, H, W]; got {composites.shape}, {valid.shape}")
    if composites.dtype != np.uint16 or valid.dtype != np.bool_:
        raise ValueError(f"needs uint16 composites and a bool mask; got {composites.dtype} and {valid.dtype}")
    n_months, n_bands, height, width = composites.shape
    filled = np.empty((n_months, n_bands, height * width), np.uint16)
    if n_months:
        flat = np.ascontiguousarray(composites).reshape(n_months, n_bands, -1)
        _fill_kernel(flat, np.ascontiguousarray(valid).reshape(n_months, -1), filled)
    return filled.reshape(composites.shape)


# Below, images are flat: values and filled [M, C, N], valid [M, N].


@compiled
def _fill_kernel(values: Words, valid: npt.NDArray[np.bool_], filled: Words) -> None:
    n_months, n_bands, n_pixels = values.shape
    observed = np.empty((n_months, _BLOCK), np.uint16)  # all ones where a month is valid
    carried = np.empty(_BLOCK, np.uint16)
    for start in range(0, n_pixels, _BLOCK):
        stop = min(start + _BLOCK, n_pixels)
        for m in range(n_months):
            _spread(valid[m, start:stop], observed[m])
        for band in range(n_bands):
            carried[:] = 0
            for m in range(n_months):  # the last valid value of all: what stands "after" the end
                _carry(values[m, band, start:stop], observed[m], carried)
            for m in range(n_months - 1, -1, -1):  # the value itself, or the next valid one after it
                _carry_and_keep(values[m, band, start:stop], observed[m], carried, filled[m, band, start:stop])
            for m in range(n_months):  # `carried` is now the first valid value: what stands "before" the start
                _carry_and_average(values[m, band, start:stop], observed[m], carried, filled[m, band, start:stop])


@compiled
def _spread(valid: npt.NDArray[np.bool_], observed: Words) -> None:
    for p in range(len(valid)):
        observed[p] = np.uint16(0) - np.uint16(valid[p])


@compiled
def _carry(values: Words, observed: Words, carried: Words) -> None:
    for p in range(len(values)):
        carried[p] = (values[p] & observed[p]) | (carried[p] & ~observed[p])


@compiled
def _carry_and_keep(values: Words, observed: Words, carried: Words, filled: Words) -> None:
    for p in range(len(values)):
        carried[p] = (values[p] & observed[p]) | (carried[p] & ~observed[p])
        filled[p] = carried[p]


@compiled
def _carry_and_average(values: Words, observed: Words, carried: Words, filled: Words) -> None:
    for p in range(len(values)):
        before = (values[p] & observed[p]) | (carried[p] & ~observed[p])
        after = filled[p]
        carried[p] = before
        filled[p] = rounded_mean(before, after)
