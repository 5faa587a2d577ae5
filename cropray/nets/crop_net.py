"""The crop classifier: what happened at each pixel in the season, then what surrounds it.

Axes: B batch, T months, C bands, H rows, W columns, K classes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from cropray.nets.choices import Pool
from cropray.nets.dropout import SampleDropout
from cropray.nets.temporal import TemporalBlock, TemporalEncoder, TimePool
from cropray.nets.unet import UNet, receptive_radius


@dataclass(frozen=True, slots=True, kw_only=True)
class CropNetConfig:
    """Everything that determines the network's layers; travels inside each checkpoint."""

    n_classes: int
    n_months: int
    """Steps of time of the cube; the name is that of older cards."""
    n_bands: int
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
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that months stay aligned; got {self.kernel_size}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be at least 0 and below 1; got {self.dropout}")
        if self.pool not in ("max", "mean", "flatten"):
            raise ValueError(f"pool must be 'max', 'mean' or 'flatten'; got '{self.pool}'")
        if not self.unet_channels:
            raise ValueError("unet_channels needs at least one level")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able record."""
        return asdict(self)

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> "CropNetConfig":
        """The config that `to_dict` wrote, also after a way through JSON."""
        return CropNetConfig(**{**record, "unet_channels": tuple(record["unet_channels"])})


class CropNet(nn.Module):
    """Temporal encoder per pixel, then a U-Net, then a linear classifier.

    Source: the original study ("Crop Type Classification from Multispectral Time Series Using Deep Learning", 2025).
    """

    def __init__(self, config: CropNetConfig) -> None:
        super().__init__()
        self.config = config
        D, k = config.temporal_channels, config.kernel_size
        self.temporal = TemporalEncoder(
            TemporalBlock(config.n_bands, D, k, SampleDropout(config.dropout, stream=1)),
            TemporalBlock(D, D, k, SampleDropout(config.dropout, stream=2)),
            TimePool(config.pool, config.n_months, D),
        )
        self.unet = UNet(D, config.unet_channels)
        self.classifier = nn.Conv2d(self.unet.out_channels, config.n_classes, 1)

    def forward(self, x_BTCHW: Tensor, seeds_B: Tensor | None = None) -> Tensor:
        """Class scores of each pixel.

        Args:
            x_BTCHW: float32, normalised reflectance; any height and width.
            seeds_B: int64, dropout seed of each sample (training only), see `SampleDropout`.

        Returns:
            logits_BKHW, float32.
        """
        if x_BTCHW.shape[1:3] != (self.config.n_months, self.config.n_bands):
            raise ValueError(
                f"the network reads [B, {self.config.n_months} months, {self.config.n_bands} bands, H, W]; "
                f"got {tuple(x_BTCHW.shape)}"
            )
        x_BCTP = x_BTCHW.transpose(1, 2).flatten(3)
        embedding_BDHW = self.temporal(x_BCTP, seeds_B).unflatten(2, x_BTCHW.shape[3:])
        return self.classifier(self.unet(embedding_BDHW))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Receptive:
    """How windows must be laid so that predicting by windows equals predicting at once."""

    margin_px: int
    """Prediction is exact this far from a window's cut edge; a multiple of the stride."""
    stride_px: int
    """Windows start at multiples of this."""


def receptive(config: CropNetConfig) -> Receptive:
    """Margin and stride for windowed prediction."""
    n_levels = len(config.unet_channels)
    stride = 2 ** (n_levels - 1)
    return Receptive(-(-receptive_radius(n_levels) // stride) * stride, stride)
