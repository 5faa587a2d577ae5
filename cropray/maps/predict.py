"""A whole zone, predicted by overlapping windows whose inner parts tile it. Needs numpy and torch only."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from cropray.core.grid import Window
from cropray.core.legend import IGNORE
from cropray.core.sensors import NODATA
from cropray.core.until_step import shown_to, until_of
from cropray.training.decision import Decision, decision_of
from cropray.training.likeness import likeness_of

if TYPE_CHECKING:
    from cropray.training.crop_model import Probabilities, TilePredictor

MAP_NODATA: Final = IGNORE  # a pixel that was never seen clear has no prediction

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ZoneMap:
    """The map of one zone; every array is [H, W] uint8."""

    class_id: Bytes
    """Legend class id of the class that the model decides for, 255 = no data."""
    confidence: Bytes
    """Its probability, %, 255 = no data."""
    second_id: Bytes
    """Legend class id of the class that it would decide for without this one, 255 = no data."""
    n_clear: Bytes
    """Steps with at least one clear observation, of those that the model sees."""
    group: Bytes | None = None
    """0 where the class stands, else 1 + the number of the group of the legend that is answered in its stead, 255 = no data;
    None: the model falls back to none."""
    unlike: Bytes | None = None
    """1 where the pixel is unlike those of the training zones, else 0, 255 = no data; None: the model flags none."""


def predict_zone(
    model: "TilePredictor",
    composite: npt.NDArray[np.uint16],
    n_obs: npt.NDArray[np.uint8],
    window_px: tuple[int, int],
) -> ZoneMap:
    """Map a zone; the result does not depend on how it is cut into windows.

    Args:
        model: a trained model with at least two classes.
        composite: [T, C, H, W] digital numbers, 0 = no data.
        n_obs: [T, H, W] clear observations per step.
        window_px: most rows and columns that the model reads at once.

    Raises:
        ValueError: the windows are too small for the model's margin.
    """
    until, decision, likeness = until_of(model), decision_of(model), likeness_of(model)
    layers = np.full((5, *n_obs.shape[1:]), MAP_NODATA, np.uint8)
    legend_ids = np.array([crop.id for crop in model.classes], np.uint8)
    for part, probabilities in predicted_parts(model, composite, window_px):
        here = layers[(slice(None), *part.slices)]
        here[:3] = _rank(probabilities, legend_ids, decision)
        if decision.group_below is not None:
            here[3] = decision.answered(probabilities)
        if likeness is not None:
            here[4] = likeness.is_unlike(shown_to(model, composite[(None, ..., *part.slices)]))[0]
    layers[:, never_seen(composite[:until])] = MAP_NODATA
    class_id, confidence, second_id, group, unlike = layers
    return ZoneMap(
        class_id,
        confidence,
        second_id,
        (n_obs[:until] > 0).sum(0, dtype=np.uint8),
        None if decision.group_below is None else group,
        None if likeness is None else unlike,
    )


def predicted_parts(
    model: "TilePredictor", composite: npt.NDArray[np.uint16], window_px: tuple[int, int]
) -> Iterator[tuple[Window, "Probabilities"]]:
    """What a model says of a zone: the only prediction that maps show and scores count.

    Args:
        model: a trained model.
        composite: [T, C, H, W] digital numbers, 0 = no data.
        window_px: most rows and columns that the model reads at once.

    Yields:
        (part of the zone, its probabilities [K, H, W]); the parts cover the zone once.

    Raises:
        ValueError: the windows are too small for the model's margin.
    """
    height, width = composite.shape[-2:]
    for outer, part in windows((height, width), window_px, model.margin_px, model.stride_px):
        probabilities = model.predict_tiles(composite[(None, ..., *outer.slices)])[0]
        inner = Window(part.row - outer.row, part.col - outer.col, part.height, part.width)
        yield part, probabilities[(slice(None), *inner.slices)]


def never_seen(composite: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """[H, W] true where no step has any data, of those that the model sees: a map leaves such pixels blank."""
    blank: npt.NDArray[np.bool_] = (composite == NODATA).all((0, 1))
    return blank


def windows(
    shape: tuple[int, int], window_px: tuple[int, int], margin_px: int, stride_px: int
) -> Iterator[tuple[Window, Window]]:
    """Windows to read, and the part of each whose prediction is kept.

    Args:
        shape: rows and columns of the image.
        window_px: most rows and columns of a window.
        margin_px: how far kept pixels stay from an edge where the image is cut; a multiple of the stride. The image's
            own edges need none.
        stride_px: windows start at multiples of this.

    Yields:
        (window, kept part), row by row; the kept parts cover the image once.

    Raises:
        ValueError: margins leave nothing of a window.
    """
    rows = tuple(_spans(shape[0], window_px[0], margin_px, stride_px))
    columns = tuple(_spans(shape[1], window_px[1], margin_px, stride_px))
    for top, bottom, first_row, end_row in rows:
        for left, right, first_col, end_col in columns:
            outer = Window(top, left, bottom - top, right - left)
            yield outer, Window(first_row, first_col, end_row - first_row, end_col - first_col)


def _spans(length: int, window_px: int, margin_px: int, stride_px: int) -> Iterator[tuple[int, int, int, int]]:
    """One axis of `windows`: (start, stop, first kept, end of kept)."""
    if length <= window_px:
        yield 0, length, 0, length
        return
    inner, step = ((window_px - n * margin_px) // stride_px * stride_px for n in (1, 2))
    if step < stride_px:
        raise ValueError(
            f"windows of {window_px} pixels leave nothing between margins of {margin_px} pixels; "
            f"set map.window_px to {2 * margin_px + stride_px} or more"
        )
    first = 0
    while first < length:
        start = max(first - margin_px, 0)
        rest_fits = length - start <= window_px
        end = length if rest_fits else first + (step if first else inner)
        yield start, min(end + margin_px, length), first, end
        first = end


def _rank(probabilities: "Probabilities", legend_ids: Bytes, decision: Decision) -> Bytes:
    """[K, H, W] probabilities → [3, H, W]: class, its probability in %, second class."""
    best = decision.decide(probabilities)
    confidence = np.take_along_axis(probabilities, best[None], 0)[0]
    others = decision.weighed(probabilities)
    if others is probabilities:
        others = probabilities.copy()
    np.put_along_axis(others, best[None], -1, 0)
    return np.stack([legend_ids[best], np.rint(100 * confidence).astype(np.uint8), legend_ids[others.argmax(0)]])
