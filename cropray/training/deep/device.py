"""How networks compute on a GPU, and prediction on any device. Needs torch and numpy only.

Training keeps torch's defaults for speed: convolutions may round their inputs to TF32 (10 bits of mantissa). Scores and
maps are computed in full float32, so that a GPU's are a CPU's but for rounding.
"""

import contextlib
import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cropray.core.errors import ConfigError
from cropray.nets.context import Context
from cropray.training.deep.tiles import ChannelStats


def torch_device(kind: str, setting: str) -> torch.device:
    """`cpu` or `cuda`, once torch sees it; `setting` is the one that asked for it.

    Raises:
        ConfigError: a GPU is asked for and torch sees none: nothing is computed elsewhere than was asked for.
    """
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"{setting} asks for a GPU, but torch {torch.__version__} sees none in this process: install a driver and a "
            f"torch that fit each other there (see docs/scaling.md), or set {setting} to {'cpu' if '.device' in setting else 'false'}"
        )
    return torch.device(kind)


def free_gpu_bytes() -> float:
    """Memory that is free on this process's GPU."""
    return float(torch.cuda.mem_get_info()[0])


@contextlib.contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """On a GPU let a fit that is repeated, or that goes on after a loss, end with the same bits on the same kind of GPU.

    torch takes deterministic kernels where it has them. It would warn of two others: pooling, whose windows do not
    overlap here, so that nothing is added in a changing order; and the summed loss, which the loop sums itself. It would
    also fill new memory, which nothing here reads before it is written.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it before its first product
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]  # set at run time
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


@contextlib.contextmanager
def tf32(*, allowed: bool) -> Iterator[None]:
    """Whether convolutions on a GPU may round their inputs to TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@torch.no_grad()
@tf32(allowed=False)
def predict_tiles(model: nn.Module, stats: ChannelStats, x: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Class probabilities of each pixel, in full float32 on any device.

    Args:
        model: a `Net` in evaluation mode, on its device.
        stats: its normalisation.
        x: [N, T, C, H, W] digital numbers, 0 = no data; any height and width.

    Returns:
        [N, K, H, W] float32, sums to 1 over K.
    """
    device = next(model.parameters()).device
    numbers = torch.from_numpy(np.ascontiguousarray(x)).to(device)
    logits = model(stats.normalise(numbers), Context(numbers))
    probabilities: npt.NDArray[np.float32] = logits.softmax(dim=1).cpu().numpy()
    return probabilities
