"""What a network may know of its samples beside their normalised numbers.

Axes: B batch, T steps, C bands, H rows, W columns.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Context:
    """Of one batch."""

    numbers: Tensor
    """[B, T, C, H, W] digital numbers of any type, 0 = no data."""
    seeds: Tensor | None = None
    """[B] int64, 0 ≤ seed < 2³²: what a network draws for a sample while it trains, see `SampleDropout`. None: not trained."""

    @property
    def valid(self) -> Tensor:
        """[B, T, H, W] bool, true where any band has a value."""
        return (self.numbers.float() != 0).any(dim=2)

    @property
    def steps(self) -> Tensor:
        """[T] int64 position of each step in the season, from 0."""
        return torch.arange(self.numbers.shape[1], device=self.numbers.device)


def seeds_of(context: Context | None) -> Tensor | None:
    """Seeds of the samples; None: there are none."""
    return None if context is None else context.seeds
