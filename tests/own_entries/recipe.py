"""A loss, an augmentation, a sampler, an optimiser and a schedule of one's own."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from cropray.training.deep.augment import AUGMENTATIONS, Augmentation
from cropray.training.deep.losses import LOSSES, CrossEntropy
from cropray.training.deep.optim import OPTIMIZERS, SCHEDULES
from cropray.training.deep.samplers import SAMPLERS


@LOSSES.register("toy_loss")
@dataclass(frozen=True)
class ToyLoss:
    """A multiple of the cross-entropy."""

    times: float = 2.0

    def __call__(self, logits_BKHW, labels_BHW, weights_K=None, weights_BHW=None):
        """The sum over the labelled pixels."""
        return self.times * CrossEntropy()(logits_BKHW, labels_BHW, weights_K, weights_BHW)


@AUGMENTATIONS.register("toy_change")
@dataclass(frozen=True)
class ToyChange(Augmentation):
    """All numbers grow."""

    by: float = 1.0

    def series(self, x_BTCHW, seeds_B, std_C):
        """Missing ones (0) stay missing."""
        return torch.where(x_BTCHW == 0, 0, x_BTCHW + self.by)


@SAMPLERS.register("toy_sampler")
@dataclass(frozen=True)
class ToySampler:
    """The first samples, in their own order."""

    share: float = 0.5

    def order(self, rng, n, rarest):
        """Indices of the samples of one epoch."""
        return np.arange(max(round(n * self.share), 1))


@OPTIMIZERS.register("toy_optimizer")
@dataclass(frozen=True)
class ToyOptimizer:
    """RMSprop."""

    alpha: float = 0.9

    def make(self, parameters, learning_rate, weight_decay):
        """A torch optimiser whose state is tensors, so that a fit can be kept and go on."""
        return torch.optim.RMSprop(parameters, learning_rate, self.alpha)


@SCHEDULES.register("toy_schedule")
@dataclass(frozen=True)
class ToySchedule:
    """Straight down."""

    by_step: ClassVar[bool] = True
    least: float = 0.1

    def factor(self, done, of):
        """What the learning rate is multiplied with after `done` of `of` epochs."""
        return max(1 - done / of, self.least)
