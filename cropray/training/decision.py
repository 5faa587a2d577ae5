"""How a model decides between its classes and how sure it says it is: learnt out of fold, kept in its card.

Scores, maps and served models all decide by `Decision.decide`. Needs numpy only: a registered model carries this module.
"""

from collections.abc import Mapping
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


def recorded_decision(card: Mapping[str, Any]) -> Decision:
    """What a card says; of one that says nothing, the likeliest class and the model's own probabilities.

    Raises:
        ValueError: it is for other classes than the model's.
    """
    record = card.get(CARD_KEY, {})
    by = tuple(record.get("multipliers", ()))
    found = Decision(by, record.get("temperature", 1.0), record.get("set_threshold"))
    if len(found.multipliers) not in (0, len(card["classes"])):
        raise ValueError(f"{len(found.multipliers)} multipliers for {len(card['classes'])} classes")
    return found


def decision_of(model: object) -> Decision:
    """What a model was read with (`evaluation.models.read_model`)."""
    found: Decision = getattr(model, "decision", LIKELIEST)
    return found
