"""The median of a step of time: exact, and about as fast as memory can be read.

A median per pixel needs a sort per pixel, and a sort branches on every value. A sorting network does not: it is a fixed
list of compare-and-exchange steps, each on whole rows of pixels, so that one instruction serves many pixels.

Pixels have different numbers of clear observations. The others are replaced by the largest and the smallest value in
turn: as many go to the top of the order as to the bottom, or one more, and the median stays in the middle rows whatever
their number. So the network is cut down to the exchanges that the middle rows depend on; and a step may be filled up
with cloudy scenes to a multiple of four, so that its first exchanges are made four and eight rows at a time, in registers.
"""

import functools
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.core.sensors import SCL_CLEAR_MAX, SCL_CLEAR_MIN
from cropray.imagery.kernels import Words, compiled, rounded_mean

MAX_SCENES: Final = 255  # n_obs is uint8
_BLOCK: Final = 1536  # pixels sorted together: their rows stay in the caches, and calls per block cost little
_LATE_RUN: Final = 8  # runs shorter than this are merged in registers
_CLEAR_FIRST: Final = np.uint8(SCL_CLEAR_MIN)
_CLEAR_LAST: Final = np.uint8(SCL_CLEAR_MAX)

Counts = npt.NDArray[np.uint8]  # scene classes and numbers of observations


def monthly_median(stack: Words, scl: Counts) -> tuple[Words, Counts]:
    """Median of the clear observations of each pixel and band.

    Args:
        stack: [T, C, H, W] uint16, digital numbers; T may be 0.
        scl: [T, H, W] uint8, scene classes; 4–7 are clear.

    Returns:
        The median, [C, H, W] uint16: the mean of the two middle values, rounded half up, where their number is
        even; 0 where a pixel has no clear observation. And the number of clear observations, [H, W] uint8.

    Raises:
        ValueError: shapes or types do not fit, or there are more than 255 scenes.

    Source: original study, "monthly median of SCL 4–7"; Earth Engine's `median` reducer for small inputs.
    """
    _require_stack(stack, scl)
    n_scenes, n_bands, height, width = stack.shape
    median = np.zeros((n_bands, height * width), np.uint16)
    n_obs = np.zeros(height * width, np.uint8)
    if n_scenes:
        flat = np.ascontiguousarray(stack).reshape(n_scenes, n_bands, -1)
        flat_scl = np.ascontiguousarray(scl).reshape(n_scenes, -1)
        _median_kernel(flat, flat_scl, _late_exchanges(_n_rows(n_scenes)), median, n_obs)
    return median.reshape(n_bands, height, width), n_obs.reshape(height, width)


def median_network(n: int, first_run: int = 1) -> tuple[tuple[int, int], ...]:
    """Exchanges (i, j), i < j, after which positions n//2 - 1 and n//2 of n values hold what a full sort puts there.

    Batcher's odd-even merge sort for any n, without the exchanges that no middle position depends on. Where runs of
    `first_run` (a power of two) values are sorted already, without those that sort them.

    Source: Knuth, The Art of Computer Programming, vol. 3, 5.2.2, algorithm M.
    """
    needed = {n // 2 - 1, n // 2}
    kept = []
    for low, high in reversed(list(_merge_exchange(n, first_run))):
        if low in needed or high in needed:
            kept.append((low, high))
            needed |= {low, high}
    return tuple(reversed(kept))


def _merge_exchange(n: int, first_run: int) -> Iterator[tuple[int, int]]:
    run = first_run
    while run < n:
        step = run
        while step >= 1:
            for start in range(step % run, n - step, 2 * step):
                for low in range(start, min(start + step, n - step)):
                    if low // (2 * run) == (low + step) // (2 * run):
                        yield low, low + step
            step //= 2
        run *= 2


@compiled
def _n_rows(n_scenes: int) -> int:
    return (n_scenes + 3) // 4 * 4


@functools.cache
def _late_exchanges(n: int) -> npt.NDArray[np.int64]:
    return np.array(median_network(n, _LATE_RUN), np.int64).reshape(-1, 2)


def _require_stack(stack: Words, scl: Counts) -> None:
    if stack.ndim != 4 or scl.shape != (stack.shape[0], *stack.shape[2:]):
        raise ValueError(f"needs stack [T, C, H, W] and scl [T, H, W]; got {stack.shape} and {scl.shape}")
    if stack.dtype != np.uint16 or scl.dtype != np.uint8:
        raise ValueError(f"needs a uint16 stack and uint8 scene classes; got {stack.dtype} and {scl.dtype}")
    if len(stack) > MAX_SCENES:
        raise ValueError(f"{len(stack)} scenes in one step; at most {MAX_SCENES} can be counted")


# Below, images are flat: stack [T, C, N], scl [T, N], median [C, N], n_obs [N].


@compiled
def _median_kernel(stack: Words, scl: Counts, late: npt.NDArray[np.int64], median: Words, n_obs: Counts) -> None:
    n_scenes, n_bands, n_pixels = stack.shape
    n_rows = _n_rows(n_scenes)
    keep = np.empty((n_scenes, _BLOCK), np.uint16)  # all ones where an observation is clear
    pad = np.empty((n_rows, _BLOCK), np.uint16)  # what stands in for it where it is not
    rows = np.empty((n_rows, _BLOCK), np.uint16)  # one band, sorted down the columns
    end_to_end = rows.ravel()
    lower, upper = n_rows // 2 - 1, n_rows // 2
    for start in range(0, n_pixels, _BLOCK):
        stop = min(start + _BLOCK, n_pixels)
        n = stop - start
        next_pad = np.zeros(n, np.uint16)
        for t in range(n_scenes):
            _choose(scl[t, start:stop], keep[t], pad[t], next_pad)
            _count(keep[t], n_obs[start:stop])
        for t in range(n_scenes, n_rows):
            next_pad ^= np.uint16(0xFFFF)
            pad[t, :n] = next_pad
        for band in range(n_bands):
            for t in range(n_scenes):
                _copy_or_pad(stack[t, band, start:stop], keep[t], pad[t], rows[t])
            rows[n_scenes:, :n] = pad[n_scenes:, :n]
            for t in range(0, n_rows, 4):
                _sort_four(end_to_end[t * _BLOCK :], n)
            for t in range(0, n_rows - 7, 8):
                _merge_fours(end_to_end[t * _BLOCK :], n)
            for exchange in range(len(late)):
                _compare_exchange(rows[late[exchange, 0], :n], rows[late[exchange, 1], :n])
            _take_median(rows[lower], rows[upper], n_obs[start:stop], median[band, start:stop])


@compiled
def _choose(scl: Counts, keep: Words, pad: Words, next_pad: Words) -> None:
    for p in range(len(scl)):
        is_clear = np.uint16((scl[p] >= _CLEAR_FIRST) & (scl[p] <= _CLEAR_LAST))
        keep[p] = np.uint16(0) - is_clear
        next_pad[p] ^= ~keep[p]  # largest, smallest, largest, …
        pad[p] = next_pad[p] & ~keep[p]


@compiled
def _count(keep: Words, n_obs: Counts) -> None:
    for p in range(len(n_obs)):
        n_obs[p] += np.uint8(keep[p] & np.uint16(1))


@compiled
def _copy_or_pad(values: Words, keep: Words, pad: Words, row: Words) -> None:
    for p in range(len(values)):
        row[p] = (values[p] & keep[p]) | pad[p]


@compiled
def _compare_exchange(low: Words, high: Words) -> None:
    for p in range(len(low)):
        a, b = low[p], high[p]
        low[p] = min(a, b)
        high[p] = max(a, b)


# Rows of _BLOCK values end to end, the first n of each in use: at constant distances the compiler sees that they are apart.


@compiled
def _sort_four(rows: Words, n: int) -> None:
    for p in range(n):
        a, b, c, d = rows[p], rows[p + _BLOCK], rows[p + 2 * _BLOCK], rows[p + 3 * _BLOCK]
        a, b = min(a, b), max(a, b)
        c, d = min(c, d), max(c, d)
        a, c = min(a, c), max(a, c)
        b, d = min(b, d), max(b, d)
        b, c = min(b, c), max(b, c)
        rows[p], rows[p + _BLOCK], rows[p + 2 * _BLOCK], rows[p + 3 * _BLOCK] = a, b, c, d


@compiled
def _merge_fours(rows: Words, n: int) -> None:
    for p in range(n):
        a, b, c, d = rows[p], rows[p + _BLOCK], rows[p + 2 * _BLOCK], rows[p + 3 * _BLOCK]
        e, f, g, h = rows[p + 4 * _BLOCK], rows[p + 5 * _BLOCK], rows[p + 6 * _BLOCK], rows[p + 7 * _BLOCK]
        a, e = min(a, e), max(a, e)
        b, f = min(b, f), max(b, f)
        c, g = min(c, g), max(c, g)
        d, h = min(d, h), max(d, h)
        c, e = min(c, e), max(c, e)
        d, f = min(d, f), max(d, f)
        b, c = min(b, c), max(b, c)
        d, e = min(d, e), max(d, e)
        f, g = min(f, g), max(f, g)
        rows[p], rows[p + _BLOCK], rows[p + 2 * _BLOCK], rows[p + 3 * _BLOCK] = a, b, c, d
        rows[p + 4 * _BLOCK], rows[p + 5 * _BLOCK], rows[p + 6 * _BLOCK], rows[p + 7 * _BLOCK] = e, f, g, h


@compiled
def _take_median(lower: Words, upper: Words, n_obs: Counts, median: Words) -> None:
    for p in range(len(median)):
        n = np.uint16(n_obs[p])
        is_odd = np.uint16(0) - (n & np.uint16(1))  # as many rows are empty below as above, and one more above
        is_even = ~is_odd & (np.uint16(0) - np.uint16(n > 0))
        median[p] = (lower[p] & is_odd) | (rounded_mean(lower[p], upper[p]) & is_even)
