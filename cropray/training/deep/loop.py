"""The training loop of networks: torch and numpy only, on one process or on many.

Workers share a `torch.distributed` process group; without one there is one worker. What W workers compute is what one
computes: the order of the samples, their augmentation and the dropout masks are functions of (seed, epoch, sample); each
worker takes its share of every global batch; batch-norm moments, loss denominators and scores are global sums.

Axes: B batch (the worker's share), T months, C bands, H rows, W columns, K classes.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cropray.core.errors import ConfigError, InputError
from cropray.core.legend import CropClass
from cropray.core.metrics import PROBABILITY_FLOOR, Counts, metric_of, score
from cropray.core.registry import Choice
from cropray.nets.context import Context
from cropray.nets.norm import sum_over_workers, world_size
from cropray.training.deep.augment import N_SYMMETRIES, Augment, augmentations, augmented
from cropray.training.deep.device import tf32
from cropray.training.deep.losses import made_loss
from cropray.training.deep.optim import OPTIMIZERS, SCHEDULES
from cropray.training.deep.samplers import SAMPLERS, earlier_draws
from cropray.training.deep.tiles import Samples
from cropray.training.weights import ClassWeighting, class_weights

_AGAIN: Final = 0x9E3779B1  # apart seeds of a sample that comes several times; 2³² ÷ the golden ratio, odd
Record = dict[str, float]
"""One epoch: epoch (from 1), train_loss and, with validation, val_loss, val_accuracy, val_macro_…, val_untrained_pixels"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan:
    """How to fit; the network itself is not part of it."""

    n_classes: int
    learning_rate: float
    seed: int
    epochs: int = 50
    """Most epochs, and those over which the schedule falls."""
    n_epochs: int | None = None
    """Stop after so many epochs of the schedule, whatever validation says: how a recipe that was validated is repeated
    on other zones. None: validation stops, at the latest after `epochs`."""
    batch_size: int = 64
    """Samples of a global batch, over all workers; one more in the last ones rather than a batch of a single sample."""
    patience: int | None = 3
    """Epochs without improvement after which training stops; without validation all epochs are run. None: all are run, and the
    last one is kept whatever validation says."""
    monitor: str = "val_loss"
    """What improves: `val_` and the key of one of `METRICS`."""
    loss: Choice = "cross_entropy"
    sampler: Choice = "all"
    optimizer: Choice = "adamw"
    schedule: Choice = "constant"
    weight_decay: float = 0.0
    class_weighting: ClassWeighting = "none"
    augment: Augment = False
    zero: tuple[float, ...] = ()
    """Of each band the number that its value 0 would have, which `augment` scales about; (): 0."""
    classes: tuple[CropClass, ...] = ()
    """Class of each index, for losses that know the legend's groups."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Exact sums over labelled pixels, of all workers."""

    loss_sum: float
    """Negative log-likelihood of the pixels of trained classes, nats; see `cropray.core.metrics`."""
    confusion: Counts
    """[K, K] true × predicted, of all labelled pixels."""
    untrained: tuple[int, ...] = ()
    """Indices of the classes that the training zones lack."""
    untrained_loss_sum: float = 0.0
    """Negative log-likelihood of the pixels of these classes, nats."""


@dataclass(frozen=True, slots=True)
class FitResult:
    """A finished fit; equal on all workers."""

    weights: dict[str, Tensor]
    """State of the best epoch, on the CPU: a copy, not the live weights."""
    history: tuple[Record, ...]
    best_epoch: int
    """From 1."""
    validation: Evaluation | None
    """Of the best epoch; None without validation tiles. With `FitPlan.n_epochs` the last epoch alone is validated."""


@dataclass(frozen=True, slots=True)
class FitState:
    """A fit between two epochs: all that the next epoch depends on."""

    weights: dict[str, Tensor]
    """Network state, running moments included."""
    optimizer: dict[str, Tensor]
    """`{parameter number}.{name}` → the optimiser's moments and step."""
    history: tuple[Record, ...]
    """One record per finished epoch."""
    best: FitResult
    """Best epoch so far, without history."""


class Progress(Protocol):
    """Keeps the state of a fit beyond its process."""

    def load(self) -> FitState | None:
        """The state that was kept, the same on all workers; None: start with the first epoch."""

    def save(self, state: FitState) -> None:
        """Keep a state. Called on all workers after every epoch but the one that ends the fit early."""


def fit(
    model: nn.Module,
    train: Samples,
    val: Samples | None,
    plan: FitPlan,
    on_epoch: Callable[[Record], None] | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Train until validation stops improving, and keep the best weights; without `patience` train to the end and keep the last.

    Args:
        model: a `Net`, on its device and initialised alike on all workers.
        train: the training samples, the same on all workers.
        val: validation samples, the same on all workers; None: run all epochs and keep the last. The loss that stops
            the fit leaves out classes without a training pixel.
        plan: how to fit.
        on_epoch: called after each epoch with its record; at once for epochs that `progress` brought back.
        progress: where the fit goes on from, and what each epoch is handed to. An epoch depends on the state before
            it and on (seed, epoch, sample) alone: a fit that went on ends with the bits of one that ran through.

    Raises:
        FloatingPointError: the loss is no number any more.
        ConfigError: the plan names an entry that is not known, or its `monitor` could not be computed.
        InputError: the training samples hold fewer than two labelled pixels.
        ValueError: a label is out of range.
    """
    counts_K = _require_labels(train.class_counts(plan.n_classes))
    weights_K = torch.from_numpy(class_weights(counts_K, plan.class_weighting)).float().to(_device(model))
    untrained = tuple(np.flatnonzero(counts_K == 0).tolist())
    optimizer = OPTIMIZERS.make(plan.optimizer).make(model.parameters(), plan.learning_rate, plan.weight_decay)
    state = None if progress is None else progress.load()
    history: list[Record] = []
    best = None
    if state is not None:
        _restore(model, optimizer, state)
        history, best = list(state.history), state.best
        if on_epoch is not None:
            for record in history:
                on_epoch(record)
    parallel = _parallel(model)
    last = plan.n_epochs or plan.epochs
    for epoch in range(len(history) + 1, last + 1):
        _set_rate(optimizer, scheduled_rate(plan, epoch))
        train_loss = train_epoch(parallel, optimizer, train, weights_K, plan, epoch)
        # What is not validated to stop the fit is validated once, at its end.
        scored = val if plan.n_epochs is None or epoch == last else None
        validation = None if scored is None else evaluate(model, scored, plan.n_classes, plan.batch_size, untrained)
        history.append({"epoch": epoch, "train_loss": train_loss, **_scores(validation)})
        if on_epoch is not None:
            on_epoch(history[-1])
        if best is None or _badness(history[-1], plan) < _badness(history[best.best_epoch - 1], plan):
            best = FitResult(_copy_weights(model), (), epoch, validation)
        elif plan.patience is not None and epoch - best.best_epoch >= plan.patience:
            break
        if progress is not None:
            progress.save(FitState(model.state_dict(), _optimizer_tensors(optimizer), tuple(history), best))
    assert best is not None
    return FitResult(best.weights, tuple(history), best.best_epoch, best.validation)


def _require_labels(counts_K: Counts) -> Counts:
    if counts_K.sum() < 2:
        raise InputError(
            f"the training zones hold {counts_K.sum()} labelled pixels; a network needs 2 at least: check their labels, or "
            f"take more zones"
        )
    return counts_K


def scheduled_rate(plan: FitPlan, epoch: int, done: float = 0.0) -> float:
    """Learning rate of an epoch, counted from 1, of which a share is done."""
    return plan.learning_rate * SCHEDULES.make(plan.schedule).factor(epoch - 1 + done, plan.epochs)


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, tiles: Samples, weights_K: Tensor, plan: FitPlan, epoch: int
) -> float:
    """One pass over the samples that the plan's sampler draws, in batches whose sizes differ by at most one.

    Returns:
        Mean (weighted) training loss per labelled pixel over all workers, nats.

    Raises:
        FloatingPointError: the loss is no number any more.
    """
    model.train()
    device, loss, by_step = _device(model), made_loss(plan.loss, plan.classes), SCHEDULES.make(plan.schedule).by_step
    changes = augmentations(plan.augment)
    sums = torch.zeros(2, dtype=torch.float64, device=device)  # loss, labelled pixels or their weights
    for share in epoch_shares(len(tiles), plan, epoch, partial(tiles.rarest_classes, plan.n_classes)):
        if by_step:
            _set_rate(optimizer, scheduled_rate(plan, epoch, share.done))
        seeds_B = torch.from_numpy(share.seeds).to(device)
        change = (
            partial(augmented, changes=changes, seeds_B=seeds_B, std=tiles.stats.std, zero=plan.zero)
            if changes
            else None
        )
        batch = tiles.batch(share.tiles, device, share.turns, change)
        of_pixels = () if batch.weights is None else (batch.weights,)
        loss_sum = loss(model(batch.x, Context(batch.numbers, seeds_B)), batch.labels, weights_K, *of_pixels)
        n_global = sum_over_workers(batch.total())
        # The gradient of (global sum ÷ global count): DDP averages over workers, hence the factor.
        (loss_sum * world_size() / torch.where(n_global > 0, n_global, 1)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        sums += torch.stack([loss_sum.detach().double(), batch.total().double()])
    total, n_pixels = sum_over_workers(sums).tolist()  # the epoch's only GPU-CPU sync point
    mean: float = total / (n_pixels or 1.0)
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"training loss is {mean} in epoch {epoch} at learning rate {plan.learning_rate:g}; "
            f"lower the learning rate, or look for broken values in the composites"
        )
    return mean


@torch.no_grad()
@tf32(allowed=False)
def evaluate(
    model: nn.Module, tiles: Samples, n_classes: int, batch_size: int = 64, untrained: tuple[int, ...] = ()
) -> Evaluation:
    """Loss and confusion over all labelled pixels, each counted once.

    Workers score their own tiles and add sums. The loss is unweighted, whatever training weighs, and is that of
    `metrics.log_loss_sum`: bounded by the same floor, from the same float32 probabilities, in full float32 on a GPU too.

    Args:
        model: a `Net`, on its device and alike on all workers.
        tiles: the same on all workers.
        n_classes: K.
        batch_size: samples at once.
        untrained: indices of classes whose pixels' loss is summed apart.

    Raises:
        FloatingPointError: the loss is no number.
    """
    model.eval()
    device = _device(model)
    is_untrained_K = torch.zeros(n_classes, dtype=torch.bool, device=device)
    is_untrained_K[list(untrained)] = True
    loss_sums = torch.zeros(2, dtype=torch.float64, device=device)  # of trained and of other classes
    counts = torch.zeros(n_classes * n_classes, dtype=torch.int64, device=device)
    own = np.arange(_rank(), len(tiles), world_size())
    for start in range(0, len(own), batch_size):
        batch = tiles.batch(own[start : start + batch_size], device)
        logits_NK = model(batch.x, Context(batch.numbers)).movedim(1, -1)[batch.labelled()]
        true = batch.labels[batch.labelled()]
        losses = _log_losses(logits_NK, true)
        is_apart = is_untrained_K[true]
        loss_sums += torch.stack([losses[~is_apart].sum(), losses[is_apart].sum()])
        counts += torch.bincount(true * n_classes + logits_NK.argmax(dim=1), minlength=n_classes * n_classes)
    loss, loss_apart = sum_over_workers(loss_sums).tolist()
    if not math.isfinite(loss + loss_apart):
        raise FloatingPointError(
            f"validation loss is {loss + loss_apart}; lower the learning rate or look for broken inputs"
        )
    confusion = sum_over_workers(counts).reshape(n_classes, n_classes).cpu().numpy()
    return Evaluation(loss, confusion, untrained, loss_apart)


def _log_losses(logits_NK: Tensor, true: Tensor) -> Tensor:
    """[N] float64 loss of each pixel, nats: the definition of `metrics.log_loss_sum` where the logits are."""
    of_truth = logits_NK.float().softmax(dim=1).gather(1, true[:, None]).squeeze(1)
    return -of_truth.double().clamp_min(PROBABILITY_FLOOR).log()


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's part of one global batch."""

    tiles: npt.NDArray[np.int64]
    """[B] sample numbers; may be empty."""
    turns: npt.NDArray[np.int64]
    """[B] symmetry of each sample, 0 … 7."""
    seeds: npt.NDArray[np.int64]
    """[B] seed of each sample's dropout and augmentation, 0 … 2³² - 1."""
    done: float
    """Share of the epoch that lies before the batch."""


def epoch_shares(
    n_tiles: int, plan: FitPlan, epoch: int, rarest: Callable[[], npt.NDArray[np.uint8]] | None = None
) -> Iterator[Share]:
    """This worker's share of every global batch of an epoch.

    Order, orientation and seeds belong to (seed, epoch, sample): the number of workers changes none of them.

    Args:
        n_tiles: training samples.
        plan: how to fit.
        epoch: from 1.
        rarest: see `Sampler.order`; None: for samplers that draw by no class.
    """
    rng = np.random.default_rng([plan.seed, epoch])
    order = SAMPLERS.make(plan.sampler).order(rng, n_tiles, rarest or (lambda: np.zeros(n_tiles, np.uint8)))
    again = earlier_draws(order)
    seeds = (rng.integers(2**32, size=n_tiles)[order] + again * _AGAIN) % 2**32
    turns = np.zeros(len(order), np.int64)
    for change in augmentations(plan.augment):
        if (drawn := change.turns(rng, n_tiles)) is not None:
            turns = (drawn[order] + again) % N_SYMMETRIES
    n_batches = min(math.ceil(len(order) / plan.batch_size), max(len(order) // 2, 1))
    for number, batch in enumerate(np.array_split(np.arange(len(order)), n_batches)):
        own = np.array_split(batch, world_size())[_rank()]
        yield Share(order[own], turns[own], seeds[own], number / n_batches)


def _set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _parallel(model: nn.Module) -> nn.Module:
    if world_size() == 1:
        return model
    device = _device(model)
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        broadcast_buffers=False,  # batch-norm's running moments: equal on all workers already
        # Nothing is unused; but otherwise DDP regroups gradients after its first step, and three or more workers add
        # each group in an order of its own: the first step after an interruption would differ in the last bits.
        find_unused_parameters=True,
    )


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    moments = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, of_one in moments.items() for name, value in of_one.items()}


def _restore(model: nn.Module, optimizer: torch.optim.Optimizer, state: FitState) -> None:
    model.load_state_dict(state.weights)
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in state.optimizer.items():
        number, name = key.split(".", 1)
        moments.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _scores(validation: Evaluation | None) -> Record:
    if validation is None:
        return {}
    return score(validation.confusion, validation.loss_sum, validation.untrained).as_metrics("val")


def _badness(record: Record, plan: FitPlan) -> float:
    """What must fall; where validation does not choose, the latest epoch is the best."""
    if plan.n_epochs is not None or plan.patience is None or "val_loss" not in record:
        return -record["epoch"]
    if plan.monitor not in record:
        raise ConfigError(
            f"{plan.monitor} cannot be computed of these validation zones (epoch {record['epoch']}): set monitor to another score"
        )
    return -record[plan.monitor] if metric_of(plan.monitor).higher_is_better else record[plan.monitor]


def _copy_weights(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy({name: value.detach().cpu() for name, value in model.state_dict().items()})


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0
