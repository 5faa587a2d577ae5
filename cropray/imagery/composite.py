"""The monthly median: exact, and about as fast as memory can be read.

A median per pixel needs a sort per pixel, and a sort branches on every value. A sorting network does not: it is a fixed
list of compare-and-exchange steps, each on whole rows of pixels, so that one instruction serves many pixels.

Pixels have different numbers of clear observations. The others are replaced by the largest and the smallest value in
turn: as many go to the top of the order as to the bottom, or one more, and the median stays in the middle rows whatever
their number. So the network is cut down to the exchanges that the middle rows depend on.
"""

import functools
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.bands import SCL_CLEAR_MAX, SCL_CLEAR_MIN
from cropray.imagery.kernels import Words, compiled, rounded_mean

MAX_SCENES: Final = 255  # n_obs is uint8
_BLOCK: Final = 2048  # pixels sorted together: 25 rows of 4 KiB stay in the second-level cache
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
        _median_kernel(flat, np.ascontiguousarray(scl).reshape(n_scenes, -1), _network(n_scenes), median, n_obs)
    return median.reshape(n_bands, height, width), n_obs.reshape(height, width)


def median_network(n: int) -> tuple[tuple[int, int], ...]:
    """Exchanges (i, j), i < j, after which positions n//2 - 1 and n//2 of n values hold what a full sort puts there.

    Batcher's odd-even merge sort for any n, without the exchanges that no middle position depends on.

    Source: Knuth, The Art of Computer Programming, vol. 3, 5.2.2, algorithm M.
    """
    needed = {n // 2 - 1, n // 2}
    kept = []
    for low, high in reversed(list(_merge_exchange(n))):
        if low in needed or high in needed:
            kept.append((low, high))
            needed |= {low, high}
    return tuple(reversed(kept))


def _merge_exchange(n: int) -> Iterator[tuple[int, int]]:
    run = 1
    while run < n:
        step = run
        while step >= 1:
            for start in range(step % run, n - step, 2 * step):
                for low in range(start, min(start + step, n - step)):
                    if low // (2 * run) == (low + step) // (2 * run):
                        yield low, low + step
            step //= 2
        run *= 2


@functools.cache
def _network(n: int) -> npt.NDArray[np.int64]:
    return np.array(median_network(n), np.int64).reshape(-1, 2)


def _require_stack(stack: Words, scl: Counts) -> None:
    if stack.ndim != 4 or scl.shape != (stack.shape[0], *stack.shape[2:]):
        raise ValueError(f"needs stack [T, C, H, W] and scl [T, H, W]; got {stack.shape} and {scl.shape}")
    if stack.dtype != np.uint16 or scl.dtype != np.uint8:
        raise ValueError(f"needs a uint16 stack and uint8 scene classes; got {stack.dtype} and {scl.dtype}")
    if len(stack) > MAX_SCENES:
        raise ValueError(f"{len(stack)} scenes in one month; at most {MAX_SCENES} can be counted")


# Below, images are flat: stack [T, C, N], scl [T, N], median [C, N], n_obs [N].


@compiled
def _median_kernel(stack: Words, scl: Counts, network: npt.NDArray[np.int64], median: Words, n_obs: Counts) -> None:
    n_scenes, n_bands, n_pixels = stack.shape
    keep = np.empty((n_scenes, _BLOCK), np.uint16)  # all ones where an observation is clear
    pad = np.empty((n_scenes, _BLOCK), np.uint16)  # what stands in for it where it is not
    rows = np.empty((n_scenes, _BLOCK), np.uint16)  # one band, sorted down the columns
    middle, lower, upper = (n_scenes - 1) // 2, max(n_scenes // 2 - 1, 0), n_scenes // 2
    for start in range(0, n_pixels, _BLOCK):
        stop = min(start + _BLOCK, n_pixels)
        n = stop - start
        next_pad = np.zeros(n, np.uint16)
        for t in range(n_scenes):
            _choose(scl[t, start:stop], keep[t], pad[t], next_pad)
            _count(keep[t], n_obs[start:stop])
        for band in range(n_bands):
            for t in range(n_scenes):
                _copy_or_pad(stack[t, band, start:stop], keep[t], pad[t], rows[t])
            for exchange in range(len(network)):
                _compare_exchange(rows[network[exchange, 0], :n], rows[network[exchange, 1], :n])
            _take_median(rows[middle], rows[lower], rows[upper], n_obs[start:stop], median[band, start:stop])


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


@compiled
def _take_median(middle: Words, lower: Words, upper: Words, n_obs: Counts, median: Words) -> None:
    for p in range(len(median)):
        n = np.uint16(n_obs[p])
        is_odd = np.uint16(0) - (n & np.uint16(1))
        is_even = ~is_odd & (np.uint16(0) - np.uint16(n > 0))
        mean = rounded_mean(lower[p], upper[p])
        median[p] = (middle[p] & is_odd) | (mean & is_even)
