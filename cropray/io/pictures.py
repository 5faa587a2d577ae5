"""Pictures: how all of them look, and how one is written."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from cropray.io.storage import Location, whole_file

INK: Final = "#1f2933"
MUTED: Final = "#6b7785"
LINE: Final = "#d9dee4"
DPI: Final = 160

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
def picture(path: Location, width: float, height: float, **style: Any) -> Iterator[Figure]:
    """A figure of some inches to draw on, in the common style but for `style`; written whole as PNG when the block ends well."""
    with mpl.rc_context({**_STYLE, **style}), whole_file(path) as temporary:
        figure = Figure((width, height), layout="constrained")
        yield figure
        # No software tag: the same results give the same bytes.
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
