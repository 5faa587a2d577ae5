"""Optimisers and schedules of the learning rate, by name.

Another one is a class here (or in a plug-in) below `OPTIMIZERS.register` or `SCHEDULES.register`; its fields are its
settings. torch is loaded only when an optimiser is made, so that a job file is read without it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from cropray.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, optim


class Optimizer(Protocol):
    """Makes a torch optimiser."""

    def make(self, parameters: "Iterable[Tensor]", learning_rate: float, weight_decay: float) -> "optim.Optimizer":
        """An optimiser whose state is tensors: it is kept with a fit's progress."""


class Schedule(Protocol):
    """The learning rate over a fit."""

    by_step: ClassVar[bool]
    """Whether the rate changes with every step; otherwise with every epoch."""

    def factor(self, done: float, of: int) -> float:
        """What the learning rate is multiplied by after `done` of `of` epochs, 0 ≤ done < of."""


OPTIMIZERS: Final[Registry[Optimizer]] = Registry("optimizer")
SCHEDULES: Final[Registry[Schedule]] = Registry("schedule")


@OPTIMIZERS.register("adamw")
@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW:
    """Adam with decoupled decay; with `weight_decay` 0 it is the study's Adam. Source: arXiv 1711.05101."""

    def make(self, parameters: "Iterable[Tensor]", learning_rate: float, weight_decay: float) -> "optim.Optimizer":
        """See `Optimizer`."""
        from torch import optim  # noqa: PLC0415 - see the head of the file

        return optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)


@OPTIMIZERS.register("sgd")
@dataclass(frozen=True, slots=True, kw_only=True)
class Sgd:
    """Gradient descent with Nesterov's momentum."""

    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not 0.0 < self.momentum < 1.0:
            raise ValueError(f"momentum must be above 0 and below 1; got {self.momentum}")

    def make(self, parameters: "Iterable[Tensor]", learning_rate: float, weight_decay: float) -> "optim.Optimizer":
        """See `Optimizer`."""
        from torch import optim  # noqa: PLC0415

        return optim.SGD(parameters, learning_rate, self.momentum, weight_decay=weight_decay, nesterov=True)


@SCHEDULES.register("constant")
@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """The same in all epochs; the study's."""

    by_step: ClassVar[bool] = False

    def factor(self, done: float, of: int) -> float:  # noqa: ARG002 - constant
        """1."""
        return 1.0


@SCHEDULES.register("cosine")
@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine:
    """From epoch to epoch lower, to nearly 0 in the last. Source: Loshchilov & Hutter 2017, arXiv 1608.03983."""

    by_step: ClassVar[bool] = False

    def factor(self, done: float, of: int) -> float:
        """Half a cosine."""
        return (1 + math.cos(math.pi * done / of)) / 2


@SCHEDULES.register("one_cycle")
@dataclass(frozen=True, slots=True, kw_only=True)
class OneCycle:
    """Step by step from a small rate up to the full one and down to nearly 0. Source: Smith & Topin 2018, arXiv 1708.07120."""

    by_step: ClassVar[bool] = True

    warmup: float = 0.3
    """Share of the fit in which the rate rises."""
    start: float = 0.04
    """First rate, of the full one."""
    end: float = 4e-6
    """Last rate, of the full one."""

    def __post_init__(self) -> None:
        if not 0.0 < self.warmup < 1.0:
            raise ValueError(f"warmup must be above 0 and below 1; got {self.warmup}")
        if not (0.0 < self.start <= 1.0 and 0.0 < self.end <= 1.0):
            raise ValueError(f"start and end must be above 0 and at most 1; got {self.start} and {self.end}")

    def factor(self, done: float, of: int) -> float:
        """Half a cosine up, half a cosine down."""
        share = done / of
        if share < self.warmup:
            return _between(self.start, 1.0, share / self.warmup)
        return _between(1.0, self.end, (share - self.warmup) / (1 - self.warmup))


def _between(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
