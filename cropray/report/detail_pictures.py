"""The same test counted otherwise, for the page: rows of its tables, and its picture."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cropray.core.metrics import headlines
from cropray.evaluation.results import ModelResult, ReportInputs
from cropray.io.pictures import MUTED, picture
from cropray.io.storage import Location
from cropray.report.class_pictures import models_legend
from cropray.report.drawing import compact, in_colours

_COUNTED: Final = {
    "parcel_sizes": "Size of the pixel's parcel, ha",
    "clear_steps": "Clear steps of the pixel",
}
_RULES: Final = {"majority": "Parcels, by most of their pixels", "mean_probability": "Parcels, by mean probability"}
_PLACES: Final = {"worst": "Worst zone", "lower_quartile": "Lower quartile of zones", "median": "Median zone"}
_LINES: Final = ("-", "--", ":", "-.")  # of the headline scores, in order
_MARKED: Final = (50, 70, 90)  # %, thresholds of confidence
_FEWEST: Final = 100  # pixels of a group that is drawn: a handful lie in one parcel, and their score is its luck
_SHIFT: Final = 0.12  # distance of two models at a group, groups


@dataclass(frozen=True, slots=True)
class DetailRow:
    """One way of counting: a score and a remark (its interval, or the name of a zone) per model and headline score."""

    title: str
    n: int | None
    """What is counted; None: zones."""
    cells: tuple[tuple[str, str], ...]


def detail_rows(models: Sequence[ModelResult]) -> tuple[DetailRow, ...]:
    """Scores by parcel and by zone; none where no model was evaluated so."""
    told = [model.detail for model in models]
    rows: list[DetailRow] = []
    for rule, title in _RULES.items():
        found = [each.get("parcels", {}).get(rule) for each in told]
        rows += _scored(title, found)
    for level in dict.fromkeys(level for each in told for level in each.get("levels", {})):
        found = [each.get("levels", {}).get(level) for each in told]
        n_groups = next(each["groups"] for each in found if each)
        rows += _scored(f"Pixels, in {n_groups} groups of {level}", found)
    for place, title in _PLACES.items():
        cells = [cell for each in told for cell in _of_zones(each.get("zones", {}), place)]
        rows += [DetailRow(title, None, tuple(cells))] if any(told) else []
    return tuple(rows)


def group_rows(models: Sequence[ModelResult]) -> dict[str, tuple[DetailRow, ...]]:
    """The same by group: title of the table → its rows."""
    tables = {}
    for name, title in _COUNTED.items():
        told = [{row["group"]: row for row in model.detail.get(name, ())} for model in models]
        groups = max(told, key=len, default={})
        if groups:
            tables[title] = tuple(row for group in groups for row in _scored(group, [each.get(group) for each in told]))
    return tables


def in_words(model: ModelResult) -> str:
    """One line for a terminal: scores by parcel, the worst zone, and answers by group; empty of an evaluation by an earlier version."""
    parcels, zones = model.detail.get("parcels"), model.detail.get("zones", {})
    worst = [
        f"{m.called} {zones[m.key]['worst']:.4f} ({zones[m.key]['worst_zone']})" for m in headlines() if m.key in zones
    ]
    parts = [f"in the worst zone {', '.join(worst)}"] if worst else []
    if parcels is not None:
        scores = [f"{m.called} {parcels['majority']['metrics'][f'test_{m.key}']:.4f}" for m in headlines()]
        parts.insert(0, f"by parcel {', '.join(scores)}")
    if used := (model.detail.get("fall_back") or {}).get("used"):
        right = [
            f"{name} right in {used[key]:.1%}"
            for name, key in (("these", "accuracy_of_class"), ("the groups of the others", "accuracy_of_group"))
            if used[key] is not None
        ]
        kept = f"{used['share_of_class']:.1%} of pixels keep their class from {used['threshold_percent']} % of confidence on"
        parts.append(", ".join([kept, *right]))
    return f"{model.label}: {'; '.join(parts)}" if parts else ""


def draw_detail(inputs: ReportInputs, path: Location) -> bool:
    """Headline scores by size of parcel and by clear steps, with intervals, and answers by group where the class is unsure.

    False where there was nothing to draw.
    """
    shown = [(name, title) for name, title in _COUNTED.items() if any(name in m.detail for m in inputs.models)]
    if not shown:
        return False
    falls_back = any(model.detail.get("fall_back") for model in inputs.models)
    with picture(path, 0.5 + 2.9 * (len(shown) + falls_back), 3.3) as figure:
        panels = figure.subplots(1, len(shown) + falls_back, squeeze=False)[0]
        if falls_back:
            _draw_fall_back(panels[-1], inputs.models)
        for axes, (name, title) in zip(panels, shown, strict=False):
            _draw_groups(axes, inputs.models, name)
            axes.set(ylim=(0, 1.02), title=title)
            axes.grid(axis="y")
        for metric, line in zip(headlines(), _LINES, strict=False):
            panels[0].plot([], [], line, color=MUTED, label=metric.label)
        panels[0].legend(loc="lower left", labelcolor=MUTED)
        models_legend(panels[0], inputs.models)
    return True


def _draw_groups(axes: Any, models: Sequence[ModelResult], name: str) -> None:
    """One dot per group, score and model; below it, what is counted."""
    titles: dict[str, int] = {}
    for m, (model, colour) in enumerate(in_colours(models)):
        rows = model.detail.get(name, ())
        titles |= {row["group"]: row["n"] for row in rows}
        places = [[*titles].index(row["group"]) + _SHIFT * (m - (len(models) - 1) / 2) for row in rows]
        for metric, line in zip(headlines(), _LINES, strict=False):
            key = f"test_{metric.key}"
            values = [row["metrics"][key] if row["n"] >= _FEWEST else math.nan for row in rows]
            axes.plot(places, values, line, marker="o", markersize=4, color=colour)
            for x, row in zip(places, rows, strict=True):
                if row["intervals"] and row["n"] >= _FEWEST:
                    axes.plot([x, x], row["intervals"][key], color=colour, linewidth=3, alpha=0.25)
    marks = [f"{title.replace(' ha', '')}\n{compact(n)}" for title, n in titles.items()]
    axes.set_xticks(
        range(len(titles)),
        [mark.replace(" and more", "+").replace("below ", "< ").replace(" size", "") for mark in marks],
    )
    few = f"; below {_FEWEST} not drawn" if min(titles.values(), default=_FEWEST) < _FEWEST else ""
    axes.set_xlabel(f"and its pixels{few}")


def _draw_fall_back(axes: Any, models: Sequence[ModelResult]) -> None:
    """The curve of each model, from the group for all pixels to the class for all; some thresholds are written beside it."""
    for model, colour in in_colours(models):
        curve = (model.detail.get("fall_back") or {}).get("curve", ())
        points = [(row["share_of_class"], row["accuracy"]) for row in curve]
        axes.plot(*zip(*points, strict=True) if points else ((), ()), marker="o", markersize=3, color=colour)
        for row, point in zip(curve, points, strict=True):
            if row["threshold_percent"] in _MARKED:
                mark = f"{row['threshold_percent']} %"
                axes.annotate(mark, point, (3, 4), textcoords="offset points", color=colour, fontsize=7)
    axes.set(title="Unsure pixels answered by group", xlabel="share answered by class", xlim=(-0.02, 1.02))
    axes.set_ylabel("accuracy of the answers")
    axes.grid(axis="both")


def _scored(title: str, found: Sequence[Mapping[str, Any] | None]) -> Iterator[DetailRow]:
    """The row of some scores (`evaluation.detail.scored`), of models that have them; none where no model has."""
    n = next((each["n"] for each in found if each), None)
    if n is not None:
        yield DetailRow(title, n, tuple(cell for each in found for cell in _cells(each)))


def _cells(found: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    for metric in headlines():
        key = f"test_{metric.key}"
        if found is None:
            yield "–", ""
        else:
            ends = (found["intervals"] or {}).get(key)
            yield f"{found['metrics'][key]:.4f}", "" if ends is None else f"[{ends[0]:.2f}–{ends[1]:.2f}]"


def _of_zones(spread: Mapping[str, Any], place: str) -> Iterator[tuple[str, str]]:
    for metric in headlines():
        found = spread.get(metric.key)
        yield ("–", "") if found is None else (f"{found[place]:.4f}", found["worst_zone"] if place == "worst" else "")
