"""The training loop of the CNN: torch and numpy only, on one process or on many.

Workers share a `torch.distributed` process group; without one there is one worker. What W workers compute is what one
computes: the order of the tiles, their orientation and the dropout masks are functions of (seed, epoch, tile); each
worker takes its share of every global batch; batch-norm moments, loss denominators and scores are global sums.

Axes: B batch (the worker's share), T months, C bands, H rows, W columns, K classes.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cropray.core.metrics import PROBABILITY_FLOOR, Counts, metric_of, score
from cropray.nets.norm import world_size
from cropray.training.choices import ClassWeighting, Schedule
from cropray.training.deep.tiles import IGNORE, N_SYMMETRIES, TileSet

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
    """Tiles of a global batch, over all workers."""
    patience: int = 3
    """Epochs without improvement after which training stops; without validation all epochs are run."""
    monitor: str = "val_loss"
    """What improves: `val_` and the key of one of `METRICS`."""
    schedule: Schedule = "constant"
    """`cosine` lowers the learning rate from epoch to epoch, to nearly 0 in the last of `epochs`."""
    weight_decay: float = 0.0
    class_weighting: ClassWeighting = "none"
    augment: bool = False
    """Turn and mirror training tiles."""


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
    """`{parameter number}.{name}` → AdamW's moments and step."""
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
    train: TileSet,
    val: TileSet | None,
    plan: FitPlan,
    on_epoch: Callable[[Record], None] | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Train until validation stops improving, and keep the best weights.

    Args:
        model: `CropNet`, on its device and initialised alike on all workers.
        train: the training tiles, the same on all workers.
        val: validation tiles, the same on all workers; None: run all epochs and keep the last. The loss that stops
            the fit leaves out classes without a training pixel.
        plan: how to fit.
        on_epoch: called after each epoch with its record; at once for epochs that `progress` brought back.
        progress: where the fit goes on from, and what each epoch is handed to. An epoch depends on the state before
            it and on (seed, epoch, tile) alone: a fit that went on ends with the bits of one that ran through.

    Raises:
        FloatingPointError: the loss is no number any more.
        ValueError: fewer training tiles or a smaller batch than workers, or a label out of range.
    """
    counts_K = train.class_counts(plan.n_classes)
    weights_K = class_weights(counts_K, plan.class_weighting).to(_device(model))
    untrained = tuple(np.flatnonzero(counts_K == 0).tolist())
    # Adam with decoupled decay; with weight_decay 0 it is the study's Adam.
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True)
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
        for group in optimizer.param_groups:
            group["lr"] = scheduled_rate(plan, epoch)
        train_loss = train_epoch(parallel, optimizer, train, weights_K, plan, epoch)
        # What is not validated to stop the fit is validated once, at its end.
        scored = val if plan.n_epochs is None or epoch == last else None
        validation = None if scored is None else evaluate(model, scored, plan.n_classes, plan.batch_size, untrained)
        history.append({"epoch": epoch, "train_loss": train_loss, **_scores(validation)})
        if on_epoch is not None:
            on_epoch(history[-1])
        if best is None or _badness(history[-1], plan) < _badness(history[best.best_epoch - 1], plan):
            best = FitResult(_copy_weights(model), (), epoch, validation)
        elif epoch - best.best_epoch >= plan.patience:
            break
        if progress is not None:
            progress.save(FitState(model.state_dict(), _optimizer_tensors(optimizer), tuple(history), best))
    assert best is not None
    return FitResult(best.weights, tuple(history), best.best_epoch, best.validation)


def scheduled_rate(plan: FitPlan, epoch: int) -> float:
    """Learning rate of an epoch, counted from 1. Source of the cosine: Loshchilov & Hutter 2017, arXiv 1608.03983."""
    if plan.schedule == "constant":
        return plan.learning_rate
    return plan.learning_rate * (1 + math.cos(math.pi * (epoch - 1) / plan.epochs)) / 2


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, tiles: TileSet, weights_K: Tensor, plan: FitPlan, epoch: int
) -> float:
    """One pass over all training tiles, in batches whose sizes differ by at most one.

    Returns:
        Mean (weighted) training loss per labelled pixel over all workers, nats.

    Raises:
        FloatingPointError: the loss is no number any more.
    """
    model.train()
    device = _device(model)
    sums = torch.zeros(2, dtype=torch.float64, device=device)  # loss, labelled pixels
    for share in epoch_shares(len(tiles), plan, epoch):
        batch = tiles.batch(share.tiles, device, share.turns)
        logits_BKHW = model(batch.x, torch.from_numpy(share.seeds).to(device))
        loss_sum = summed_loss(logits_BKHW, batch.labels, weights_K)
        n_global = sum_over_workers(batch.labelled().sum())
        # The gradient of (global sum ÷ global count): DDP averages over workers, hence the factor.
        (loss_sum * world_size() / n_global.clamp_min(1)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        sums += torch.stack([loss_sum.detach().double(), batch.labelled().sum().double()])
    loss, n_pixels = sum_over_workers(sums).tolist()  # the epoch's only GPU-CPU sync point
    mean: float = loss / max(n_pixels, 1.0)
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"training loss is {mean} in epoch {epoch} at learning rate {plan.learning_rate:g}; "
            f"lower the learning rate, or look for broken values in the composites"
        )
    return mean


def summed_loss(logits_BKHW: Tensor, labels_BHW: Tensor, weights_K: Tensor | None = None) -> Tensor:
    """Cross-entropy summed over the labelled pixels, in the same order every time.

    On a GPU torch's own sum adds with atomics, in an order that changes: there the losses of the pixels are summed apart.
    """
    is_on_gpu = logits_BKHW.is_cuda
    how = "none" if is_on_gpu else "sum"
    loss = F.cross_entropy(logits_BKHW, labels_BHW, weight=weights_K, ignore_index=IGNORE, reduction=how)
    return loss.sum() if is_on_gpu else loss


@torch.no_grad()
def evaluate(
    model: nn.Module, tiles: TileSet, n_classes: int, batch_size: int = 64, untrained: tuple[int, ...] = ()
) -> Evaluation:
    """Loss and confusion over all labelled pixels, each counted once.

    Workers score their own tiles and add sums. The loss is unweighted, whatever training weighs, and is that of
    `metrics.log_loss_sum`: bounded by the same floor, from the same float32 probabilities.

    Args:
        model: `CropNet`, on its device and alike on all workers.
        tiles: the same on all workers.
        n_classes: K.
        batch_size: tiles at once.
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
        logits_NK = model(batch.x).movedim(1, -1)[batch.labelled()]
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
    """[B] tile numbers; may be empty."""
    turns: npt.NDArray[np.int64]
    """[B] symmetry of each tile, 0 … 7."""
    seeds: npt.NDArray[np.int64]
    """[B] dropout seed of each tile, 0 … 2³² - 1."""


def epoch_shares(n_tiles: int, plan: FitPlan, epoch: int) -> Iterator[Share]:
    """This worker's share of every global batch of an epoch.

    Order, orientation and dropout seeds belong to (seed, epoch, tile): the number of workers changes none of them.
    """
    if n_tiles == 0:
        raise ValueError("there are no training tiles; check that the training zones hold labels")
    rng = np.random.default_rng([plan.seed, epoch])
    order = rng.permutation(n_tiles)
    seeds = rng.integers(2**32, size=n_tiles)
    turns = rng.integers(N_SYMMETRIES, size=n_tiles) if plan.augment else np.zeros(n_tiles, np.int64)
    for batch in np.array_split(order, math.ceil(n_tiles / plan.batch_size)):
        own = np.array_split(batch, world_size())[_rank()]
        yield Share(own, turns[own], seeds[own])


def class_weights(counts_K: npt.NDArray[np.int64], weighting: ClassWeighting) -> Tensor:
    """Loss weight of each class; the mean over labelled training pixels is 1.

    Args:
        counts_K: labelled pixels per class in the training tiles, no others.
        weighting: `none`, or weights ∝ 1 / √count; classes without training pixels get 0, they are no target.

    Returns:
        [K] float32.
    """
    if weighting == "none":
        return torch.ones(len(counts_K))
    weights = np.where(counts_K > 0, 1 / np.sqrt(np.maximum(counts_K, 1)), 0.0)
    mean = (weights * counts_K).sum() / max(counts_K.sum(), 1)
    return torch.from_numpy(weights / mean).float()


def sum_over_workers(value: Tensor) -> Tensor:
    """The sum of a value over all workers, on each of them."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


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
    if plan.n_epochs is not None or "val_loss" not in record:
        return -record["epoch"]
    return -record[plan.monitor] if metric_of(plan.monitor).higher_is_better else record[plan.monitor]


def _copy_weights(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy({name: value.detach().cpu() for name, value in model.state_dict().items()})


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0
