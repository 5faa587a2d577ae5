"""Losses that a network can be trained with, by name. Validation is always scored by `cropray.core.metrics`' own.

Another one is a class here (or in a plug-in) below `LOSSES.register`; its fields are its settings. torch is loaded only
when a loss is computed, so that a job file is read without it.

Axes: B samples, K classes, H rows, W columns.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias

from cropray.core.errors import ConfigError
from cropray.core.legend import IGNORE, CropClass
from cropray.core.registry import Choice, Registry, name_of

if TYPE_CHECKING:
    from torch import Tensor

    Weights: TypeAlias = Tensor | None


class Loss(Protocol):
    """What a fit lowers."""

    def __call__(
        self, logits_BKHW: "Tensor", labels_BHW: "Tensor", weights_K: "Weights" = None, weights_BHW: "Weights" = None
    ) -> "Tensor":
        """The sum over labelled pixels, in the same order every time; nats.

        Args:
            logits_BKHW: float32.
            labels_BHW: int64 class index, or IGNORE.
            weights_K: float32 weight of each class; None: 1.
            weights_BHW: float32 weight of each pixel, beside its class's; None: 1. A loss without this argument cannot be
                trained with where a dataset has weights.
        """


LOSSES: Final[Registry[Loss]] = Registry("loss")


def made_loss(choice: Choice, classes: Sequence[CropClass]) -> Loss:
    """A loss with its settings; one that has a method `knowing(classes)` is what that gives.

    Raises:
        ConfigError: there is no such loss, or it cannot be had for these classes.
    """
    loss = LOSSES.make(choice)
    knowing: Callable[[Sequence[CropClass]], Loss] | None = getattr(loss, "knowing", None)
    return loss if knowing is None else knowing(classes)


def require_weighing(choice: Choice) -> None:
    """See that a loss takes weights of pixels.

    Raises:
        ConfigError: it does not.
    """
    if "weights_BHW" not in inspect.signature(LOSSES.entry(choice).__call__).parameters:
        raise ConfigError(
            f"the dataset has weights of points, and the loss '{name_of(choice)}' takes none (no argument 'weights_BHW'): "
            f"choose another loss, or leave the column 'weight' out of the table"
        )


@LOSSES.register("cross_entropy")
@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEntropy:
    """Negative log-likelihood; the study's."""

    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes. Source: Szegedy et al. 2015, arXiv 1512.00567."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must be at least 0 and below 1; got {self.label_smoothing}")

    def __call__(
        self, logits_BKHW: "Tensor", labels_BHW: "Tensor", weights_K: "Weights" = None, weights_BHW: "Weights" = None
    ) -> "Tensor":
        """On a GPU torch's own sum adds with atomics, in an order that changes: there pixels are summed apart."""
        from torch.nn import functional as F  # noqa: N812, PLC0415 - see the head of the file

        is_apart = logits_BKHW.is_cuda or weights_BHW is not None
        how = "none" if is_apart else "sum"
        loss = F.cross_entropy(
            logits_BKHW,
            labels_BHW,
            weight=weights_K,
            ignore_index=IGNORE,
            reduction=how,
            label_smoothing=self.label_smoothing,
        )
        if weights_BHW is not None:
            loss = loss * weights_BHW
        return loss.sum() if is_apart else loss


@LOSSES.register("focal")
@dataclass(frozen=True, slots=True, kw_only=True)
class Focal:
    """(1 - p)^γ · cross-entropy: pixels that the network is sure of count less. Source: Lin et al. 2017, arXiv 1708.02002."""

    gamma: float = 2.0

    def __post_init__(self) -> None:
        if self.gamma < 0:
            raise ValueError(f"gamma must be at least 0; got {self.gamma}")

    def __call__(
        self, logits_BKHW: "Tensor", labels_BHW: "Tensor", weights_K: "Weights" = None, weights_BHW: "Weights" = None
    ) -> "Tensor":
        """See `Loss`."""
        from torch.nn import functional as F  # noqa: N812, PLC0415

        labelled_BHW = labels_BHW != IGNORE
        true_N = labels_BHW[labelled_BHW]
        losses_N = F.cross_entropy(logits_BKHW.movedim(1, -1)[labelled_BHW], true_N, reduction="none")
        # Where p is 1 the power has no slope for γ < 1; a sure pixel has no loss either.
        doubt_N = (-(-losses_N).expm1()).clamp_min(1e-12)
        losses_N = doubt_N**self.gamma * losses_N
        losses_N = losses_N if weights_K is None else losses_N * weights_K[true_N]
        return (losses_N if weights_BHW is None else losses_N * weights_BHW[labelled_BHW]).sum()


@LOSSES.register("hierarchical")
@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchical:
    """Cross-entropy of the class, and beside it that of each group of the legend that the class is in.

    The probability of a group is the sum of its classes' probabilities: a pixel that is taken for a crop of the same group costs
    less than one that is taken for any other. Source of the idea: Turkoglu et al. 2021, "Crop mapping from image time series:
    deep learning with multi-scale label hierarchies" (arXiv 2102.08820), whose network has an output for each level.
    """

    weights: tuple[float, ...] = (0.1, 0.3)
    """Weight of each level's cross-entropy beside the class's, coarsest level first; 0 leaves a level out."""
    groups: tuple[tuple[int, ...], ...] = field(default=(), init=False)
    """[level][class] number of the group that the class is in; `knowing` gives them."""

    def __post_init__(self) -> None:
        if not any(self.weights) or min(self.weights) < 0:
            raise ValueError(f"weights must be at least 0, and one of them above; got {self.weights}")

    def knowing(self, classes: Sequence[CropClass]) -> Self:
        """The loss for these classes, in their order.

        Raises:
            ConfigError: the legend has fewer levels, or none that counts puts two of the classes together.
        """
        n_levels = min((len(crop.levels) for crop in classes), default=0)
        if len(self.weights) > n_levels:
            raise ConfigError(
                f"the loss 'hierarchical' has {len(self.weights)} weights, and the legend {n_levels} levels: leave some out"
            )
        levels = [[crop.levels[level] for crop in classes] for level in range(len(self.weights))]
        if all(len(set(names)) == len(names) for names, weight in zip(levels, self.weights, strict=True) if weight):
            raise ConfigError(
                "the legend puts no two classes of the dataset into a group, which the loss 'hierarchical' needs: give the "
                "legend the columns level_1, level_2, … or choose the loss cross_entropy"
            )
        known = replace(self)
        object.__setattr__(known, "groups", tuple(tuple(names.index(name) for name in names) for names in levels))
        return known

    def __call__(
        self, logits_BKHW: "Tensor", labels_BHW: "Tensor", weights_K: "Weights" = None, weights_BHW: "Weights" = None
    ) -> "Tensor":
        """See `Loss`; the weight of a pixel's class counts at all levels."""
        labelled_BHW = labels_BHW != IGNORE
        true_N = labels_BHW[labelled_BHW]
        log_p_NK = logits_BKHW.movedim(1, -1)[labelled_BHW].log_softmax(dim=1)
        losses_N = -log_p_NK.gather(1, true_N[:, None]).squeeze(1)
        for groups, weight in zip(self.groups, self.weights, strict=True):
            group_K = true_N.new_tensor(groups)
            is_other_NK = group_K != group_K[true_N][:, None]
            losses_N = losses_N - weight * log_p_NK.masked_fill(is_other_NK, -math.inf).logsumexp(dim=1)
        losses_N = losses_N if weights_K is None else losses_N * weights_K[true_N]
        return (losses_N if weights_BHW is None else losses_N * weights_BHW[labelled_BHW]).sum()
