"""A transformer over the steps of small patches, then over the patches around each.

Source: Tarasiou, Chavez & Zafeiriou 2023, "ViTs for SITS: Vision Transformers for Satellite Image Time Series"
(arXiv 2301.04944): time comes before space, and each class has a token of its own, which reads the steps of a patch and is then
compared with its like in other patches. Here patches see each other in blocks of the grid, which are laid half a block apart in
every second layer (as in Liu et al. 2021, arXiv 2103.14030), not in a whole image: so a map does not depend on its windows.

Axes: B batch, T steps, C bands, H rows, W columns, N sequences, S tokens, D channels, A heads, K classes, L patches.
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
from cropray.nets.ltae import positions, require_heads, without_gaps
from cropray.nets.registry import NETS, Net, NetConfig, Receptive
from cropray.nets.temporal import PIXELS_AT_ONCE


@dataclass(frozen=True, slots=True, kw_only=True)
class TsVitConfig(NetConfig):
    """Everything that determines the network's layers."""

    width: int = 64
    """Width of a token; a multiple of `heads`."""
    heads: int = 4
    """Ways in which a token looks at others."""
    temporal_depth: int = 2
    """Layers over the steps of a patch."""
    spatial_depth: int = 2
    """Layers over the patches of a block."""
    patch: int = 2
    """Pixels along a side of a patch."""
    block: int = 6
    """Patches along a side of a block."""
    dropout: float = 0.3
    """Share of a patch's features dropped before the steps and before the blocks are looked at."""

    def __post_init__(self) -> None:
        require_ranges(self, "width", "heads", "temporal_depth", "spatial_depth", "patch", "block")
        require_heads("width", self.width, self.heads)


class Layer(nn.Module):
    """Tokens look at each other, then each is worked on alone; [N, S, D] → [N, S, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask = nn.Linear(width, 3 * width, bias=False)
        self.join = nn.Linear(width, width)
        self.work = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x_NSD: Tensor, is_seen_NS: Tensor) -> Tensor:
        """Args: is_seen_NS: bool; other tokens are not looked at. At least one of each sequence is."""
        N, S, D = x_NSD.shape
        asked = self.ask(self.before(x_NSD)).view(N, S, 3, self.heads, D // self.heads)
        q_NASE, k_NASE, v_NASE = asked.permute(2, 0, 3, 1, 4)
        scores_NASS = q_NASE @ k_NASE.transpose(2, 3) / math.sqrt(D // self.heads)
        shares_NASS = scores_NASS.masked_fill(~is_seen_NS[:, None, None], -math.inf).softmax(dim=3)
        x_NSD = x_NSD + self.join((shares_NASS @ v_NASE).transpose(1, 2).reshape(N, S, D))
        return x_NSD + self.work(self.between(x_NSD))  # type: ignore[no-any-return]


@NETS.register("tsvit")
class TsVit(Net):
    """Patches of single steps and a token of each class, layers over time, layers over space, a linear map to the pixels."""

    Config: ClassVar = TsVitConfig
    config: TsVitConfig
    places: Tensor

    def __init__(self, config: TsVitConfig) -> None:
        super().__init__(config)
        D = config.width
        self.embed = nn.Linear(config.patch**2 * (config.n_bands + 1), D)
        self.classes = nn.Parameter(torch.randn(config.n_classes, D) * 0.02)
        self.register_buffer("places", positions(config.n_months, D), persistent=False)
        self.temporal = nn.ModuleList(Layer(D, config.heads) for _ in range(config.temporal_depth))
        self.spatial = nn.ModuleList(Layer(D, config.heads) for _ in range(config.spatial_depth))
        self.within = nn.Parameter(torch.randn(config.spatial_depth, config.block**2, D) * 0.02)
        self.dropouts = nn.ModuleList(SampleDropout(config.dropout, stream) for stream in (1, 2))
        self.head = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, config.patch**2))

    def forward(self, x_BTCHW: Tensor, context: Context | None = None) -> Tensor:
        """Class scores of each pixel, see `Net`."""
        self.require_input(x_BTCHW)
        (H, W), K, p = x_BTCHW.shape[3:], self.config.n_classes, self.config.patch
        seen, valid_BTHW = without_gaps(x_BTCHW, context)
        x_BTCHW = F.pad(torch.cat([valid_BTHW[:, :, None].to(seen.dtype), seen], dim=2), (0, -W % p, 0, -H % p))
        B, T, C, rows, cols = *x_BTCHW.shape[:3], x_BTCHW.shape[3] // p, x_BTCHW.shape[4] // p
        x_BTCRPQP = x_BTCHW.view(B, T, C, rows, p, cols, p)
        x_BLTF = x_BTCRPQP.permute(0, 3, 5, 1, 2, 4, 6).reshape(B, rows * cols, T, C * p * p)
        tokens_BKRQD = (
            self._over_time(x_BLTF, seeds_of(context)).transpose(1, 2).reshape(B, K, rows, cols, self.config.width)
        )
        # Patches do not see each other over time, nor classes over space: small pieces bound the memory.
        classes = torch.split(tokens_BKRQD, K if self.training else 1, dim=1)
        logits_BKRQF = torch.cat([self.head(self._over_space(of_class)) for of_class in classes], dim=1)
        logits_BKRPQP = logits_BKRQF.view(B, K, rows, cols, p, p).transpose(3, 4)
        return logits_BKRPQP.reshape(B, K, rows * p, cols * p)[..., :H, :W]

    def receptive(self) -> Receptive:
        """Blocks are the stride; each layer of blocks that lie between those of the layer before reaches a block further."""
        block_px = self.config.block * self.config.patch
        return Receptive(self.config.spatial_depth // 2 * block_px, block_px)

    def bytes_per_px(self) -> int:
        """Input, tokens of the classes, and those of one piece.

        Measured as the growth of a process, torch 2.13 on CPU, input included, for 4 bands and 12 steps: 4.9 kB for 20 classes
        (windows of 300 × 300 pixels), 16.5 kB for 60 (200 × 200).
        """
        T, C, K, D = self.config.n_months, self.config.n_bands, self.config.n_classes, self.config.width
        return 4 * T * (C + 2) + 16 * K * D // self.config.patch**2 + 24 * D

    def _over_time(self, x_BLTF: Tensor, seeds_B: Tensor | None) -> Tensor:
        """[B, L, K, D] what the classes' tokens have read in the steps of each patch."""
        if self.training:
            return self._read(x_BLTF, seeds_B)
        at_once = max(PIXELS_AT_ONCE // (4 * self.config.patch**2), 1)  # a quarter: each is many tokens, of many layers
        return torch.cat([self._read(piece, None) for piece in torch.split(x_BLTF, at_once, dim=1)], dim=1)

    def _read(self, x_BLTF: Tensor, seeds_B: Tensor | None) -> Tensor:
        B, L, T, _ = x_BLTF.shape
        K, D = self.classes.shape
        steps_BLTD = _dropped(self.dropouts[0], self.embed(x_BLTF) + self.places, seeds_B)
        x_NSD = torch.cat([steps_BLTD.reshape(B * L, T, D), self.classes.expand(B * L, K, D)], dim=1)
        is_there_NT = x_BLTF[..., : self.config.patch**2].amax(dim=3).view(B * L, T) > 0
        is_seen_NS = F.pad(is_there_NT, (0, K), value=True)
        for layer in self.temporal:
            x_NSD = layer(x_NSD, is_seen_NS)
        return _dropped(self.dropouts[1], x_NSD[:, T:].view(B, L, K, D), seeds_B)

    def _over_space(self, x_BKRQD: Tensor) -> Tensor:
        """Tokens that have seen those of their class around them."""
        for number, (layer, within_SD) in enumerate(zip(self.spatial, self.within, strict=True)):
            x_BKRQD = _in_blocks(x_BKRQD, layer, within_SD, self.config.block, number % 2 * (self.config.block // 2))
        return x_BKRQD


def _in_blocks(x_BKRQD: Tensor, layer: nn.Module, within_SD: Tensor, side: int, shift: int) -> Tensor:
    """A layer over blocks of `side` × `side` tokens, which begin `shift` tokens before the image."""
    B, K, R, Q, D = x_BKRQD.shape
    around = (shift, -(Q + shift) % side, shift, -(R + shift) % side)
    x_BKRQD = F.pad(x_BKRQD, (0, 0, *around))
    is_there_RQ = F.pad(torch.ones(R, Q, dtype=torch.bool, device=x_BKRQD.device), around)
    rows, cols = x_BKRQD.shape[2] // side, x_BKRQD.shape[3] // side
    blocks = x_BKRQD.view(B, K, rows, side, cols, side, D).transpose(3, 4).reshape(B * K * rows * cols, side**2, D)
    is_seen_NS = is_there_RQ.view(rows, side, cols, side).transpose(1, 2).reshape(rows * cols, side**2).repeat(B * K, 1)
    blocks = layer(blocks + within_SD, is_seen_NS).view(B, K, rows, cols, side, side, D)
    return blocks.transpose(3, 4).reshape(x_BKRQD.shape)[:, :, shift : shift + R, shift : shift + Q]  # type: ignore[no-any-return]


def _dropped(dropout: nn.Module, x_BLSD: Tensor, seeds_B: Tensor | None) -> Tensor:
    return dropout(x_BLSD.permute(0, 3, 2, 1), seeds_B).permute(0, 3, 2, 1)  # type: ignore[no-any-return]
