"""Levels of the legend: scores of its groups, and answers that fall back to the group where the class is unsure."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from cropray.core.legend import CropClass
from cropray.core.metrics import Counts

N_PERCENT: Final = 101  # confidence in whole percent, as maps have it
_STEP: Final = 5  # %, between the points of a curve

Groups = dict[str, tuple[int, ...]]


def groups_of(classes: Sequence[CropClass]) -> Groups:
    """Level of the legend (`level_1` …, coarsest first) → number of each class's group, counted from 0.

    Left out are levels that say nothing of these classes: with one group, a group for each class, or the groups of the
    level above.
    """
    found: Groups = {}
    for depth in range(1, len(classes[0].levels) + 1):
        numbers: dict[tuple[str, ...], int] = {}
        groups = tuple(numbers.setdefault(crop.levels[:depth], len(numbers)) for crop in classes)
        if 1 < len(numbers) < len(classes) and groups not in found.values():
            found[f"level_{depth}"] = groups
    return found


def group_names(classes: Sequence[CropClass], level: str) -> list[str]:
    """Names of the groups of a level of `groups_of`, by their number; with those above it where several are called alike."""
    depth = int(level.removeprefix("level_"))
    paths = list(dict.fromkeys(crop.levels[:depth] for crop in classes))
    names = [path[-1] for path in paths]
    return names if len(set(names)) == len(names) else [" / ".join(path) for path in paths]


def merged(cube: Counts, groups: Sequence[int]) -> Counts:
    """[…, true, predicted] over groups, from the same over classes: a class taken for another of its group is right."""
    to_group = np.eye(max(groups) + 1, dtype=np.int64)[list(groups)]
    counts: Counts = to_group.T @ cube @ to_group
    return counts


def fall_back(counts: Counts) -> list[dict[str, Any]]:
    """What it would be worth to answer with the group where the class is unsure, for thresholds of confidence.

    Args:
        counts: [confidence in %, (pixels, whose class is right, whose group is right)] int64.

    Returns:
        One row (see `answered_from`) per threshold, from the class for all pixels to the group for all.
    """
    return [answered_from(threshold, counts) for threshold in (*range(0, N_PERCENT, _STEP), N_PERCENT)]


def answered_from(threshold: int, counts: Counts) -> dict[str, Any]:
    """The same for one threshold.

    Returns:
        `threshold_percent` of confidence below which the group is answered, `share_of_class` of pixels that keep their
        class, `accuracy` of the answers as given, and `accuracy_of_class` and `accuracy_of_group` of either kind of
        answers; None without such.
    """
    (unsure, _, right_groups), (sure, right, _) = (
        counts[:threshold].sum(0).tolist(),
        counts[threshold:].sum(0).tolist(),
    )
    return {
        "threshold_percent": threshold,
        "share_of_class": sure / (sure + unsure),
        "accuracy": (right + right_groups) / (sure + unsure),
        "accuracy_of_class": right / sure if sure else None,
        "accuracy_of_group": right_groups / unsure if unsure else None,
    }
