"""Settings of maps."""

from typing import Final, Literal

from pydantic import Field

from cropray.settings import Settings

NO_RESULT: Final = {"device"}
"""Settings that no map depends on."""


class MapSettings(Settings):
    """How zones are mapped."""

    splits: Literal["test", "all"] = "test"
    """`test` maps the held-out zones, which no model has seen; `all` maps the training zones too."""
    window_px: int = Field(default=512, ge=32)
    """Height and width of what the model reads at once, margins included; bounds the memory."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the CNN predicts, for maps and for scores; `cuda` takes one GPU per zone that is at work. Both are computed in
    full float32, not in TF32: they differ by rounding. Trees predict on CPUs."""
