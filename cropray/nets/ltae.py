"""Attention over the steps of single pixels.

Source: Garnot & Landrieu 2020, "Lightweight Temporal Self-Attention for Classifying Satellite Image Time Series"
(arXiv 2007.00586): each head has one learnt query and a group of the channels of its own. Here steps are normalised one by
one (layer norm), so that a step without data, which no head looks at, changes nothing.

Axes: B batch, T steps, C bands, H rows, W columns, P pixels (H · W flattened), N series, D channels, A heads, K classes.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn

from cropray.nets.choices import require_ranges
from cropray.nets.context import Context, seeds_of
from cropray.nets.dropout import SampleDropout
from cropray.nets.norm import GlobalBatchNorm
from cropray.nets.registry import NETS, Net, NetConfig
from cropray.nets.temporal import PIXELS_AT_ONCE, band_ratios


@dataclass(frozen=True, slots=True, kw_only=True)
class LtaeConfig(NetConfig):
    """Everything that determines the network's layers."""

    embedding: int = 128
    """Width of the embedding of a step; a multiple of `heads`."""
    heads: int = 16
    """Ways of looking at the season, each with its share of the embedding."""
    key_width: int = 8
    """Width of a head's query."""
    hidden: int = 256
    """Width of the dense layer over the season."""
    dropout: float = 0.3
    """Share of a pixel's features dropped after each layer."""
    ratios: tuple[tuple[int, int], ...] = ()
    """Pairs of bands, by their positions in the cube from 0: (a - b) / (a + b) of each is read beside the bands."""

    def __post_init__(self) -> None:
        require_ranges(self, "embedding", "heads", "key_width", "hidden")
        require_heads("embedding", self.embedding, self.heads)


def require_heads(name: str, width: int, heads: int) -> None:
    """Raises: ValueError: heads cannot have equal shares of the channels."""
    if width % heads:
        raise ValueError(f"{name} must be a multiple of heads = {heads}; got {width}")


def without_gaps(x_BTCHW: Tensor, context: Context | None) -> tuple[Tensor, Tensor]:
    """([B, T, C, H, W] that is 0 in steps without data, whatever stood there; [B, T, H, W] bool, where there are data)."""
    valid_BTHW = torch.ones_like(x_BTCHW[:, :, 0], dtype=torch.bool) if context is None else context.valid
    return torch.where(valid_BTHW[:, :, None], x_BTCHW, 0), valid_BTHW


class TemporalAttention(nn.Module):
    """A season of embeddings to one; [N, T, D] → [N, D]."""

    positions: Tensor

    def __init__(self, channels: int, heads: int, key_width: int, n_steps: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.randn(heads, key_width, channels) * math.sqrt(2 / channels))
        self.queries = nn.Parameter(torch.randn(heads, key_width) * math.sqrt(2 / key_width))
        self.register_buffer("positions", positions(n_steps, channels // heads).repeat(1, heads), persistent=False)

    def forward(self, x_NTD: Tensor, valid_NT: Tensor) -> tuple[Tensor, Tensor]:
        """What each head saw, and where it looked.

        Args:
            x_NTD: float.
            valid_NT: bool; other steps are not looked at. Where there is none, all are.

        Returns:
            ([N, D] float, [N, A, T] shares that sum to 1 over T).
        """
        heads, key_width = self.queries.shape
        x_NTD = x_NTD + self.positions
        # A head asks all keys one question: multiplied first, question and keys are one product for each step.
        asked_AD = torch.einsum("akd,ak->ad", self.keys, self.queries) / math.sqrt(key_width)
        scores_NAT = (x_NTD @ asked_AD.T).transpose(1, 2)
        is_looked_at = valid_NT | ~valid_NT.any(dim=1, keepdim=True)
        shares_NAT = scores_NAT.masked_fill(~is_looked_at[:, None], -math.inf).softmax(dim=2)
        x_NATE = x_NTD.view(*x_NTD.shape[:2], heads, x_NTD.shape[2] // heads).transpose(1, 2)
        return (shares_NAT[:, :, None] @ x_NATE).flatten(1), shares_NAT


def positions(n_steps: int, width: int) -> Tensor:
    """[T, width] sines and cosines of the steps' places in the season, from one step to the whole season a radian."""
    rates = n_steps ** -(torch.arange(width) // 2 * 2 / width)
    angles = torch.arange(n_steps)[:, None] * rates
    return torch.where(torch.arange(width) % 2 == 0, angles.sin(), angles.cos())


@NETS.register("ltae")
class Ltae(Net):
    """Two layers for each step, attention over the steps, a dense layer, a linear classifier."""

    Config: ClassVar = LtaeConfig
    config: LtaeConfig

    def __init__(self, config: LtaeConfig) -> None:
        super().__init__(config)
        D = config.embedding
        self.embed = nn.Sequential(
            nn.Linear(config.n_bands + len(config.ratios), D // 2),
            nn.LayerNorm(D // 2),
            nn.ReLU(),
            nn.Linear(D // 2, D),
            nn.LayerNorm(D),
        )
        self.attention = TemporalAttention(D, config.heads, config.key_width, config.n_months)
        self.dropouts = nn.ModuleList(SampleDropout(config.dropout, stream) for stream in (1, 2))
        self.dense = nn.Linear(D, config.hidden, bias=False)  # the norm that follows has one
        self.norm = GlobalBatchNorm(config.hidden)
        self.classifier = nn.Conv2d(config.hidden, config.n_classes, 1)

    def forward(self, x_BTCHW: Tensor, context: Context | None = None) -> Tensor:
        """Class scores of each pixel, see `Net`."""
        self.require_input(x_BTCHW)
        seen, valid_BTHW = without_gaps(x_BTCHW, context)
        numbers = x_BTCHW if context is None else context.numbers
        x_BPTC = torch.cat([seen, *band_ratios(numbers, self.config.ratios)], dim=2).flatten(3).permute(0, 3, 1, 2)
        valid_BPT = valid_BTHW.flatten(2).transpose(1, 2)
        if self.training:
            logits_BKP = self._scores(x_BPTC, valid_BPT, seeds_of(context))
        else:  # pixels are independent here: small pieces bound the memory
            pieces = zip(*(torch.split(each, PIXELS_AT_ONCE, dim=1) for each in (x_BPTC, valid_BPT)), strict=True)
            logits_BKP = torch.cat([self._scores(x, valid, None) for x, valid in pieces], dim=2)
        return logits_BKP.view(*logits_BKP.shape[:2], *x_BTCHW.shape[3:])

    def bytes_per_px(self) -> int:
        """Input, its embedding for one piece spread over a small window, the classes.

        Measured as the growth of a process, torch 2.13 on CPU, input included: 2.7 kB in windows of 300 × 300 pixels and
        1.0 kB in those of 700 × 700 for 4 bands, 12 steps and 20 classes; 6.8 kB for 10 bands and 36 steps (400 × 400).
        """
        T, C, K = self.config.n_months, self.config.n_bands, self.config.n_classes
        return 4 * T * (C + 2) + 20 * K + max(T * self.config.embedding * 4 // 3, self.config.hidden)

    def _scores(self, x_BPTC: Tensor, valid_BPT: Tensor, seeds_B: Tensor | None) -> Tensor:
        x_NTD = self.embed(x_BPTC.flatten(0, 1))
        x_ND, _ = self.attention(x_NTD, valid_BPT.flatten(0, 1))
        x_BD1P = x_ND.view(*x_BPTC.shape[:2], x_ND.shape[1]).transpose(1, 2)[:, :, None]
        x_BPD = self.dense(self.dropouts[0](x_BD1P, seeds_B)[:, :, 0].transpose(1, 2))
        x_BD1P = self.dropouts[1](F.relu_(self.norm(x_BPD.transpose(1, 2)[:, :, None])), seeds_B)
        return self.classifier(x_BD1P).squeeze(2)  # type: ignore[no-any-return]
