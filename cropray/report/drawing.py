"""What pictures of the report have in common: colours of models, and names of steps and counts on axes."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from typing import Any, Final, TypeVar

import numpy as np

from cropray.core.cube import Season
from cropray.core.sensors import Band
from cropray.io.pictures import INK

# Told apart by colour-blind readers too.
MODEL_COLOURS: Final = ("#1f6fb2", "#d9722b", "#2f8f5b", "#8a4fb0", "#b8860b", "#c2407a", "#3aa6b9", "#5b6770")
FOLD_STYLES: Final = ("-", "--", ":", "-.")
_Of = TypeVar("_Of")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
TITLE: Final[dict[str, Any]] = {"x": 0.01, "ha": "left", "fontsize": 9.5, "fontweight": "bold"}
"""Of a whole figure."""
CENTRED: Final[dict[str, Any]] = {"ha": "center", "va": "center", "fontsize": 6.8}
"""Text in a cell of a matrix."""
_DARK_CELL: Final = 0.55  # cells above this share of the scale are written in white


def in_colours(of_models: Iterable[_Of]) -> Iterator[tuple[_Of, str]]:
    """What is drawn of each model, with the model's colour; after the last one they begin again."""
    return zip(of_models, cycle(MODEL_COLOURS), strict=False)


def cells(axes: Any, shape: tuple[int, ...]) -> None:
    """White lines between the cells of a matrix."""
    axes.set_yticks(np.arange(shape[0] + 1) - 0.5, minor=True)
    axes.set_xticks(np.arange(shape[1] + 1) - 0.5, minor=True)
    axes.set_ylim(shape[0] - 0.5, -0.5)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.spines[:].set_visible(False)


def on_cell(share: float) -> str:
    """A text colour that can be read on a cell of this darkness, 0–1."""
    return "white" if share > _DARK_CELL else INK


def compact(count: float) -> str:
    """A count in at most four characters: `950`, `1.2k`, `34k`, `5.1M`."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        # 0.9995 of a unit already rounds up to it.
        if count >= 0.9995 * limit:
            scaled = count / limit
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return f"{count:.0f}"


def band_title(band: Band) -> str:
    """`B02, blue`."""
    return f"{band.id}, {band.name}" if band.name else band.id


def step_names(season: Season) -> tuple[str, ...]:
    """`Jan 2023` and so on for months, `11 Jan 2023` by their first days for other steps; the same in every locale."""
    is_month = season.cube.step == "month"
    return tuple(
        f"{'' if is_month else f'{start.day} '}{_MONTHS[start.month - 1]} {start.year}" for start, _ in season.steps
    )


def common_steps(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Names for an axis that several zones share: `Jan` and so on, or `11 Jan`.

    They are the positions `1` to T where seasons begin on different days of the year.
    """
    short = {tuple(name.rpartition(" ")[0] for name in steps) for steps in names}
    first = next(iter(short))
    return first if len(short) == 1 else tuple(str(i) for i in range(1, len(first) + 1))


def initials(names: Sequence[str]) -> tuple[str, ...]:
    """Short marks for an axis, of `step_names` or `common_steps`.

    The first letter of each month where one begins, empty for its further steps; positions stay as they are.
    """
    months = [next((word for word in name.split() if word.isalpha()), name) for name in names]
    marks = [month[0] if month.isalpha() else month for month in months]
    return tuple("" if i and months[i - 1] == month else marks[i] for i, month in enumerate(months))
