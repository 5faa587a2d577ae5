"""The crop classifier: what happened at each pixel in the season, then what surrounds it.

Axes: B batch, T months, C bands, H rows, W columns, K classes.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from cropray.nets.choices import Pool, odd
from cropray.nets.context import Context, seeds_of
from cropray.nets.dropout import SampleDropout
from cropray.nets.registry import NETS, Net, NetConfig, Receptive
from cropray.nets.temporal import TemporalBlock, TemporalEncoder, TimePool
from cropray.nets.unet import UNet, receptive_radius


@dataclass(frozen=True, slots=True, kw_only=True)
class CropNetConfig(NetConfig):
    """Everything that determines the network's layers; travels inside each checkpoint."""

    temporal_channels: int = 64
    """Width of the temporal convolutions and of the embedding."""
    kernel_size: int = 3
    """Months seen by one temporal convolution; odd."""
    dropout: float = 0.3
    """Share of the features of a pixel dropped after each temporal convolution."""
    pool: Pool = "flatten"
    """How months become one embedding; `max` is the study's."""
    unet_channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Width of each U-Net level, finest first."""

    def __post_init__(self) -> None:
        odd(self.kernel_size)
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be at least 0 and below 1; got {self.dropout}")
        if self.pool not in ("max", "mean", "flatten"):
            raise ValueError(f"pool must be 'max', 'mean' or 'flatten'; got '{self.pool}'")
        if not self.unet_channels or min(self.unet_channels) < 1:
            raise ValueError(
                f"unet_channels needs at least one level, each of one channel or more; got {self.unet_channels}"
            )
        if self.temporal_channels < 1:
            raise ValueError(f"temporal_channels must be at least 1; got {self.temporal_channels}")


@NETS.register("conv_unet")
class CropNet(Net):
    """Temporal encoder per pixel, then a U-Net, then a linear classifier.

    Source: the original study ("Crop Type Classification from Multispectral Time Series Using Deep Learning", 2025).
    """

    Config: ClassVar = CropNetConfig
    config: CropNetConfig

    def __init__(self, config: CropNetConfig) -> None:
        super().__init__(config)
        D, k = config.temporal_channels, config.kernel_size
        self.temporal = TemporalEncoder(
            TemporalBlock(config.n_bands, D, k, SampleDropout(config.dropout, stream=1)),
            TemporalBlock(D, D, k, SampleDropout(config.dropout, stream=2)),
            TimePool(config.pool, config.n_months, D),
        )
        self.unet = UNet(D, config.unet_channels)
        self.classifier = nn.Conv2d(self.unet.out_channels, config.n_classes, 1)

    def forward(self, x_BTCHW: Tensor, context: Context | None = None) -> Tensor:
        """Class scores of each pixel, see `Net`; a month without data is one at the mean."""
        self.require_input(x_BTCHW)
        x_BCTP = x_BTCHW.transpose(1, 2).flatten(3)
        embedding_BDHW = self.temporal(x_BCTP, seeds_of(context)).unflatten(2, x_BTCHW.shape[3:])
        return self.classifier(self.unet(embedding_BDHW))  # type: ignore[no-any-return]

    def receptive(self) -> Receptive:
        """Margin and stride for windowed prediction."""
        n_levels = len(self.config.unet_channels)
        stride = 2 ** (n_levels - 1)
        return Receptive(-(-receptive_radius(n_levels) // stride) * stride, stride)

    def bytes_per_px(self) -> int:
        """The largest of: embeddings of the months, the finest level of the U-Net, the classes.

        Measured as the growth of a process, torch 2.13 on CPU: 1.8-2.2 kB for the study's network (64 channels, U-Net
        64-128-256-512-512, 1000 × 1000 pixels), 1.3 kB for 64 and 32-32, 0.8 kB for 32 and 16-32-64-64; input included.
        """
        finest = self.config.unet_channels[0]
        return max(15 * self.config.temporal_channels, 30 * finest, 4 * finest + 12 * self.config.n_classes)
