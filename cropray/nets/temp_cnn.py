"""A temporal convolutional network that looks at single pixels.

Source: Pelletier, Webb & Petitjean 2019, "Temporal Convolutional Neural Network for the Classification of Satellite Image
Time Series" (Remote Sensing 11, 523): three convolutions over time on all bands, a dense layer, a classifier. A channel
beside the bands says which steps have data: normalised, a step without is one at the mean.

Axes: B batch, T steps, C bands, H rows, W columns, P pixels (H · W flattened), D channels, K classes.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn

from cropray.nets.choices import odd, require_ranges
from cropray.nets.context import Context, seeds_of
from cropray.nets.dropout import SampleDropout
from cropray.nets.norm import GlobalBatchNorm
from cropray.nets.registry import NETS, Net, NetConfig
from cropray.nets.temporal import PIXELS_AT_ONCE, TemporalBlock, band_ratios


@dataclass(frozen=True, slots=True, kw_only=True)
class TempCnnConfig(NetConfig):
    """Everything that determines the network's layers."""

    channels: int = 64
    """Width of the convolutions over time."""
    kernel_size: int = 5
    """Steps seen by one convolution; odd."""
    n_blocks: int = 3
    """Convolutions over time."""
    hidden: int = 256
    """Width of the dense layer."""
    dropout: float = 0.3
    """Share of a pixel's features dropped after each layer."""
    ratios: tuple[tuple[int, int], ...] = ()
    """Pairs of bands, by their positions in the cube from 0: (a - b) / (a + b) of each is read beside the bands. [3, 2] is the
    NDVI of the study's cube, [3, 1] its GNDVI."""

    def __post_init__(self) -> None:
        odd(self.kernel_size)
        require_ranges(self, "channels", "n_blocks", "hidden")


@NETS.register("temp_cnn")
class TempCnn(Net):
    """Convolutions over time, a dense layer over all steps, a linear classifier."""

    Config: ClassVar = TempCnnConfig
    config: TempCnnConfig

    def __init__(self, config: TempCnnConfig) -> None:
        super().__init__(config)
        D, k, p = config.channels, config.kernel_size, config.dropout
        widths = [config.n_bands + 1 + len(config.ratios), *[D] * config.n_blocks]
        self.blocks = nn.ModuleList(
            TemporalBlock(before, width, k, SampleDropout(p, stream))
            for stream, (before, width) in enumerate(pairwise(widths), start=1)
        )
        self.dense = nn.Linear(D * config.n_months, config.hidden, bias=False)  # a third of a convolution's time here
        self.norm = GlobalBatchNorm(config.hidden)
        self.dropout = SampleDropout(p, config.n_blocks + 1)
        self.classifier = nn.Conv2d(config.hidden, config.n_classes, 1)

    def forward(self, x_BTCHW: Tensor, context: Context | None = None) -> Tensor:
        """Class scores of each pixel, see `Net`."""
        self.require_input(x_BTCHW)
        valid_BTHW = torch.ones_like(x_BTCHW[:, :, 0]) if context is None else context.valid.to(x_BTCHW.dtype)
        beside = [
            valid_BTHW[:, :, None],
            *band_ratios(x_BTCHW if context is None else context.numbers, self.config.ratios),
        ]
        x_BCTP = torch.cat([x_BTCHW, *beside], dim=2).transpose(1, 2).flatten(3)
        if self.training:
            logits_BKP = self._scores(x_BCTP, seeds_of(context))
        else:  # pixels are independent here: small pieces bound the memory
            pieces = torch.split(x_BCTP, PIXELS_AT_ONCE, dim=3)
            logits_BKP = torch.cat([self._scores(piece, None) for piece in pieces], dim=2)
        return logits_BKP.view(*logits_BKP.shape[:2], *x_BTCHW.shape[3:])

    def bytes_per_px(self) -> int:
        """Input with its channel of values that are there, the classes, and the layers of one piece, spread over a small window.

        Measured as the growth of a process, torch 2.13 on CPU, input included: 1.8 kB in windows of 300 × 300 pixels and
        0.7 kB in those of 700 × 700 for 4 bands, 12 steps and 20 classes; 4.7 kB for 10 bands and 36 steps (400 × 400).
        """
        T, C, K = self.config.n_months, self.config.n_bands, self.config.n_classes
        return 4 * T * (C + 2) + 20 * K + max(T * self.config.channels, self.config.hidden)

    def _scores(self, x_BCTP: Tensor, seeds_B: Tensor | None) -> Tensor:
        for block in self.blocks:
            x_BCTP = block(x_BCTP, seeds_B)
        x_BPD = self.dense(x_BCTP.permute(0, 3, 1, 2).flatten(2))
        x_BD1P = self.dropout(F.relu_(self.norm(x_BPD.transpose(1, 2)[:, :, None])), seeds_B)
        return self.classifier(x_BD1P).squeeze(2)  # type: ignore[no-any-return]
