"""A loss, a sampler, an optimiser, a schedule and an augmentation of one's own."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from cropray.training.deep.augment import AUGMENTATIONS, Augmentation
from cropray.training.deep.losses import LOSSES, CrossEntropy
from cropray.training.deep.optim import OPTIMIZERS, SCHEDULES
from cropray.training.deep.samplers import SAMPLERS
from tests.own_entries.net import USED


@LOSSES.register("toy_loss")
@dataclass(frozen=True)
class ToyLoss:
    """A multiple of the cross-entropy."""

    times: float = 2.0

    def __call__(self, logits, labels, weights=None):
        """The sum."""
        USED.append(("loss", self.times))
        return self.times * CrossEntropy()(logits, labels, weights)


@AUGMENTATIONS.register("toy_change")
@dataclass(frozen=True)
class ToyChange(Augmentation):
    """All numbers grow."""

    by: float = 1.0

    def series(self, x, seeds, std):
        """Missing ones stay."""
        USED.append(("augment", self.by, len(std)))
        return torch.where(x == 0, 0, x + self.by)


@SAMPLERS.register("toy_sampler")
@dataclass(frozen=True)
class ToySampler:
    """The first samples."""

    share: float = 0.5

    def order(self, rng, n, rarest):
        """In their own order."""
        USED.append(("sampler", self.share))
        return np.arange(max(round(n * self.share), 1))


@OPTIMIZERS.register("toy_optimizer")
@dataclass(frozen=True)
class ToyOptimizer:
    """RMSprop."""

    alpha: float = 0.9

    def make(self, parameters, learning_rate, weight_decay):
        """Its state is tensors."""
        USED.append(("optimizer", self.alpha))
        return torch.optim.RMSprop(parameters, learning_rate, self.alpha)


@SCHEDULES.register("toy_schedule")
@dataclass(frozen=True)
class ToySchedule:
    """Straight down."""

    by_step: ClassVar[bool] = True
    least: float = field(default=0.1)

    def factor(self, done, of):
        """Of the learning rate."""
        return max(1 - done / of, self.least)


JOB = {
    "net": {"name": "toy_net", "width": 6, "layers": [2, 3]},
    "loss": {"name": "toy_loss", "times": "1e1"},  # as YAML reads 1e1
    "augment": ["dihedral", {"name": "toy_change", "by": 3}],
    "sampler": {"name": "toy_sampler", "share": 0.75},
    "optimizer": {"name": "toy_optimizer", "alpha": 0.8},
    "schedule": "toy_schedule",
    "dropout": 0.1,
    "epochs": 3,
    "batch_size": 4,
}
