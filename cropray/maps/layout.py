"""How large a window the model reads at once: as little as possible computed twice, within the memory of a task."""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Final

from cropray.cluster.resources import GB
from cropray.training.crop_model import TilePredictor

LEAST_WINDOW_PX: Final = 256  # smaller ones save little memory and cost more calls
PROCESS_BYTES: Final = 0.7e9  # libraries, weights, the buffers of one call
NUMBER_BYTES: Final = 4  # of a band and step of a pixel of the zone, in its composite and its map


def choose_window(shape: tuple[int, int], model: TilePredictor, task_bytes: float) -> tuple[int, int]:
    """The window with which a zone takes the fewest computed pixels.

    Where a zone is cut, margins are computed twice: a zone of 1000 × 1000 pixels and a network with a margin of 160
    pixels take 1.00 million pixels in one piece, 1.32 in two, 3.84 in windows of 512 pixels. In one piece that is 29 s of
    one CPU for the study's network. The task may take so many bytes of memory; inf: enough.

    Returns:
        Most rows and columns of a window: the smallest that computes least among those that the memory holds; where
        it holds none, the smallest of all.
    """
    room = task_bytes - PROCESS_BYTES - NUMBER_BYTES * model.cube.n_features * shape[0] * shape[1]
    rows, columns = (tuple(_sides(length, model.margin_px, model.stride_px)) for length in shape)
    choices = [(h, w, n_rows * n_columns) for h, n_rows in rows for w, n_columns in columns]
    fitting = [choice for choice in choices if choice[0] * choice[1] * model.bytes_per_px <= room]
    if fitting:
        height, width, _ = min(fitting, key=lambda choice: (choice[2], choice[0] * choice[1]))
    else:
        height, width, _ = min(choices, key=lambda choice: choice[0] * choice[1])
    return height, width


def window_note(windows: Iterable[tuple[int, int]], model: TilePredictor, task_bytes: float) -> str:
    """What windows of a run take, in words; where that is more than a task may take, what to change."""
    height, width = max(windows, key=lambda window: window[0] * window[1])
    need = PROCESS_BYTES + height * width * model.bytes_per_px
    note = f"the model reads up to {height} × {width} pixels at once: {need / GB:.2g} GB"
    if need <= task_bytes:
        return note
    return (
        f"{note}, where a task's share of the memory is {task_bytes / GB:.2g} GB; if tasks are killed, lower "
        f"cluster.num_cpus (fewer tasks at a time) or map.window_px"
    )


def _sides(length: int, margin_px: int, stride_px: int) -> Iterator[tuple[int, int]]:
    """(side of a window, pixels computed along the axis) for 1, 2, … windows along one axis."""
    yield length, length
    least = max(3 * margin_px, LEAST_WINDOW_PX)
    for n in itertools.count(2):
        computed = length + 2 * margin_px * (n - 1)
        side = math.ceil(computed / n / stride_px) * stride_px
        if side < least or side >= length:
            return
        yield side, computed
