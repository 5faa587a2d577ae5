"""Which training samples an epoch takes, and in which order. Needs numpy only.

Another sampler is a class here (or in a plug-in) below `SAMPLERS.register`; its fields are its settings. What it draws
depends on (seed, epoch) alone, and is the same on all workers, each of which takes its share of every batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from cropray.core.registry import Registry

Indices = npt.NDArray[np.int64]
NO_CLASS: Final = 255  # of a sample without a labelled pixel


class Sampler(Protocol):
    """Draws an epoch."""

    def order(self, rng: np.random.Generator, n: int, rarest: Callable[[], npt.NDArray[np.uint8]]) -> Indices:
        """Numbers of the samples of an epoch, in order; a sample may come several times or not at all.

        Args:
            rng: of this seed and epoch.
            n: samples that there are, at least 1.
            rarest: gives [n] uint8, of each sample the class with the fewest training pixels among its own, or NO_CLASS.
        """


SAMPLERS: Final[Registry[Sampler]] = Registry("sampler")


def _require_several(n: int | None) -> None:
    if n is not None and n < 2:
        raise ValueError(f"n must be at least 2, as one sample is no batch; got {n}")


@SAMPLERS.register("all")
@dataclass(frozen=True, slots=True, kw_only=True)
class All:
    """Every sample once an epoch; with `n`, so many: more than there are come again, fewer are other ones each time."""

    n: int | None = None
    """Samples of an epoch; None: as many as there are."""

    def __post_init__(self) -> None:
        _require_several(self.n)

    def order(self, rng: np.random.Generator, n: int, rarest: Callable[[], npt.NDArray[np.uint8]]) -> Indices:  # noqa: ARG002 - not needed here
        """See `Sampler`."""
        wanted = self.n or n
        rounds = [rng.permutation(n) for _ in range(-(-wanted // n))]
        return np.concatenate(rounds)[:wanted]


@SAMPLERS.register("class_balanced")
@dataclass(frozen=True, slots=True, kw_only=True)
class ClassBalanced:
    """Draws with replacement, so that each class is the rarest one of as many drawn samples as any other."""

    n: int | None = None
    """Samples of an epoch; None: as many as there are."""
    power: float = 1.0
    """Samples are drawn by 1 / frequencyᵖᵒʷᵉʳ; 0 draws all alike."""

    def __post_init__(self) -> None:
        _require_several(self.n)
        if not 0.0 <= self.power <= 1.0:
            raise ValueError(f"power must be from 0 to 1; got {self.power}")

    def order(self, rng: np.random.Generator, n: int, rarest: Callable[[], npt.NDArray[np.uint8]]) -> Indices:
        """See `Sampler`."""
        classes = rarest()
        counts = np.bincount(classes, minlength=NO_CLASS + 1).astype(np.float64)
        shares = np.zeros_like(counts)
        np.divide(1.0, counts**self.power, out=shares, where=counts > 0)
        shares[NO_CLASS] = 0.0
        weights = shares[classes]
        return rng.choice(n, size=self.n or n, p=weights / weights.sum())


def earlier_draws(order: Indices) -> Indices:
    """[M] how often each sample came before in an epoch."""
    earlier = np.zeros(len(order), np.int64)
    if np.bincount(order).max(initial=0) > 1:
        place = np.argsort(order, kind="stable")
        position, ranked = np.arange(len(order)), order[place]
        is_first = np.append(True, ranked[1:] != ranked[:-1])
        earlier[place] = position - np.maximum.accumulate(np.where(is_first, position, 0))
    return earlier
