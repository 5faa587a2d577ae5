"""Batch normalisation over the batch of all workers.

With W workers, each holding a slice of the global batch, every worker normalises with the moments of the whole
batch: a fit on two workers is the fit on one. Without a process group it is `torch.nn.BatchNorm2d`.
(`torch.nn.SyncBatchNorm` does the same, but on GPUs only.)
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """Number of workers that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_workers(value: Tensor) -> Tensor:
    """The sum of a value over all workers, on each of them."""
    total = value.clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


class GlobalBatchNorm(nn.BatchNorm2d):
    """Batch normalisation of [B, C, …, …] whose training moments are those of the global batch.

    Workers may hold different numbers of samples, none included. A single value per channel is its own mean: nothing of it
    is left but the channel's bias.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalise each channel; same shape."""
        is_one_value = x_BCHW.numel() == x_BCHW.shape[1]  # which torch refuses
        if not self.training or (world_size() == 1 and not is_one_value):
            return super().forward(x_BCHW)
        mean_C, var_C, n = _global_moments(x_BCHW)
        self._track(mean_C.detach(), var_C.detach(), n)
        scale_C = self.weight * torch.rsqrt(var_C + self.eps)
        shift_C = self.bias - mean_C * scale_C
        return torch.addcmul(shift_C[:, None, None], x_BCHW, scale_C[:, None, None])

    @torch.no_grad()
    def _track(self, mean_C: Tensor, var_C: Tensor, n: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean_C, self.momentum)
        # Running variance is the unbiased one, as in torch.nn.BatchNorm2d.
        self.running_var.lerp_(var_C * (n / (n - 1).clamp_min(1)).to(var_C.dtype), self.momentum)


def _global_moments(x_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C], biased variance [C] and number of values per channel, over all workers.

    Local moments are merged as float64 sums: one all-reduce, and no cancellation in E[x²] - E[x]².
    """
    n_channels = x_BCHW.shape[1]
    n_local = x_BCHW.numel() // n_channels
    if n_local:
        var_C, mean_C = torch.var_mean(x_BCHW, dim=(0, 2, 3), correction=0)
    else:
        var_C = mean_C = x_BCHW.sum(dim=(0, 2, 3))  # zeros that keep the graph, and so the backward all-reduce
    mean_C, var_C = mean_C.double(), var_C.double()
    count = mean_C.new_full((1,), n_local)
    local = torch.cat([n_local * mean_C, n_local * (var_C + mean_C.square()), count])
    sums = _AllReduceSum.apply(local)  # type: ignore[no-untyped-call]
    n = sums[-1].detach()
    mean_C = sums[:n_channels] / n
    var_C = (sums[n_channels:-1] / n - mean_C.square()).clamp_min(0.0)
    return mean_C.to(x_BCHW.dtype), var_C.to(x_BCHW.dtype), n


class _AllReduceSum(torch.autograd.Function):
    """Sum over workers. Each worker's loss depends on each worker's summand, so gradients are summed too."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return sum_over_workers(x)

    @staticmethod
    def backward(_ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return sum_over_workers(grad_outputs[0].contiguous())
