"""A feature of one's own: the slope of each series."""

import numpy as np

from cropray.core.features import FEATURES, Derived


@FEATURES.register("toy_slope")
class ToySlope(Derived):
    """Difference of the last and the first step, stored around 32768."""

    def columns(self, series, steps):
        """One column of each series that has two steps."""
        return [f"{series}_slope"] if len(steps) > 1 else []

    def compute(self, series):
        """[N, T] stored numbers → [N, 1]; missing (0) where an end is."""
        first, last = series[:, 0].astype(int), series[:, -1].astype(int)
        there = (first > 0) & (last > 0)
        return np.where(there, np.clip(last - first + 32_768, 1, 65_535), 0).astype(np.uint16)[:, None]
