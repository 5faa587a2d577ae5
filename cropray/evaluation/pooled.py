"""Tests put together: of several splits of the same zones, and of two models side by side."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from cropray.core.errors import AccountingError, InputError
from cropray.core.intervals import Difference, bootstrap_class_differences, bootstrap_difference
from cropray.core.metrics import Counts
from cropray.io.storage import Location, local_file

BETTER: Final = "macro_f1", "accuracy"  # the scores of a verdict, in this order


@dataclass(frozen=True, slots=True)
class Counted:
    """The counts of some zones by one model, or of each zone by the model that did not see it."""

    zone_ids: tuple[str, ...]
    classes: tuple[str, ...]
    """Names of the classes, in the order of the cube's axes."""
    cube: Counts
    """[zone, true, predicted] int64."""
    loss_sum: float
    """Negative log-likelihood summed over the labelled pixels, nats."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model less another one, on the same zones and labels."""

    zone_ids: tuple[str, ...]
    scores: dict[str, Difference]
    """Score (`test_accuracy` …) → difference; empty where zones are too few for intervals."""
    classes: dict[str, Difference]
    """Class → difference of its F1."""


def read_counted(folder: Location, classes: Sequence[str] | None = None) -> Counted:
    """What an evaluation counted.

    Args:
        folder: with `cube.npy` and `scores.json`.
        classes: names of the dataset's classes; None: the scores say them.

    Raises:
        InputError: they are not as many as the cube's.
    """
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    classes = scores["classes"] if classes is None else classes
    with local_file(folder / "cube.npy") as file:
        cube: Counts = np.load(file, allow_pickle=False)
    if cube.shape != (len(scores["zone_ids"]), len(classes), len(classes)):
        raise InputError(
            f"'{folder}' counts {cube.shape[1]} classes in {cube.shape[0]} zones, the dataset has {len(classes)} classes: "
            f"it is of an earlier dataset; run `cropray evaluate CONFIG.yaml` again"
        )
    return Counted(tuple(scores["zone_ids"]), tuple(classes), cube, scores["loss_sum"])


def pool(parts: Sequence[Counted]) -> Counted:
    """The tests of several splits as one; a class that one dataset lacks has no counts there.

    Raises:
        AccountingError: a zone was tested twice.
    """
    zone_ids = tuple(zone_id for part in parts for zone_id in part.zone_ids)
    twice = sorted({zone_id for zone_id in zone_ids if zone_ids.count(zone_id) > 1})
    if twice:
        raise AccountingError(f"the zones {twice} were tested more than once, so that their pixels would count twice")
    classes = _all_classes(parts)
    cube = np.concatenate([_over(part, classes).cube for part in parts])
    return Counted(zone_ids, classes, cube, sum(part.loss_sum for part in parts))


def compare(a: Counted, b: Counted, seed: int) -> Comparison:
    """Scores of one model less those of another one, on the zones that both were tested on.

    Args:
        a: the one.
        b: the other.
        seed: of the bootstrap.

    Raises:
        InputError: they have no zone in common, or other labels in one.
    """
    shared = tuple(zone_id for zone_id in a.zone_ids if zone_id in b.zone_ids)
    if not shared:
        raise InputError("the two have no test zone in common; models are compared on the same zones and labels only")
    classes = _all_classes([a, b])
    one, other = (_of_zones(_over(side, classes), shared) for side in (a, b))
    unlike = [z for z, m, n in zip(shared, one.cube.sum(2), other.cube.sum(2), strict=True) if (m != n).any()]
    if unlike:
        raise InputError(
            f"the two count other labels in {len(unlike)} of {len(shared)} zones, the first is '{unlike[0]}': build both "
            f"datasets from the same labels, with the same buffer and legend"
        )
    of_classes = bootstrap_class_differences(one.cube, other.cube, seed)
    named = {classes[index]: difference for index, difference in of_classes.items()}
    return Comparison(shared, bootstrap_difference(one.cube, other.cube, seed), named)


def verdict(difference: Difference, a: str, b: str) -> str:
    """Whether one model is better by a score of which more is better: its interval leaves out 0, or nothing can be said.

    Args:
        difference: `a` less `b`.
        a: what the one is called.
        b: what the other is called.
    """
    if difference.low > 0:
        return f"{a} is better"
    if difference.high < 0:
        return f"{b} is better"
    return "not distinguishable"


def _all_classes(parts: Sequence[Counted]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in parts for name in part.classes))


def _over(tested: Counted, classes: tuple[str, ...]) -> Counted:
    """The same counts over more classes, in another order."""
    places = [classes.index(name) for name in tested.classes]
    cube = np.zeros((len(tested.cube), len(classes), len(classes)), np.int64)
    cube[np.ix_(range(len(cube)), places, places)] = tested.cube
    return replace(tested, classes=classes, cube=cube)


def _of_zones(tested: Counted, zone_ids: Sequence[str]) -> Counted:
    return replace(
        tested, zone_ids=tuple(zone_ids), cube=tested.cube[[tested.zone_ids.index(zone_id) for zone_id in zone_ids]]
    )
