"""Where a class is too unsure to be answered: the threshold of confidence below which its group of the legend is, learnt out of fold."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cropray.core.intervals import MIN_ZONES
from cropray.search.decision import ENOUGH_ROWS, NONE_KEPT, DecisionSettings, Floats, OutOfFold, taught_elsewhere
from cropray.training.decision import Decision


def least_percent(
    sure: npt.NDArray[np.uint8],
    is_right: npt.NDArray[np.bool_],
    zones: npt.NDArray[np.int64],
    weights: Floats,
    share: float,
) -> int:
    """The threshold of confidence from which on classes are right in `share` of the pixels of other zones.

    It is the smallest at which the share out of fold, less one standard error over zones, reaches that.

    The share that is right out of fold is only as often too high as too low: of a threshold that just reaches it, the classes that
    are kept were right as often as was asked for on 46-55 % of halves of the zones that had no part in it (points of Argentina and
    Arkansas, extra trees, 6 to 31 zones to learn from, shares of 0.85 to 0.95); with one standard error over zones on 64-81 %.

    Args:
        sure: [N] confidence in the class that is decided for, whole %, out of fold.
        is_right: [N] whether it is the true one.
        zones: [N] position of its zone.
        weights: [N] how many pixels a row stands for.
        share: 0-1.

    Returns:
        0: all classes are kept, as they are of less than two zones; `NONE_KEPT` where no threshold that keeps some in `MIN_ZONES`
        zones (or in all there are) reaches it.
    """
    names, zones = np.unique(zones, return_inverse=True)
    n_zones = len(names)
    if n_zones < 2:
        return 0
    pixels, right = np.zeros((2, n_zones, NONE_KEPT))
    np.add.at(pixels, (zones, sure), weights)
    np.add.at(right, (zones, sure), weights * is_right)
    pixels, right = (values[:, ::-1].cumsum(1)[:, ::-1] for values in (pixels, right))  # of at least so many %
    is_told = (pixels > 0).sum(0) >= min(MIN_ZONES, n_zones)
    mean = np.maximum(pixels.mean(0), np.finfo(float).tiny)
    found = right.mean(0) / mean
    errors = ((right - found * pixels) / mean).std(0) / math.sqrt(n_zones - 1)
    reached = np.flatnonzero(is_told & (found - errors >= share))
    return int(reached[0]) if len(reached) else NONE_KEPT


def learn_fall_back(
    found: OutOfFold, card: Mapping[str, Any], settings: DecisionSettings, groups: Sequence[int]
) -> dict[str, Any]:
    """From which confidence on classes are answered, and what that is worth in folds that had no part in it.

    Args:
        found: as for `learn_decision`.
        card: what that gave.
        settings: what is asked for.
        groups: [class] number of its group; none: the legend has no groups.

    Returns:
        `below_percent` (see `least_percent`; 0: no pixel falls back, `why` says why) and, where some may, `kept`, the share
        of pixels that keep their class, and how often classes and groups are right that are answered (None without such).
    """
    n_zones, n_rows = len(np.unique(found.zones)), len(found.labels)
    if not groups:
        return {"below_percent": 0, "why": "the legend has no groups between these classes and all of them"}
    if settings.fall_back_below is None and (n_zones < MIN_ZONES or n_rows < ENOUGH_ROWS):
        enough = f"{MIN_ZONES} and {ENOUGH_ROWS} are needed: set decision.fall_back_below, or take more zones"
        return {"below_percent": 0, "why": f"{n_rows} rows of {n_zones} zones are too few to learn from, {enough}"}

    def threshold(tempered: OutOfFold, tau: float, rows: npt.NDArray[np.bool_]) -> int:
        if settings.fall_back_below is not None:
            return settings.fall_back_below
        assert settings.fall_back is not None
        predicted = tempered.decided(tau)
        sure, is_right = tempered.sure(predicted), predicted == found.labels
        return least_percent(sure[rows], is_right[rows], found.zones[rows], found.weights[rows], settings.fall_back)

    keeps, is_right = np.zeros((2, n_rows), np.bool_)
    for rows, tempered, tau in taught_elsewhere(found, settings):
        predicted, by_group = tempered.decided(tau), tempered.groups_decided(tau, groups)
        keeps[rows] = (tempered.sure(predicted) >= threshold(tempered, tau, ~rows))[rows]
        of_group = by_group == np.array(groups)[found.labels]
        is_right[rows] = np.where(keeps, predicted == found.labels, of_group)[rows]
    weights = found.weights
    right = [float(np.average(is_right[of], weights=weights[of])) if of.any() else None for of in (keeps, ~keeps)]
    tempered = replace(found, probabilities=Decision(temperature=card["temperature"]).tempered(found.probabilities, 1))
    return {
        "below_percent": threshold(tempered, card["tau"], np.ones(n_rows, np.bool_)),
        "why": "",
        "kept": float(np.average(keeps, weights=weights)),
        "class_right": right[0],
        "group_right": right[1],
    }
