"""Scores and their intervals for scripts of one's own: `from cropray.metrics import score, bootstrap_intervals`."""

from cropray.core.intervals import bootstrap_difference, bootstrap_intervals
from cropray.core.metrics import METRICS, Metric, score

__all__ = ["METRICS", "Metric", "bootstrap_difference", "bootstrap_intervals", "score"]
