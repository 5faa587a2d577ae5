"""Pictures of how the classes go through the year: NDVI and reflectance, class by class."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from cropray.core.legend import CropClass
from cropray.core.sensors import Band
from cropray.io.pictures import INK, LINE, MUTED, picture
from cropray.io.storage import Location
from cropray.report.drawing import TITLE, band_title, compact, initials
from cropray.report.summary import NDVI, Profiles, series_of

MAX_CLASSES: Final = 24  # most frequent classes that get a panel; more make a picture that nobody reads
_OUTER: Final = (0.1, 0.9)  # shares of the pixels between which the light area lies
_INNER: Final = (0.25, 0.75)  # and the dark one
_OUTER_OPACITY, _INNER_OPACITY = 0.3, 0.8
_PER_ROW: Final = 4
_MAX_LABEL: Final = 24  # characters that fit over a panel
_REFLECTANCE: Final = "reflectance"
_BAND_COLOURS: Final = {
    "B02": "#2f6fb5", "B03": "#3a9a4f", "B04": "#d0483e", "B05": "#e08a3c", "B06": "#c7a52b", "B07": "#93a83a",
    "B08": "#7a4a9e", "B8A": "#b070c0", "B11": "#7d5a3c", "B12": "#4f4f4f",
}  # fmt: skip
_OTHER_COLOURS: Final = ("#2f6fb5", "#d0483e", "#3a9a4f", "#7a4a9e", "#e08a3c", "#4f4f4f")  # of other bands, in turn
_REFLECTANCE_TICKS: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)


@dataclass(frozen=True, slots=True)
class ProfileData:
    """What profile pictures are drawn from."""

    profiles: Profiles
    """Over class indices."""
    classes: tuple[CropClass, ...]
    """By class index."""
    n_pixels: npt.NDArray[np.int64]
    """[K] labelled pixels in the training zones."""
    months: tuple[str, ...]
    """Of the steps, `Jan` and so on, of which the first letters are shown; or positions `1` to T."""

    @property
    def shown(self) -> list[int]:
        """Class indices, most frequent first, at most `MAX_CLASSES`."""
        order = sorted(np.flatnonzero(self.n_pixels).tolist(), key=lambda k: (-self.n_pixels[k], k))
        return order[:MAX_CLASSES]

    @property
    def left_out(self) -> str:
        """` (8 rarer classes not shown)`; empty where all are."""
        n = np.count_nonzero(self.n_pixels) - len(self.shown)
        return f" ({n} rarer classes not shown)" if n else ""


@dataclass(frozen=True, slots=True)
class Area:
    """Between two quantiles of each class and step."""

    lower: npt.NDArray[np.float64]
    """[K, T]."""
    upper: npt.NDArray[np.float64]
    """[K, T]."""
    opacity: float


def draw_ndvi_profiles(data: ProfileData, path: Location) -> None:
    """NDVI through the year, one panel per class, before the means of all others."""
    position = series_of(data.profiles.cube).index(NDVI)
    shown, mean = data.shown, data.profiles.mean[:, position]
    areas, steps = _areas(data.profiles, position), np.arange(len(data.months))
    with picture(path, 9.6, _height(data)) as figure:
        for axes, k in _panels(figure, data, "NDVI"):
            axes.plot(steps, mean[[other for other in shown if other != k]].T, color=LINE, linewidth=0.8, zorder=0.8)
            # The mean in ink: many class colours are too light for a line.
            _draw_profile(axes, areas, mean, k, data.classes[k].colour, INK)
        figure.axes[0].set_ylim(*_limits(areas, shown))
        figure.suptitle(f"NDVI of each class in the training zones{data.left_out}", **TITLE)
        handles = [
            Line2D([], [], color=INK, label="mean"),
            Patch(color=MUTED, alpha=_INNER_OPACITY, linewidth=0, label="half of the pixels"),
            Patch(color=MUTED, alpha=_OUTER_OPACITY, linewidth=0, label="four fifths of the pixels"),
            Line2D([], [], color=LINE, label="means of the other classes"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, labelcolor=MUTED)


def draw_band_profiles(data: ProfileData, path: Location, unit: str = _REFLECTANCE) -> None:
    """Values of the bands of one unit through the year, one panel per class."""
    mean, series = data.profiles.mean, series_of(data.profiles.cube)
    colours = _colours([band for band in data.profiles.cube.bands if band.unit == unit])
    areas = {band: _areas(data.profiles, series.index(band.id))[:1] for band in colours}
    with picture(path, 9.6, _height(data)) as figure:
        for axes, k in _panels(figure, data, unit):
            for band, colour in colours.items():
                _draw_profile(axes, areas[band], mean[:, series.index(band.id)], k, colour, colour)
        axes = figure.axes[0]
        spans = [_limits(area, data.shown) for area in areas.values()]
        lowest, highest = min(low for low, _ in spans), max(high for _, high in spans)
        if unit == _REFLECTANCE:
            # Square roots: the visible bands are dark and close together, near infrared is far above them.
            axes.set_yscale("function", functions=(_signed_root, np.square))
            axes.set_yticks(_REFLECTANCE_TICKS, [f"{tick:g}" for tick in _REFLECTANCE_TICKS])
            lowest = max(0, lowest)
        axes.set_ylim(lowest, highest)
        figure.suptitle(f"{unit[:1].upper()}{unit[1:]} of each class in the training zones{data.left_out}", **TITLE)
        handles: list[Any] = [Line2D([], [], color=colour, label=band_title(band)) for band, colour in colours.items()]
        handles.append(Patch(color=MUTED, alpha=_OUTER_OPACITY, linewidth=0, label="four fifths of the pixels"))
        figure.legend(handles=handles, loc="outside lower center", ncols=5, labelcolor=MUTED)


def _colours(bands: Sequence[Band]) -> dict[Band, str]:
    others = itertools.cycle(_OTHER_COLOURS)
    return {band: _BAND_COLOURS.get(band.id) or next(others) for band in bands}


def _height(data: ProfileData) -> float:
    """Inches."""
    return 0.9 + 1.42 * -(-len(data.shown) // _PER_ROW)


def _panels(figure: Any, data: ProfileData, unit: str) -> Iterator[tuple[Any, int]]:
    """(axes, class index) of each panel; all share both axes."""
    n_rows = -(-len(data.shown) // _PER_ROW)
    grid = figure.subplots(n_rows, _PER_ROW, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(data.shown) :]:
        axes.set_visible(False)
    for axes, k in zip(grid.flat, data.shown, strict=False):
        yield axes, k
        axes.grid(axis="y")
        axes.set_title(_shortened(data.classes[k].label_en), fontsize=8.5)
        axes.set_title(f"{compact(data.n_pixels[k])} px", loc="right", fontsize=7.5, color=MUTED, fontweight="normal")
    for axes in grid.flat[max(0, len(data.shown) - _PER_ROW) : len(data.shown)]:
        axes.tick_params(labelbottom=True)  # the lowest panel of each column
    for axes in grid[:, 0]:
        axes.set_ylabel(unit)
    n_steps = len(data.months)
    grid[0, 0].set_xticks(range(n_steps), initials(data.months), fontsize=7.5)
    grid[0, 0].set_xlim(-0.3, n_steps - 0.7)


def _areas(profiles: Profiles, series: int) -> list[Area]:
    """The wide area first."""
    return [
        Area(profiles.quantile(low)[:, series], profiles.quantile(high)[:, series], opacity)
        for (low, high), opacity in ((_OUTER, _OUTER_OPACITY), (_INNER, _INNER_OPACITY))
    ]


def _draw_profile(
    axes: Any, areas: Sequence[Area], mean: npt.NDArray[np.float64], k: int, fill: str, line: str
) -> None:
    steps = np.arange(mean.shape[1])
    for area in areas:
        axes.fill_between(steps, area.lower[k], area.upper[k], color=fill, alpha=area.opacity, linewidth=0)
    axes.plot(steps, mean[k], color=line, linewidth=1.2)


def _limits(areas: Sequence[Area], shown: Sequence[int]) -> tuple[float, float]:
    """What an axis must span to show the wide area of every class shown."""
    low, high = float(np.nanmin(areas[0].lower[shown])), float(np.nanmax(areas[0].upper[shown]))
    margin = max(0.04 * (high - low), 1e-3)
    return low - margin, high + margin


def _signed_root(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.sign(values) * np.sqrt(np.abs(values))


def _shortened(label: str) -> str:
    return label if len(label) <= _MAX_LABEL else f"{label[: _MAX_LABEL - 1].rstrip()}…"
