"""The picture of scores by the last step of time that a model sees."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from cropray.io.pictures import MUTED, picture
from cropray.io.storage import Location
from cropray.report.drawing import MODEL_COLOURS, TITLE

_PER_ROW: Final = 4
_ACCURACY, _F1, _RELIABLE, *_ = MODEL_COLOURS
_REGION: Final = "#9aa5b1"


def draw_season(record: Mapping[str, Any], path: Location) -> None:
    """Draw as PNG what `cropray season` writes: all crops and regions, then crop by crop, the most frequent first.

    Where a crop is reliable is marked.
    """
    rows, last = record["steps"], record["steps"][-1]["classes"]
    steps = [row["step"] for row in rows]
    crops = sorted(last, key=lambda name: -last[name]["support"])
    n_rows = -(-(1 + len(crops)) // _PER_ROW)
    with picture(path, 2.3 * _PER_ROW, 0.9 + 1.75 * n_rows) as figure:
        panels = figure.subplots(n_rows, _PER_ROW, sharex=True, sharey=True, squeeze=False)
        for axes in panels.flat:
            axes.set_visible(False)
        for axes, name in zip(panels.flat, [None, *crops], strict=False):
            axes.set_visible(True)
            axes.set(ylim=(-0.03, 1.03), title="All crops" if name is None else name)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.tick_params(labelbottom=True)
            axes.grid(axis="y")
            if name is None:
                _draw_all(axes, steps, rows)
            else:
                axes.axhline(record["reliable"], color=MUTED, linewidth=0.8, linestyle=":")
                _draw_crop(axes, [row["classes"].get(name, {}) for row in rows], steps, record["reliable_from"][name])
        figure.suptitle(f"{record['model']}, out of fold: scores by the last {record['step']} that it sees", **TITLE)
        _legend(figure, record["reliable"])


def _draw_all(axes: Any, steps: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> None:
    for region in rows[-1]["regions"]:
        axes.plot(steps, [row["regions"][region]["val_macro_f1"] for row in rows], color=_REGION, linewidth=1)
    for key, colour in (("accuracy", _ACCURACY), ("macro_f1", _F1)):
        if rows[0]["intervals"]:
            ends = zip(*(row["intervals"][f"test_{key}"] for row in rows), strict=True)
            axes.fill_between(steps, *ends, color=colour, alpha=0.18, linewidth=0)
        axes.plot(steps, [row["metrics"][f"val_{key}"] for row in rows], "o-", color=colour, markersize=3)


def _draw_crop(axes: Any, found: Sequence[Mapping[str, float]], steps: Sequence[int], start: int | None) -> None:
    known = [(step, one) for step, one in zip(steps, found, strict=True) if "low" in one]
    axes.fill_between(
        [step for step, _ in known], *([one[end] for _, one in known] for end in ("low", "high")),
        color=_F1, alpha=0.18, linewidth=0,
    )  # fmt: skip
    axes.plot(steps, [one.get("f1") for one in found], "o-", color=_F1, markersize=3)
    if start is not None:
        axes.axvline(start, color=_RELIABLE, linewidth=1.6)


def _legend(figure: Any, reliable: float) -> None:
    lines = [
        (_ACCURACY, "accuracy", "-", "o"), (_F1, "F1 (all crops: macro F1)", "-", "o"), (_REGION, "macro F1 of a region", "-", ""),
        (MUTED, f"F1 {reliable:g}", ":", ""), (_RELIABLE, "reliable from", "-", ""),
    ]  # fmt: skip
    handles: list[Any] = [
        Line2D([], [], color=colour, label=label, linestyle=style, marker=marker, markersize=3)
        for colour, label, style, marker in lines
    ]
    handles.append(Patch(color=_F1, alpha=0.18, label="95 % interval over zones"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), labelcolor=MUTED, fontsize=7.5)
