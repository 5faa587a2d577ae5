"""How a model decides between its classes and how sure it says it is: learnt out of fold, kept in its card.

Scores, maps and served models all decide by `Decision.decide`. Needs numpy only: a registered model carries this module.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

CARD_KEY: Final = "decision"

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done with the probabilities of a model; by default nothing, and the likeliest class is taken."""

    multipliers: tuple[float, ...] = ()
    """[class] the decision alone multiplies probabilities by these, 1 / frequency^tau; empty: by none."""
    temperature: float = 1.0
    """Probabilities become p^(1 / temperature), scaled to sum to 1: above 1 the model is less sure than it was."""

    set_threshold: float | None = None
    """Classes of at least this probability are a pixel's set; None: there are no sets."""

    group_below: int | None = None
    """Pixels whose confidence, whole %, is below this are answered by their group of the legend; None: none was asked for."""
    groups: tuple[int, ...] = ()
    """[class] number of its group, from 0."""
    group_names: tuple[str, ...] = ()
    """[group]."""

    def decide(self, probabilities: Probabilities, axis: int = 0) -> npt.NDArray[np.int64]:
        """Class index of each pixel; of equal ones the first.

        Args:
            probabilities: float32, as `tempered` gives them.
            axis: of the classes.
        """
        best: npt.NDArray[np.int64] = self.weighed(probabilities, axis).argmax(axis)
        return best

    def weighed(self, probabilities: Probabilities, axis: int = 0) -> Probabilities:
        """What `decide` compares: the probabilities themselves, or a new array."""
        if not self.multipliers:
            return probabilities
        shape = [1] * probabilities.ndim
        shape[axis] = len(self.multipliers)
        weighed: Probabilities = probabilities * np.array(self.multipliers, np.float32).reshape(shape)
        return weighed

    def answered(self, probabilities: Probabilities, axis: int = 0) -> npt.NDArray[np.int64]:
        """0 where the class stands that is decided for, else 1 + the number of the group that is answered in its stead.

        Args:
            probabilities: as `tempered` gives them.
            axis: of the classes.

        Raises:
            ValueError: no pixel was to be answered by its group.
        """
        if self.group_below is None:
            raise ValueError("this model answers no pixel by its group: its job asked for none (decision.fall_back)")
        best = np.expand_dims(self.decide(probabilities, axis), axis)
        is_unsure = percent(np.take_along_axis(probabilities, best, axis).squeeze(axis)) < self.group_below
        if not is_unsure.any():
            return np.zeros(is_unsure.shape, np.int64)
        of_groups = group_sums(np.moveaxis(self.weighed(probabilities, axis), axis, 0), self.groups)
        return np.where(is_unsure, 1 + of_groups.argmax(0), 0)

    def in_sets(self, probabilities: Probabilities) -> npt.NDArray[np.bool_]:
        """Whether each class belongs to the pixel's set, of probabilities as `tempered` gives them.

        Raises:
            ValueError: there are no sets.
        """
        if self.set_threshold is None:
            raise ValueError("this model has no sets of classes: none were asked for by its job (decision.coverage)")
        return probabilities >= self.set_threshold

    def tempered(self, probabilities: Probabilities, axis: int = 0) -> Probabilities:
        """Probabilities as people are told them; the same array where there is no temperature."""
        if self.temperature == 1.0:
            return probabilities
        powers: Probabilities = probabilities / probabilities.max(axis, keepdims=True)  # so that the largest stays 1
        np.power(powers, np.float32(1 / self.temperature), out=powers)
        powers /= powers.sum(axis, keepdims=True)
        return powers


LIKELIEST: Final = Decision()


def percent(confidence: Probabilities) -> npt.NDArray[np.uint8]:
    """Confidence as maps have it and thresholds are compared with, whole %."""
    return np.rint(100 * confidence).astype(np.uint8)


def group_sums(weighed: Probabilities, groups: Sequence[int]) -> Probabilities:
    """[class, …] as `Decision.weighed` gives it → [group, …]; `groups`: [class] number of its group."""
    sums = np.zeros((max(groups) + 1, *weighed.shape[1:]), np.float32)
    for group, of_class in zip(groups, weighed, strict=True):
        sums[group] += of_class
    return sums


def recorded_decision(card: Mapping[str, Any]) -> Decision:
    """What a card says; of one that says nothing, the likeliest class and the model's own probabilities.

    Raises:
        ValueError: it is for other classes than the model's.
    """
    record = card.get(CARD_KEY, {})
    by, of_groups = tuple(record.get("multipliers", ())), record.get("fall_back", {})
    found = Decision(
        by,
        record.get("temperature", 1.0),
        record.get("set_threshold"),
        of_groups.get("below_percent"),
        tuple(of_groups.get("groups", ())),
        tuple(of_groups.get("names", ())),
    )
    for name, values in (("multipliers", found.multipliers), ("groups", found.groups)):
        if len(values) not in (0, len(card["classes"])):
            raise ValueError(f"{len(values)} {name} for {len(card['classes'])} classes")
    return found


def decision_of(model: object) -> Decision:
    """What a model was read with (`evaluation.models.read_model`)."""
    found: Decision = getattr(model, "decision", LIKELIEST)
    return found
