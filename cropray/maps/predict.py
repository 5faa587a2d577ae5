"""A whole zone, predicted by overlapping windows whose inner parts tile it. Needs numpy and torch only."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from cropray.bands import NODATA
from cropray.grid import Window
from cropray.training.tiles import IGNORE

if TYPE_CHECKING:
    from cropray.maps.models import Probabilities, TilePredictor

MAP_NODATA: Final = IGNORE  # a pixel that was never seen clear has no prediction

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ZoneMap:
    """The map of one zone; every array is [H, W] uint8."""

    class_id: Bytes
    """Legend class id of the likeliest class, 255 = no data."""
    confidence: Bytes
    """Its probability, %, 255 = no data."""
    second_id: Bytes
    """Legend class id of the second likeliest class, 255 = no data."""
    n_clear: Bytes
    """Months with at least one clear observation, 0–12."""


def predict_zone(
    model: "TilePredictor", composite: npt.NDArray[np.uint16], n_obs: npt.NDArray[np.uint8], window_px: int
) -> ZoneMap:
    """Map a zone; the result does not depend on how it is cut into windows.

    Args:
        model: a trained model with at least two classes.
        composite: [T, C, H, W] digital numbers, 0 = no data.
        n_obs: [T, H, W] clear observations per month.
        window_px: most pixels per side that the model reads at once.

    Raises:
        ValueError: the windows are too small for the model's margin.
    """
    shape = n_obs.shape[1:]
    layers = np.full((3, *shape), MAP_NODATA, np.uint8)
    legend_ids = np.array([crop.id for crop in model.classes], np.uint8)
    for outer, core in windows((shape[0], shape[1]), window_px, model.margin_px, model.stride_px):
        probabilities = model.predict_tiles(composite[(None, ..., *outer.slices)])[0]
        inner = Window(core.row - outer.row, core.col - outer.col, core.height, core.width)
        layers[(slice(None), *core.slices)] = _rank(probabilities[(slice(None), *inner.slices)], legend_ids)
    layers[:, (composite == NODATA).all((0, 1))] = MAP_NODATA
    class_id, confidence, second_id = layers
    return ZoneMap(class_id, confidence, second_id, (n_obs > 0).sum(0, dtype=np.uint8))


def windows(shape: tuple[int, int], window_px: int, margin_px: int, stride_px: int) -> Iterator[tuple[Window, Window]]:
    """Windows to read, and the part of each whose prediction is kept.

    Args:
        shape: rows and columns of the image.
        window_px: most rows and columns of a window.
        margin_px: how far kept pixels stay from an edge where the image is cut; a multiple of the stride.
        stride_px: windows start at multiples of this.

    Yields:
        (window, kept part), row by row; the kept parts cover the image once.

    Raises:
        ValueError: margins leave nothing of a window.
    """
    rows = tuple(_spans(shape[0], window_px, margin_px, stride_px))
    columns = tuple(_spans(shape[1], window_px, margin_px, stride_px))
    for top, bottom, first_row, end_row in rows:
        for left, right, first_col, end_col in columns:
            outer = Window(top, left, bottom - top, right - left)
            yield outer, Window(first_row, first_col, end_row - first_row, end_col - first_col)


def _spans(length: int, window_px: int, margin_px: int, stride_px: int) -> Iterator[tuple[int, int, int, int]]:
    """One axis of `windows`: (start, stop, first kept, end of kept)."""
    if length <= window_px:
        yield 0, length, 0, length
        return
    step = (window_px - 2 * margin_px) // stride_px * stride_px
    if step < stride_px:
        raise ValueError(
            f"windows of {window_px} pixels leave nothing between margins of {margin_px} pixels; "
            f"set map.window_px to {2 * margin_px + stride_px} or more"
        )
    for first in range(0, length, step):
        end = min(first + step, length)
        yield max(first - margin_px, 0), min(end + margin_px, length), first, end


def _rank(probabilities: "Probabilities", legend_ids: Bytes) -> Bytes:
    """[K, H, W] probabilities → [3, H, W]: likeliest class, its probability in %, second class."""
    best = probabilities.argmax(0)
    confidence = np.take_along_axis(probabilities, best[None], 0)[0]
    others = probabilities.copy()
    np.put_along_axis(others, best[None], -1, 0)
    return np.stack([legend_ids[best], np.rint(100 * confidence).astype(np.uint8), legend_ids[others.argmax(0)]])
