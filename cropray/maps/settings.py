"""Settings of maps."""

from typing import Final, Literal

from pydantic import Field

from cropray.settings import Settings

NO_RESULT: Final = {"device", "splits"}
"""Settings that the map of a zone does not depend on."""


class MapSettings(Settings):
    """How zones are mapped."""

    splits: Literal["test", "all"] = "test"
    """`test` maps the held-out zones, which no model has seen; `all` maps the training zones too."""
    window_px: int | None = Field(default=None, ge=32)
    """Height and width of what the model reads at once, margins included; it bounds the memory. None: what computes least
    within a task's share of the node's memory, a whole zone if it can be. Test zones are scored in the same windows."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the CNN predicts, for maps and for scores; `cuda` takes one GPU per zone that is at work. Both are computed in
    full float32, not in TF32: they differ by rounding. Trees predict on CPUs."""
