"""How pictures of the report look, and how one is written."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from cropray.core.cube import Season
from cropray.io.storage import Location, whole_file

INK: Final = "#1f2933"
MUTED: Final = "#6b7785"
LINE: Final = "#d9dee4"
MODEL_COLOURS: Final = ("#1f6fb2", "#d9722b", "#2f8f5b", "#8a4fb0")  # told apart by colour-blind readers too
FOLD_STYLES: Final = ("-", "--", ":", "-.")
DPI: Final = 160
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_STYLE: Final[dict[str, Any]] = {
    "axes.axisbelow": True,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 8.5,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


@contextlib.contextmanager
def picture(path: Location, width: float, height: float) -> Iterator[Figure]:
    """A figure to draw on; written whole as PNG when the block ends well.

    Args:
        path: file to write.
        width: inches.
        height: inches.
    """
    with mpl.rc_context(_STYLE), whole_file(path) as temporary:
        figure = Figure((width, height), layout="constrained")
        yield figure
        # No software tag: the same results give the same bytes.
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def compact(count: float) -> str:
    """A count in at most four characters: `950`, `1.2k`, `34k`, `5.1M`."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        # 0.9995 of a unit already rounds up to it.
        if count >= 0.9995 * limit:
            scaled = count / limit
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return f"{count:.0f}"


def step_names(season: Season) -> tuple[str, ...]:
    """`Jan 2023` and so on for months, `11 Jan 2023` by their first days for other steps; the same in every locale."""
    is_month = season.cube.step == "month"
    return tuple(
        f"{'' if is_month else f'{start.day} '}{_MONTHS[start.month - 1]} {start.year}" for start, _ in season.steps
    )


def common_steps(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Names for an axis that several zones share.

    Returns:
        `Jan` and so on, or `11 Jan`; the positions `1` to T where seasons begin on different days of the year.
    """
    short = {tuple(name.rpartition(" ")[0] for name in steps) for steps in names}
    first = next(iter(short))
    return first if len(short) == 1 else tuple(str(i) for i in range(1, len(first) + 1))


def initials(names: Sequence[str]) -> tuple[str, ...]:
    """Short marks for an axis: the first letter of each month where one begins, empty for its further steps.

    Args:
        names: of `step_names` or `common_steps`; positions stay as they are.
    """
    months = [next((word for word in name.split() if word.isalpha()), name) for name in names]
    marks = [month[0] if month.isalpha() else month for month in months]
    return tuple("" if i and months[i - 1] == month else marks[i] for i, month in enumerate(months))
