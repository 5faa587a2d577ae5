"""A network of one's own: the mean of the valid steps, and two layers."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from cropray.nets.registry import NETS, Net, NetConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyConfig(NetConfig):
    """Its settings; those that a family has too (`dropout`) are taken from there."""

    width: int = 4
    layers: tuple[int, ...] = (1,)
    dropout: float = 0.0


@NETS.register("toy_net")
class ToyNet(Net):
    """B samples, T steps, C bands, H rows, W columns, K classes."""

    Config: ClassVar = ToyConfig

    def __init__(self, config):
        super().__init__(config)
        self.layers = nn.Sequential(
            nn.Conv2d(config.n_bands, config.width, 1),
            nn.GroupNorm(1, config.width),
            nn.ReLU(),
            nn.Conv2d(config.width, config.n_classes, 1),
        )

    def forward(self, x_BTCHW, context):
        """[B, K, H, W] class scores; `context` says which steps have data."""
        valid = context.valid[:, :, None].float()
        return self.layers((x_BTCHW * valid).sum(1) / valid.sum(1).clamp_min(1))
