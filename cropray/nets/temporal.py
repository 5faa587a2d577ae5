"""What happened at a pixel in the season: convolutions over time, pixel by pixel.

Axes: B batch, C channels, T months, P pixels of the tile (H · W flattened).

A Conv1d over B · P series is written as a Conv2d with kernel (k, 1) over [B, C, T, P]: the same arithmetic without a
transposed copy, and batch normalisation finds its channels contiguous. A whole training step of a narrow network (32
channels over time, U-Net 16-32-64-64, 24 × 24 px, one core) takes 9–11 ms of CPU a tile; 16–17 ms with Conv1d and
16–21 ms with Conv3d.
"""

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn

from cropray.nets.choices import Pool
from cropray.nets.dropout import SampleDropout
from cropray.nets.norm import GlobalBatchNorm

PIXELS_AT_ONCE: Final = 4096  # pixels per step outside training; bounds memory to ~12 MB per month and 64 channels


def band_ratios(numbers_BTCHW: Tensor, pairs: tuple[tuple[int, int], ...]) -> list[Tensor]:
    """(a - b) / (a + b) of each pair of bands, of stored numbers: of values only where bands share a scale and have no offset.

    Args:
        numbers_BTCHW: stored numbers, 0 = no data.
        pairs: positions of the bands, from 0.

    Returns:
        [B, T, 1, H, W] float32 of each pair; 0 where one has no data.
    """
    found = []
    for a, b in pairs:
        one, other = numbers_BTCHW[:, :, a : a + 1].float(), numbers_BTCHW[:, :, b : b + 1].float()
        is_there = (one > 0) & (other > 0)
        found.append(torch.where(is_there, (one - other) / (one + other).clamp_min(1), 0.0))
    return found


class TemporalBlock(nn.Module):
    """Conv over time → batch norm → ReLU → dropout; [B, C, T, P] → [B, D, T, P]."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int, dropout: SampleDropout) -> None:
        super().__init__()
        # No bias: the norm that follows removes it, and its gradient would be pure rounding noise.
        self.conv = nn.Conv2d(in_channels, channels, (kernel_size, 1), padding=(kernel_size // 2, 0), bias=False)
        self.norm = GlobalBatchNorm(channels)
        self.dropout = dropout

    def forward(self, x_BCTP: Tensor, seeds_B: Tensor | None) -> Tensor:
        """Same months, new channels."""
        return self.dropout(F.relu_(self.norm(self.conv(x_BCTP))), seeds_B)  # type: ignore[no-any-return]


class TimePool(nn.Module):
    """Months to one embedding; [B, D, T, P] → [B, D, P].

    `max` (the study's) and `mean` forget when something happened, `flatten` weighs every month on its own.
    """

    def __init__(self, pool: Pool, n_months: int, channels: int) -> None:
        super().__init__()
        self.pool = pool
        if pool == "flatten":
            self.mix = nn.Conv2d(channels, channels, (n_months, 1), bias=False)
            self.norm = GlobalBatchNorm(channels)

    def forward(self, x_BDTP: Tensor) -> Tensor:
        """One vector per pixel."""
        if self.pool == "max":
            return x_BDTP.amax(dim=2)
        if self.pool == "mean":
            return x_BDTP.mean(dim=2)
        return F.relu_(self.norm(self.mix(x_BDTP))).squeeze(2)


class TemporalEncoder(nn.Module):
    """Two temporal blocks and a pool; [B, C, T, P] → [B, D, P]. Source: the original study, pool aside."""

    def __init__(self, first: TemporalBlock, second: TemporalBlock, pool: TimePool) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.pool = pool

    def forward(self, x_BCTP: Tensor, seeds_B: Tensor | None = None) -> Tensor:
        """Embed each pixel's series.

        Args:
            x_BCTP: float, normalised.
            seeds_B: dropout seed of each sample, see `SampleDropout`.
        """
        if self.training:
            return self._embed(x_BCTP, seeds_B)
        # Pixels are independent here: small pieces stay in the cache and a 1000 × 1000 px zone fits in memory.
        pieces = [self._embed(piece, None) for piece in torch.split(x_BCTP, PIXELS_AT_ONCE, dim=3)]
        return torch.cat(pieces, dim=2)

    def _embed(self, x_BCTP: Tensor, seeds_B: Tensor | None) -> Tensor:
        return self.pool(self.second(self.first(x_BCTP, seeds_B), seeds_B))  # type: ignore[no-any-return]
