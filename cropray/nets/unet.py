"""A U-Net that keeps any height and width.

Pooling rounds up and upsampling (×2, bilinear, `align_corners=False`) is cropped to the skip connection. Level l is
therefore always the grid of pixels 2ˡ, anchored at the upper left corner: a window that starts at a multiple of the
deepest pixel sees exactly what the whole image sees.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn

from cropray.nets.norm import GlobalBatchNorm


class DoubleConv(nn.Module):
    """Twice [conv 3 × 3 → batch norm → ReLU]; same height and width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = GlobalBatchNorm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = GlobalBatchNorm(out_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Mix a 5 × 5 neighbourhood."""
        x_BCHW = F.relu_(self.norm1(self.conv1(x_BCHW)))
        return F.relu_(self.norm2(self.conv2(x_BCHW)))


class UNet(nn.Module):
    """Encoder and decoder with skip connections; [B, C, H, W] → [B, channels[0], H, W].

    Source: Ronneberger et al. 2015 (arXiv 1505.04597) in the padded, bilinear form that the study used.
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        """Args: channels: width of each level, finest first; there is one 2 × 2 pooling between two levels."""
        super().__init__()
        self.out_channels = channels[0]
        widths = zip((in_channels, *channels[:-1]), channels, strict=True)
        self.down = nn.ModuleList(DoubleConv(before, width) for before, width in widths)
        self.up = nn.ModuleList()
        below = channels[-1]
        for level in reversed(range(len(channels) - 1)):
            joined = channels[level] + below
            below = channels[max(level - 1, 0)]
            self.up.append(DoubleConv(joined, below))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Features that have seen their surroundings."""
        skips = []
        for level, conv in enumerate(self.down):
            if level > 0:
                x_BCHW = F.max_pool2d(x_BCHW, 2, ceil_mode=True)
            x_BCHW = conv(x_BCHW)
            skips.append(x_BCHW)
        for conv, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x_BCHW = F.interpolate(x_BCHW, scale_factor=2, mode="bilinear", align_corners=False)
            x_BCHW = conv(torch.cat([skip, x_BCHW[..., : skip.shape[-2], : skip.shape[-1]]], dim=1))
        return x_BCHW


def receptive_radius(n_levels: int) -> int:
    """Largest distance (px) at which an input pixel can change an output pixel of a U-Net of `n_levels` levels.

    A pixel of level l is 2ˡ px wide. Each conv 3 × 3 reaches one such pixel, each pooling and each upsampling one
    pixel of the coarser level.
    """
    bottom = 1 << (n_levels - 1)  # width of the deepest pixel
    encoder = 2 * (2 * bottom - 1)  # two convs on each level: 2 · (1 + 2 + … + bottom)
    between = 2 * 2 * (bottom - 1)  # down and up again: 2 · (2 + 4 + … + bottom)
    decoder = 2 * (bottom - 1)  # two convs on each level but the deepest
    return encoder + between + decoder
