"""Dropout whose mask is a pure function of a sample's seed.

The mask of a sample does not depend on which worker holds it, on its neighbours in the batch or on the device, so a
fit on two workers drops what a fit on one drops. It is drawn by a counter-based hash, not by a generator.
"""

from typing import Final

import torch
from torch import Tensor, nn

_UINT32: Final = 0xFFFFFFFF


class SampleDropout(nn.Module):
    """Drop whole channels of single pixels: a mask [B, C, 1, P] for an input [B, C, T, P].

    A feature is dropped in all months at once: neighbouring months tell nearly the same, so that dropping single
    months would hide little (Tompson et al. 2015, arXiv 1411.4280, for space), and it takes 1/T of the random numbers.
    """

    def __init__(self, p: float, stream: int) -> None:
        """Args: p: share dropped, 0 ≤ p < 1; stream: distinguishes the layers of one network."""
        super().__init__()
        self.p = p
        self.stream = stream

    def forward(self, x_BCTP: Tensor, seeds_B: Tensor | None = None) -> Tensor:
        """Drop and rescale while training; the identity otherwise.

        Args:
            x_BCTP: float.
            seeds_B: int64, 0 ≤ seed < 2³², one per sample; None draws them from torch's global generator.
        """
        if not self.training or self.p == 0.0:
            return x_BCTP
        B, C, _, P = x_BCTP.shape
        if seeds_B is None:
            seeds_B = torch.randint(_UINT32, (B,), device=x_BCTP.device)
        kept_BCP = uniform_bits(seeds_B ^ hash32(seeds_B.new_tensor(self.stream)), C * P) >= round(self.p * 2**32)
        return x_BCTP * (kept_BCP.view(B, C, 1, P).to(x_BCTP.dtype) / (1.0 - self.p))


def uniform_bits(seeds_B: Tensor, n: int) -> Tensor:
    """[B, n] int64, uniform in 0 … 2³² - 1, determined by the seed and the position alone."""
    positions_N = torch.arange(n, device=seeds_B.device)
    return hash32(hash32(seeds_B)[:, None] ^ hash32(positions_N))


def hash32(x: Tensor) -> Tensor:
    """A bijective hash of 32-bit integers, held in int64 so that no product overflows.

    Source: C. Wellons, "lowbias32" (hash-prospector, improved constants 21f0aaad d35a2d97, low bias 0.107).
    """
    x = (x ^ (x >> 16)) * 0x21F0AAAD & _UINT32
    x = (x ^ (x >> 15)) * 0x735A2D97 & _UINT32
    return x ^ (x >> 15)
