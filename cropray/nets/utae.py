"""A U-Net over series of images, which looks at the steps once, where pixels are coarsest.

Source: Garnot & Landrieu 2021, "Panoptic Segmentation of Satellite Image Time Series with Convolutional Temporal Attention
Networks" (arXiv 2107.07933): one encoder for the images of all steps, attention over the steps at the lowest level, and the
places where its heads look weigh the steps at all other levels, each head a group of the channels. Here normalisation is
over the batch, since moments of an image would depend on how a map is cut into windows, and a step without data weighs nothing
at the pixels where there are none.

Axes: B batch, T steps, C bands, H rows, W columns, N series, D channels, A heads, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn

from cropray.nets.choices import require_ranges
from cropray.nets.context import Context, seeds_of
from cropray.nets.dropout import SampleDropout
from cropray.nets.ltae import TemporalAttention, require_heads, without_gaps
from cropray.nets.norm import GlobalBatchNorm
from cropray.nets.registry import NETS, Net, NetConfig, Receptive
from cropray.nets.unet import UNet, receptive_radius


@dataclass(frozen=True, slots=True, kw_only=True)
class UTaeConfig(NetConfig):
    """Everything that determines the network's layers."""

    widths: tuple[int, ...] = (32, 32, 64, 128)
    """Width of each level, finest first; multiples of `heads`."""
    heads: int = 16
    """Ways of looking at the season, each with its share of the channels."""
    key_width: int = 8
    """Width of a head's query."""
    dropout: float = 0.3
    """Share of the features dropped after the attention and before the classifier."""

    def __post_init__(self) -> None:
        require_ranges(self, "heads", "key_width")
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ValueError(f"widths needs two levels at least, each of one channel or more; got {self.widths}")
        for width in self.widths:
            require_heads("widths", width, self.heads)


@NETS.register("utae")
class UTae(Net):
    """A U-Net's encoder for each step, attention over the steps, its decoder over what is left of them."""

    Config: ClassVar = UTaeConfig
    config: UTaeConfig

    def __init__(self, config: UTaeConfig) -> None:
        super().__init__(config)
        D = config.widths[-1]
        self.unet = UNet(config.n_bands + 1, config.widths)
        self.norm = nn.LayerNorm(D)
        self.attention = TemporalAttention(D, config.heads, config.key_width, config.n_months)
        self.mix = nn.Conv2d(D, D, 1, bias=False)  # the norm that follows has one
        self.mixed = GlobalBatchNorm(D)
        self.dropouts = nn.ModuleList(SampleDropout(config.dropout, stream) for stream in (1, 2))
        self.classifier = nn.Conv2d(self.unet.out_channels, config.n_classes, 1)

    def forward(self, x_BTCHW: Tensor, context: Context | None = None) -> Tensor:
        """Class scores of each pixel, see `Net`."""
        self.require_input(x_BTCHW)
        seen, valid_BTHW = without_gaps(x_BTCHW, context)
        seeds_B = seeds_of(context)
        valid = [valid_BTHW.to(seen.dtype)]
        features = self._encode(torch.cat([seen, valid[0][:, :, None]], dim=2))
        while len(valid) < len(features):
            valid.append(_half(valid[-1]))
        x_BDHW, shares_BATHW = self._attend(torch.stack(features.pop(), dim=1), valid.pop() > 0, seeds_B)
        for depth, conv in enumerate(self.unet.up, start=1):
            skip = collapse(features.pop(), shares_BATHW, valid.pop(), 2**depth)
            x_BDHW = conv(torch.cat([skip, _finer(x_BDHW, 2, skip)], dim=1))
        return self.classifier(_dropped(self.dropouts[1], x_BDHW, seeds_B))  # type: ignore[no-any-return]

    def receptive(self) -> Receptive:
        """Margin and stride for windowed prediction: those of the U-Net, as the attention looks at single coarse pixels."""
        n_levels = len(self.config.widths)
        stride = 2 ** (n_levels - 1)
        return Receptive(-(-receptive_radius(n_levels) // stride) * stride, stride)

    def bytes_per_px(self) -> int:
        """Features of all steps at the finest level, with the steps of the levels below, the decoder and the classes.

        Measured as the growth of a process, torch 2.13 on CPU, input included: 3.8 kB for 4 bands, 12 steps and 20 classes
        (windows of 200 × 200 pixels), 3.7 kB for 60 classes (300 × 300); 13.1 kB for 10 bands and 36 steps (250 × 250).
        """
        T, widths = self.config.n_months, self.config.widths
        return 4 * T * (3 * self.config.n_bands + 2 * widths[0]) + 40 * widths[0] + 12 * self.config.n_classes

    def _encode(self, x_BTCHW: Tensor) -> list[list[Tensor]]:
        """[level][step] features [B, D, H, W]; steps one after the other where no norm has to see all."""
        B, T = x_BTCHW.shape[:2]
        if not self.training:
            return [list(of_level) for of_level in zip(*map(self._levels, x_BTCHW.unbind(1)), strict=True)]
        levels = self._levels(x_BTCHW.flatten(0, 1))
        return [list(x_NDHW.view(B, T, *x_NDHW.shape[1:]).unbind(1)) for x_NDHW in levels]

    def _levels(self, x_NCHW: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for conv in self.unet.down:
            found.append(conv(_half(found[-1]) if found else x_NCHW))
        return found

    def _attend(self, x_BTDHW: Tensor, valid_BTHW: Tensor, seeds_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of the coarsest pixels: ([B, D, H, W] without steps, [B, A, T, H, W] where the heads look)."""
        B, T, D, H, W = x_BTDHW.shape
        x_NTD = self.norm(x_BTDHW.permute(0, 3, 4, 1, 2).reshape(B * H * W, T, D))
        x_ND, shares_NAT = self.attention(x_NTD, valid_BTHW.permute(0, 2, 3, 1).reshape(B * H * W, T))
        x_BDHW = F.relu_(self.mixed(self.mix(x_ND.view(B, H, W, D).permute(0, 3, 1, 2))))
        shares_BATHW = shares_NAT.view(B, H, W, self.config.heads, T).permute(0, 3, 4, 1, 2)
        return _dropped(self.dropouts[0], x_BDHW, seeds_B), shares_BATHW


def collapse(steps: Sequence[Tensor], shares_BATHW: Tensor, valid_BTHW: Tensor, times: int) -> Tensor:
    """A level's features without steps: their mean, weighted by where the heads look.

    Args:
        steps: T features [B, D, H, W], head by head.
        shares_BATHW: of the coarsest pixels.
        valid_BTHW: float, 1 where a step has data; where none has, all count.
        times: width of the coarsest pixels in pixels of the level.

    Returns:
        [B, D, H, W].
    """
    A, (B, D, H, W) = shares_BATHW.shape[1], steps[0].shape
    is_blank_BHW = valid_BTHW.sum(dim=1) == 0
    total = weights = steps[0].new_zeros(())
    for number, x_BDHW in enumerate(steps):
        share_BAHW = _finer(shares_BATHW[:, :, number], times, x_BDHW)
        share_BAHW = share_BAHW * (valid_BTHW[:, number] + is_blank_BHW)[:, None]
        total = total + share_BAHW[:, :, None] * x_BDHW.view(B, A, D // A, H, W)
        weights = weights + share_BAHW
    return (total / weights.clamp_min(1e-6)[:, :, None]).view(B, D, H, W)


def _half(x_BDHW: Tensor) -> Tensor:
    return F.max_pool2d(x_BDHW, 2, ceil_mode=True)


def _finer(x_BDHW: Tensor, times: int, like: Tensor) -> Tensor:
    x_BDHW = F.interpolate(x_BDHW, scale_factor=times, mode="bilinear", align_corners=False)
    return x_BDHW[..., : like.shape[-2], : like.shape[-1]]


def _dropped(dropout: nn.Module, x_BDHW: Tensor, seeds_B: Tensor | None) -> Tensor:
    return dropout(x_BDHW.flatten(2)[:, :, None], seeds_B).view(x_BDHW.shape)  # type: ignore[no-any-return]
