"""Networks that answer together."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cropray.nets.context import Context
from cropray.nets.registry import Net, Receptive


class Ensemble(Net):
    """Networks of one config, trained apart from other seeds; together they give the mean of their probabilities."""

    def __init__(self, members: Sequence[Net]) -> None:
        super().__init__(members[0].config)
        self.members = nn.ModuleList(members)

    def forward(self, x_BTCHW: Tensor, context: Context | None = None) -> Tensor:
        """Logarithms of the summed probabilities, whose softmax is the mean."""
        parts = torch.stack([member(x_BTCHW, context).log_softmax(dim=1) for member in self.members])
        return parts.logsumexp(dim=0)

    def receptive(self) -> Receptive:
        """That of each member."""
        return self._first.receptive()

    def bytes_per_px(self) -> int:
        """One member's, and the probabilities of all."""
        return self._first.bytes_per_px() + 8 * len(self.members) * int(self.config.n_classes)

    @property
    def _first(self) -> Net:
        first = self.members[0]
        assert isinstance(first, Net)
        return first
