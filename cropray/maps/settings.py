"""Settings of maps."""

from typing import Literal

from pydantic import Field

from cropray.core.settings import Settings


class MapSettings(Settings):
    """How zones are mapped."""

    splits: Literal["test", "all"] = "test"
    """`test` maps the held-out zones, which no model has seen; `all` maps the training zones too."""
    window_px: int | None = Field(default=None, ge=32)
    """Height and width of what the model reads at once, margins included; it bounds the memory. None: what computes least
    within a task's share of the node's memory, a whole zone if it can be. Test zones are scored in the same windows."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where networks predict, for maps, for scores and out of fold; `cuda` takes one GPU per zone that is at work. All are
    computed in full float32, not in TF32: they differ by rounding. Trees predict on CPUs."""

    def resources(self) -> frozenset[str]:
        """Devices differ by rounding."""
        return frozenset({"device"})
