"""Pictures of scores: models side by side, test zone by test zone, and over the course of training."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.ticker import MaxNLocator

from cropray.core.metrics import METRICS, headlines, score_columns
from cropray.evaluation.results import ModelResult, ReportInputs
from cropray.io.pictures import INK, MUTED, picture
from cropray.io.storage import Location
from cropray.report.class_pictures import draw_dumbbell, models_legend
from cropray.report.drawing import FOLD_STYLES, TITLE, in_colours
from cropray.report.tables import format_params, zone_rows
from cropray.search.results import ConfigurationResult

_TRAIN_COLOUR: Final = "#9aa5b1"
_VAL_COLOUR: Final = "#1f6fb2"
_BAND: Final = 0.8  # height of the band in which the models of one row stand, rows
_CURVES: Final = ("loss", "macro_f1")  # what a fit is stopped by, and what a search chooses by, unless they are told
_PER_ROW: Final = 4  # configurations beside each other
_TICKS: Final = (0, 0.5, 1)
_DOT: Final = 160  # area of a dot that stands for all pixels, square points
_RELIABILITY_PER_ROW: Final = 3
_MOST_REGIONS: Final = 8  # with all zones, a square
_LONGEST_NAME: Final = 28  # characters over a panel


def draw_scores(inputs: ReportInputs, path: Location) -> None:
    """Test scores with their 95 % intervals where there are any, models side by side."""
    has_intervals = any(model.intervals for model in inputs.models)
    columns = [metric for metric in score_columns() if metric.higher_is_better]  # the loss has another scale
    with picture(path, 7.6, 0.8 + (0.25 + 0.16 * len(inputs.models)) * len(columns)) as figure:
        axes = figure.subplots()
        for m, (model, colour) in enumerate(in_colours(inputs.models)):
            for row, metric in enumerate(columns):
                y, value = row + _BAND * ((m + 0.5) / len(inputs.models) - 0.5), model.scores.known(metric.key)
                interval = model.intervals.get(f"test_{metric.key}", (value, value))
                axes.plot(interval, [y, y], color=colour, linewidth=5, alpha=0.28, solid_capstyle="round")
                axes.scatter(value, y, s=46, color=colour, edgecolor="white", linewidth=0.8, zorder=3)
                number: dict[str, Any] = {
                    "textcoords": "offset points",
                    "va": "center",
                    "color": colour,
                    "fontsize": 7.5,
                }
                axes.annotate(f"{value:.3f}", (max(value, *interval), y), (8, 0), **number)
        axes.set_yticks(range(len(columns)), [metric.label for metric in columns])
        axes.set(
            xlim=(min(0.0, *(model.scores.known(m.key) for model in inputs.models for m in columns)), 1.06),
            ylim=(len(columns) - 0.4, -0.7),
            title=f"Test scores{', with 95 % intervals over zones' if has_intervals else ''}",
        )
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        models_legend(axes, inputs.models)


def draw_zone_scores(inputs: ReportInputs, path: Location) -> None:
    """The headline scores of each test zone: how far a mean can be trusted in one place."""
    rows = zone_rows(inputs)
    with picture(path, 7.6, 1.3 + 0.34 * len(rows)) as figure:
        shown = headlines()
        panels = figure.subplots(1, len(shown), sharey=True, gridspec_kw={"wspace": 0.06})
        for axes, metric in zip(panels, shown, strict=True):
            for y, row in enumerate(rows):
                draw_dumbbell(axes, y, [scores.known(metric.key) for scores in row.scores])
            axes.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5), title=f"{metric.label} of each test zone")
            axes.set_yticks(range(len(rows)), [row.zone_id for row in rows])
            axes.spines["left"].set_visible(False)
            axes.grid(axis="x")
        models_legend(panels[0], inputs.models)


def draw_curves(model: ModelResult, path: Location) -> bool:
    """Learning curves of every configuration and fold, the point that was kept marked; False where there is no history."""
    configurations = model.configurations
    held = {key for c in configurations for fold in c.folds for record in fold.history for key in record}
    measures = [(m.key, m.called) for m in METRICS if m.key in _CURVES and f"val_{m.key}" in held]
    if not measures:
        return False
    n_columns = min(len(configurations), _PER_ROW)
    n_blocks = -(-len(configurations) // _PER_ROW)
    height = 1.2 + 1.75 * len(measures) * n_blocks
    with picture(path, max(4.0, 1.0 + 2.3 * n_columns), height) as figure:
        grid = figure.subplots(len(measures) * n_blocks, n_columns, sharey="row", squeeze=False)
        for axes in grid.flat:
            axes.set_visible(False)
        for i, configuration in enumerate(configurations):
            block, column = divmod(i, _PER_ROW)
            for row, (key, label) in enumerate(measures):
                axes = grid[block * len(measures) + row, column]
                axes.set_visible(True)
                _draw_folds(axes, configuration, key)
                axes.set_ylabel(label if column == 0 else "")
                axes.set_xlabel(model.step_name if row == len(measures) - 1 else "")
            _head(grid[block * len(measures), column], configuration, is_best=configuration.params == model.best)
        _curve_legend(figure, configurations)
    return True


def draw_reliability(model: ModelResult, path: Location) -> None:
    """How often a model is right where it says that it is so sure, out of fold, without and with what was learnt elsewhere.

    Where zones lie in several regions, those with the most rows have panels of their own after that of all.
    """
    assert model.decision is not None
    decision, of_all = model.decision, model.decision["reliability"]
    regions = of_all.get("regions", {})  # a search of an earlier version tells none apart
    errors = {when: decision[when]["ece"] for when in ("before", "after")}
    largest = sorted(regions, key=lambda name: -regions[name]["rows"])[:_MOST_REGIONS] if len(regions) > 1 else ()
    panels = [("all zones", {**of_all, "rows": decision["rows"], "ece": errors})]
    panels += [(name, regions[name]) for name in regions if name in largest]
    n_columns = 2 if len(panels) == 4 else min(len(panels), _RELIABILITY_PER_ROW)
    n_rows = -(-len(panels) // n_columns)
    with picture(path, max(4.2, 2.6 * n_columns), 4.4 if n_columns == 1 else 0.9 + 2.7 * n_rows) as figure:
        grid = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (name, table) in zip(grid.flat, panels, strict=False):
            _draw_reliability_of(axes, name, table)
        for column in range(n_columns):  # the lowest panel of each column tells what is on its axis
            lowest = grid[(len(panels) - 1 - column) // n_columns, column]
            lowest.set_xlabel("confidence")
            lowest.tick_params(labelbottom=True)
        figure.supylabel("share of pixels that are right", color=MUTED, fontsize=8.5)
        figure.suptitle("What confidence is worth, out of fold; larger dots: more pixels", **TITLE)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), labelcolor=MUTED)


def _draw_reliability_of(axes: Any, name: str, table: Mapping[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=_TICKS, yticks=_TICKS)
    short = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    axes.set_title(f"{short}\n", fontsize=8.5)
    axes.grid(axis="both")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    if "ece" not in table:
        told = f"{table['rows']:,} rows: too few to tell"
    else:
        told = f"error {table['ece']['before']:.3f} → {table['ece']['after']:.3f} · {table['rows']:,} rows"
        for when, label, colour in (("before", "as trained", _TRAIN_COLOUR), ("after", "as it decides", _VAL_COLOUR)):
            points = [(row["confidence"], row["accuracy"]) for row in table[when]]
            axes.plot(*_columns(points), color=colour, label=label)
            shares = np.array([row["pixels"] for row in table[when]]) / sum(row["pixels"] for row in table[when])
            axes.scatter(*_columns(points), s=_DOT * np.maximum(shares, 0.02), color=colour, clip_on=False, zorder=3)
    axes.text(0, 1.03, told, transform=axes.transAxes, fontsize=7.5, color=MUTED)


def _draw_folds(axes: Any, configuration: ConfigurationResult, key: str) -> None:
    for fold, style in zip(configuration.folds, FOLD_STYLES * len(configuration.folds), strict=False):
        for prefix, colour in (("train", _TRAIN_COLOUR), ("val", _VAL_COLOUR)):
            points = _points(fold.history, f"{prefix}_{key}")
            axes.plot(*_columns(points), style, color=colour, linewidth=1.3)
            if prefix == "val":
                kept = [point for point in points if point[0] == fold.best_step]
                axes.plot(*_columns(kept), "o", color=colour, markersize=4.5, markeredgecolor="white")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(axis="y")


def _points(history: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    return [(record["step"], record[key]) for record in history if key in record]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _head(axes: Any, configuration: ConfigurationResult, *, is_best: bool) -> None:
    """Name a configuration, one parameter a line."""
    title = format_params(configuration.params).replace(" · ", "\n")
    axes.set_title(f"{title}\nchosen" if is_best else f"{title}\n", color=_VAL_COLOUR if is_best else INK, fontsize=8)


def _curve_legend(figure: Any, configurations: Sequence[ConfigurationResult]) -> None:
    handles: list[Any] = []
    axes = figure.axes[0]
    for label, colour in (("training", _TRAIN_COLOUR), ("validation", _VAL_COLOUR)):
        handles += axes.plot([], [], color=colour, label=label)
    for fold, style in zip(configurations[0].folds, FOLD_STYLES, strict=False):
        handles += axes.plot([], [], style, color=MUTED, label=f"fold {fold.fold}")
    handles += axes.plot([], [], "o", color=_VAL_COLOUR, markeredgecolor="white", label="kept")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), labelcolor=MUTED)
