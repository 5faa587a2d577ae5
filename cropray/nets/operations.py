"""How much arithmetic the network is."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from cropray.nets.registry import Net, NetConfig


def tile_operations(kind: type[Net], config: NetConfig, tile_px: int) -> float:
    """Floating-point operations (a multiplication and an addition are two) of one tile's way through the network.

    Counted by torch on tensors without data: convolutions, not the norms, activations and upsamplings between them.
    """
    with torch.device("meta"):
        network = kind(config).train()  # outside training it takes pixels in parts, which changes nothing here
        tile = torch.empty(1, config.n_months, config.n_bands, tile_px, tile_px)
    with FlopCounterMode(display=False) as counter:
        network(tile)
    return float(counter.get_total_flops())
