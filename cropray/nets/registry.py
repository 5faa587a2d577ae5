"""Networks by name: what each of them is made from, reads, and tells those who lay windows.

Another one is one file here, with a class below `NETS.register` and a line in `nets/catalogue.py`. Its `Config` has a field
for each of its settings, which a job gives in `net: {name: …, setting: value}`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from torch import Tensor, nn

from cropray.core.registry import Choice, Registry, options_of
from cropray.nets.context import Context

_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Receptive:
    """How windows must be laid so that predicting by windows equals predicting at once."""

    margin_px: int
    """Prediction is exact this far from a window's cut edge; a multiple of the stride."""
    stride_px: int
    """Windows start at multiples of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetConfig:
    """Everything that determines a network's layers; travels inside each checkpoint."""

    n_classes: int
    n_months: int
    """Steps of time of the cube; the name is that of older cards."""
    n_bands: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able record."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The config that `to_dict` wrote, also after a way through JSON."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
        return cls(**values)


class Net(nn.Module):
    """A network: series of pixels in, scores of classes out."""

    Config: ClassVar[type[NetConfig]]

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, x_BTCHW: Tensor, context: Context | None = None) -> Tensor:
        """Class scores of each pixel.

        Args:
            x_BTCHW: float32, normalised; 0 where there is no data. Any height and width.
            context: of the batch; None: every number is a value, and nothing is seeded.

        Returns:
            logits_BKHW, float32.
        """
        raise NotImplementedError

    def require_input(self, x_BTCHW: Tensor) -> None:
        """Raises: ValueError: it is of another cube."""
        if x_BTCHW.shape[1:3] != (self.config.n_months, self.config.n_bands):
            raise ValueError(
                f"the network reads [B, {self.config.n_months} steps, {self.config.n_bands} bands, H, W]; "
                f"got {tuple(x_BTCHW.shape)}"
            )

    def receptive(self) -> Receptive:
        """Margin and stride for windowed prediction; here those of a network that looks at single pixels."""
        return Receptive(0, 1)

    def bytes_per_px(self) -> int:
        """Most memory that a prediction takes beside its input, bytes per pixel; here the widest layer's, twice."""
        widest = max(len(parameter) for parameter in self.parameters())
        return 2 * _FLOAT_BYTES * int(self.config.n_months) * widest


NETS: Final[Registry[Net]] = Registry("network", f"{__package__}.catalogue")


def net_config(choice: Choice, shared: Mapping[str, Any], sizes: Mapping[str, int]) -> NetConfig:
    """The config of a chosen network.

    Args:
        choice: its name, and settings of its own.
        shared: settings of the family; those that the network has go before its defaults, and the choice's before these.
        sizes: `n_classes`, `n_months`, `n_bands`.

    Raises:
        ConfigError: there is no such network.
        TypeError: it has no such setting.
        ValueError: a setting is out of range.
    """
    kind = NETS.entry(choice).Config
    own = {field.name for field in dataclasses.fields(kind)}
    return kind(**{**{name: value for name, value in shared.items() if name in own}, **options_of(choice), **sizes})
