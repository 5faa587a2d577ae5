"""Pictures of how often the ground was seen: by zone and step, and pixel by pixel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb

from cropray.io.pictures import MUTED, picture
from cropray.io.storage import Location
from cropray.report.drawing import CENTRED, TITLE, cells, initials, on_cell
from cropray.report.summary import Observations

MAX_ROWS: Final = 60  # zones listed singly; above that, regions
NEVER_SEEN: Final = "#d9722b"
_MOST_COUNTED: Final = 8  # clear observations per step that are told apart
_MAP_PX: Final = 320  # drawn size of a map, pixels; more rows than that are thinned
_PER_ROW: Final = 4
_CELLS: Final = 0.24  # inches per row of the table
_CELL_WIDTH, _LABELS = 0.5, 2.6  # inches: of a cell, and of what stands beside them
_MOST_NAMED: Final = 24  # steps whose names fit over the table


@dataclass(frozen=True, slots=True)
class ObservedZone:
    """A zone in the overview."""

    zone_id: str
    region: str
    observations: Observations


def draw_observed_months(
    zones: Sequence[ObservedZone], months: Sequence[str], path: Location, noun: str = "month"
) -> None:
    """Mean clear observations per pixel of each zone and step, and the share of the pixels' steps that were filled."""
    rows = observed_rows(zones)
    n_steps = len(months)
    counts = np.array([seen.n_clear / seen.n_pixels for seen in rows.values()])
    filled = [seen.share_filled for seen in rows.values()]
    with picture(path, max(8.6, _LABELS + _CELL_WIDTH * n_steps), 1.0 + _CELLS * len(rows)) as figure:
        axes = figure.subplots()
        top = max(1.0, float(counts.max()))
        axes.imshow(counts, vmin=0, vmax=top, cmap="YlGnBu", aspect="auto")
        for (y, x), count in np.ndenumerate(counts):
            colour = NEVER_SEEN if count < 0.05 else on_cell(count / top)
            axes.text(x, y, f"{count:.1f}", color=colour, **CENTRED)
        for y, share in enumerate(filled):
            axes.text(n_steps - 0.3, y, f"{100 * share:.0f} %", va="center", color=MUTED)
        axes.text(n_steps - 0.3, -1, "filled", va="center", color=MUTED)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_xticks(range(n_steps), list(months) if n_steps <= _MOST_NAMED else initials(months))
        axes.xaxis.tick_top()
        cells(axes, counts.shape)
        axes.set_title(f"Clear observations of a pixel in each {noun}, mean", pad=18)


def draw_n_obs(title: str, n_obs: npt.NDArray[np.uint8], months: Sequence[str], path: Location) -> None:
    """Maps of the clear observations [T, H, W] of each named step, before gap filling; never seen stands out."""
    step = -(-max(n_obs.shape[1:]) // _MAP_PX)
    shown = n_obs[:, step // 2 :: step, step // 2 :: step]  # one pixel stands for its block: means would blur counts
    most = int(np.clip(n_obs.max(), 1, _MOST_COUNTED))
    colours = ListedColormap([to_rgb(NEVER_SEEN), *colormaps["YlGnBu"](np.linspace(0.15, 1, most))])
    norm = BoundaryNorm(np.arange(-0.5, most + 1), colours.N)
    n_rows = -(-len(months) // _PER_ROW)
    aspect = shown.shape[1] / shown.shape[2]
    with picture(path, 5.6, 0.6 + n_rows * (0.36 + 1.12 * aspect)) as figure:
        grid: Any = figure.subplots(n_rows, _PER_ROW, squeeze=False)
        for axes in grid.flat[len(months) :]:
            axes.set_visible(False)
        for axes, name, step_seen, whole in zip(grid.flat, months, shown, n_obs, strict=False):
            axes.imshow(np.minimum(step_seen, most), cmap=colours, norm=norm, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_title(name, fontsize=8)
            axes.set_title(f"{whole.mean():.1f}", loc="right", fontsize=8, color=MUTED, fontweight="normal")
        bar = figure.colorbar(
            ScalarMappable(norm, colours), ax=grid, ticks=range(most + 1), shrink=0.6, aspect=16, pad=0.02
        )
        last = f"{most}+" if n_obs.max() > most else str(most)
        bar.ax.set_yticklabels(["0", *map(str, range(1, most)), last])
        bar.outline.set_visible(False)
        figure.suptitle(f"Clear observations and their mean: {title}", **TITLE)


def observed_rows(zones: Sequence[ObservedZone]) -> Mapping[str, Observations]:
    """What is listed → its observations: zones, or regions where there are too many zones."""
    if len(zones) <= MAX_ROWS:
        return {zone.zone_id: zone.observations for zone in zones}
    return {
        region: add_observations([zone.observations for zone in zones if zone.region == region])
        for region in dict.fromkeys(zone.region for zone in zones)
    }


def add_observations(parts: Sequence[Observations]) -> Observations:
    """Observations of several zones together."""
    return Observations(
        sum(part.n_pixels for part in parts),
        np.sum([part.n_clear for part in parts], axis=0),
        np.sum([part.n_seen for part in parts], axis=0),
    )
