"""Pictures of the data and of single classes: how much there is, and how well it is known."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D

from cropray.core.metrics import Counts
from cropray.datasets.manifest import Manifest
from cropray.evaluation.results import ModelResult, ReportInputs
from cropray.io.pictures import INK, LINE, MUTED, picture
from cropray.io.storage import Location
from cropray.report.drawing import CENTRED, cells, compact, in_colours, on_cell
from cropray.report.tables import ClassRow, class_rows

_ROW_IN: Final = 0.24  # inches per class in charts with one row per class
_CELL_IN: Final = 0.34  # inches per class in the confusion matrix
_SHIFT: Final = 0.2  # distance of two models within a row, rows
_SHOWN_SHARE: Final = 0.005  # smallest share of a true class that is written into its cell


def draw_class_distribution(inputs: ReportInputs, path: Location) -> None:
    """Labelled pixels per class in training and test zones, on a logarithmic axis."""
    rows = class_rows(inputs)
    with picture(path, 7.6, 1.0 + _ROW_IN * len(rows)) as figure:
        axes = figure.subplots()
        for y, row in enumerate(rows):
            counts = [n for n in (row.n_train, row.n_test) if n]
            axes.plot([min(counts, default=1), max(counts, default=1)], [y, y], color=LINE, linewidth=2.5, zorder=1)
            if row.n_train:
                axes.scatter(row.n_train, y, s=42, color=row.colour, edgecolor=INK, linewidth=0.6, zorder=3)
            if row.n_test:
                axes.scatter(row.n_test, y, s=34, color="white", edgecolor=row.colour, linewidth=2, zorder=2)
        axes.set(xscale="log", xlabel="labelled pixels (logarithmic)", title="Pixels per class")
        axes.xaxis.set_major_formatter(lambda count, _: compact(count))
        _class_axis(axes, rows)
        axes.grid(axis="x")
        filled = Line2D([], [], marker="o", linestyle="", color=MUTED, markeredgecolor=INK, label="training zones")
        ring = Line2D([], [], marker="o", linestyle="", color="white", markeredgecolor=MUTED, markeredgewidth=2)
        ring.set_label("test zones")
        axes.legend(handles=[filled, ring], loc="lower right", labelcolor=MUTED)


def draw_class_by_region(inputs: ReportInputs, path: Location) -> None:
    """Labelled pixels per class and region, all splits together."""
    manifest, rows = inputs.manifest, class_rows(inputs)
    regions = list(dict.fromkeys(zone.region for zone in manifest.zones))
    counts = _region_counts(manifest, regions, rows)
    with picture(path, 2.4 + 0.62 * len(regions), 1.3 + _ROW_IN * len(rows)) as figure:
        axes = figure.subplots()
        norm = LogNorm(1, max(10, counts.max()))
        axes.imshow(np.ma.masked_equal(counts, 0), norm=norm, cmap="YlGnBu", aspect="auto")
        for y, x in np.argwhere(counts):
            count = int(counts[y, x])
            axes.text(x, y, compact(count), color=on_cell(float(norm(count))), **CENTRED)
        _class_axis(axes, rows)
        axes.set_xticks(range(len(regions)), regions, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_title("Pixels per class and region")
        cells(axes, counts.shape)


def draw_confusion(model: ModelResult, manifest: Manifest, path: Location) -> None:
    """Where the pixels of each true class went: rows sum to 100 %, classes in the order of the legend."""
    matrix = model.confusion
    shown = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    crops = [manifest.classes[i] for i in shown]
    support = matrix[shown].sum(1)
    shares = matrix[np.ix_(shown, shown)] / np.maximum(support, 1)[:, None]
    side = _CELL_IN * len(shown)
    with picture(path, 2.6 + side, 2.0 + side) as figure:
        axes = figure.subplots()
        axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
        for (y, x), share in np.ndenumerate(shares):
            if share >= _SHOWN_SHARE:
                weight = "bold" if x == y else "normal"
                axes.text(x, y, f"{100 * share:.0f}", weight=weight, color=on_cell(share), **CENTRED)
        names = [crop.label_en for crop in crops]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), [f"{n}  ({compact(s)})" for n, s in zip(names, support, strict=True)])
        axes.set(xlabel="predicted class", ylabel="true class (pixels)")
        axes.set_title(f"{model.label}: where test pixels of each class went, %")
        cells(axes, shares.shape)
        groups = [crop.level2 for crop in crops]
        for i in range(1, len(groups)):
            if groups[i] != groups[i - 1]:  # a group of the legend ends here
                axes.axhline(i - 0.5, color=MUTED, linewidth=0.8)
                axes.axvline(i - 0.5, color=MUTED, linewidth=0.8)


def draw_class_scores(inputs: ReportInputs, path: Location) -> None:
    """F1 of each class that occurs in the test labels, all models side by side, most frequent class first."""
    rows = [row for row in class_rows(inputs) if row.n_test]
    with picture(path, 7.6, 1.1 + _ROW_IN * len(rows)) as figure:
        axes = figure.subplots()
        for y, row in enumerate(rows):
            draw_dumbbell(axes, y, [item.f1 if item else 0.0 for item in row.scores])
            axes.text(1.06, y, compact(row.n_test), va="center", ha="right", color=MUTED)
        axes.text(1.06, -1, "test px", va="center", ha="right", color=MUTED)
        axes.set(xlim=(-0.02, 1.07), xticks=np.arange(0, 1.01, 0.2), xlabel="F1 on the test zones")
        axes.set_title("F1 per class, most frequent training class first", pad=14)
        _class_axis(axes, rows)
        axes.grid(axis="x")
        models_legend(axes, inputs.models)


def draw_dumbbell(axes: Any, y: float, values: Sequence[float]) -> None:
    """One value per model in a row, joined by a line; equal values stay visible below each other."""
    axes.plot([min(values), max(values)], [y, y], color=LINE, linewidth=2.5, zorder=1)
    for m, (value, colour) in enumerate(in_colours(values)):
        shift = _SHIFT * (m - (len(values) - 1) / 2)
        axes.scatter(value, y + shift, s=40, color=colour, edgecolor="white", linewidth=0.6, zorder=2)


def models_legend(axes: Any, models: Sequence[ModelResult]) -> None:
    """A row of model names below the axes, in the models' colours."""
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, markeredgecolor="white", label=model.label)
        for model, colour in in_colours(models)
    ]
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), labelcolor=INK)


def _class_axis(axes: Any, rows: Sequence[ClassRow]) -> None:
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)


def _region_counts(manifest: Manifest, regions: Sequence[str], rows: Sequence[ClassRow]) -> Counts:
    """[row, region] int64: labelled pixels."""
    counts = np.zeros((len(rows), len(regions)), np.int64)
    for zone in manifest.zones:
        counts[:, regions.index(zone.region)] += [zone.counts.get(row.name, 0) for row in rows]
    return counts
