"""A picture of a map: the image, the labels, the predicted classes and how sure the model is."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.legend import IGNORE, CropClass
from cropray.io.pictures import MUTED, picture
from cropray.io.storage import Location
from cropray.maps.predict import ZoneMap

_RED_GREEN_BLUE: Final = ("B04", "B03", "B02")
_NEAR_INFRARED: Final = "B08"
_STRETCH: Final = (2, 98)  # percentiles that become black and white
_BLANK: Final = "#eef0f2"  # pixels without label or prediction
_MAX_LEGEND: Final = 20  # classes named below the picture; the others are rarer
_FRAMED: Final = {"axes.edgecolor": _BLANK, "axes.spines.right": True, "axes.spines.top": True}


@dataclass(frozen=True, slots=True)
class PreviewData:
    """What a preview shows of one zone."""

    title: str
    composite: npt.NDArray[np.uint16]
    """[T, C, H, W] digital numbers, 0 = no data."""
    n_obs: npt.NDArray[np.uint8]
    """[T, H, W] clear observations per step."""
    labels: npt.NDArray[np.uint8] | None
    """[H, W] class ids, 255 = unlabelled; None: there are none."""
    zone_map: ZoneMap
    classes: tuple[CropClass, ...]
    """Legend classes that occur in labels or map."""
    cube: CubeSpec = STUDY_CUBE


def draw_preview(data: PreviewData, path: Location) -> None:
    """Write the picture whole, as PNG: image, labels, prediction and confidence beside each other."""
    predicted = data.zone_map.class_id
    has_colours = data.cube.positions(_RED_GREEN_BLUE) is not None
    title = "Image, natural colours" if has_colours else f"Image, {data.cube.band_ids[0]}"
    panels = [(title, natural_colours(data.composite, data.n_obs, data.cube))]
    if data.labels is not None:
        panels.append(("Labels", paint(data.labels, data.classes)))
    panels.append(("Prediction", paint(predicted, data.classes)))
    height, width = predicted.shape
    named = _most_frequent(data)
    n_rows = -(-len(named) // 5)
    n = len(panels) + 1
    with picture(path, 2.9 * n + 0.5, 2.75 * height / width + 0.7 + 0.22 * n_rows, **_FRAMED) as figure:
        grid = figure.subplots(1, n)
        for axes, (title, image) in zip(grid, panels, strict=False):
            axes.imshow(image, interpolation="nearest")
            axes.set_title(title)
        _draw_confidence(figure, grid[-1], data.zone_map)
        for axes in grid:
            axes.set(xticks=[], yticks=[])
        figure.suptitle(f"{data.title}   {agreement(data)}", x=0.01, ha="left", fontsize=9.5, color=MUTED)
        handles = [Patch(color=crop.colour, label=crop.label_en) for crop in named]
        figure.legend(handles=handles, loc="outside lower left", ncols=5, handlelength=1, handleheight=1)


def natural_colours(
    composite: npt.NDArray[np.uint16], n_obs: npt.NDArray[np.uint8], cube: CubeSpec = STUDY_CUBE
) -> npt.NDArray[np.float64]:
    """Red, green, blue of the best-observed step; of equally observed ones, the greenest. Grey where a cube lacks them.

    Args:
        composite: [T, C, H, W] digital numbers, 0 = no data.
        n_obs: [T, H, W] clear observations per step.
        cube: steps and bands; without these three, its first band is shown.

    Returns:
        [H, W, 3] 0–1, stretched between the 2nd and 98th percentile of each band.
    """
    n_clear = (n_obs > 0).sum((1, 2))
    (green_band,) = cube.positions([_NEAR_INFRARED]) or (0,)
    greenness = composite[:, green_band].mean((1, 2))
    step = max(range(len(composite)), key=lambda t: (n_clear[t], greenness[t]))
    channels = cube.positions(_RED_GREEN_BLUE) or (0, 0, 0)
    image = composite[step, channels].transpose(1, 2, 0).astype(np.float64)
    low, high = np.percentile(image, _STRETCH, axis=(0, 1))
    stretched: npt.NDArray[np.float64] = np.clip((image - low) / np.maximum(high - low, 1), 0, 1)
    return stretched


def paint(class_ids: npt.NDArray[np.uint8], classes: tuple[CropClass, ...]) -> npt.NDArray[np.float64]:
    """[H, W, 3] 0–1: each class in its colour, light grey where there is none."""
    colours = np.full((IGNORE + 1, 3), to_rgb(_BLANK))
    for crop in classes:
        colours[crop.id] = to_rgb(crop.colour)
    return colours[class_ids]


def agreement(data: PreviewData) -> str:
    """How many labelled pixels the map agrees with; empty without labels."""
    if data.labels is None:
        return ""
    known = (data.labels != IGNORE) & (data.zone_map.class_id != IGNORE)
    if not known.any():
        return ""
    share = (data.labels[known] == data.zone_map.class_id[known]).mean()
    return f"{share:.1%} of {known.sum():,} labelled pixels agree"


def _draw_confidence(figure: Any, axes: Any, zone_map: ZoneMap) -> None:
    shown = np.ma.masked_equal(zone_map.confidence, IGNORE)
    image = axes.imshow(shown, vmin=0, vmax=100, cmap="viridis", interpolation="nearest")
    axes.set_title("Confidence, %")
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=MUTED)


def _most_frequent(data: PreviewData) -> list[CropClass]:
    """Classes that the picture names, in legend order."""
    layers = [data.zone_map.class_id, *([] if data.labels is None else [data.labels])]
    counts = np.bincount(np.stack(layers).ravel(), minlength=IGNORE + 1)
    present = [crop for crop in data.classes if counts[crop.id]]
    frequent = sorted(present, key=lambda crop: -counts[crop.id])[:_MAX_LEGEND]
    return sorted(frequent, key=lambda crop: crop.id)
