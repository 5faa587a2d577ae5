"""Trained networks in use."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Self

from cropray.core.cube import CubeSpec
from cropray.core.legend import CropClass
from cropray.training.crop_model import Probabilities, Samples
from cropray.training.deep.checkpoint import NetworkCheckpoint, load_checkpoint

_NUMBER_BYTES: Final = 2
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class TileNetworkModel:
    """A network whose samples are tiles [N, T, C, H, W]."""

    kind: ClassVar[str]
    """Name of the family."""
    loader: ClassVar[str]
    """See `CropModel`."""

    checkpoint: NetworkCheckpoint
    margin_px: int
    """The network's reach, rounded up to its stride."""
    stride_px: int
    """The network's coarsest pixel."""

    @classmethod
    def read(cls, folder: Path, device: str) -> Self:
        """The network of a folder; raises as `load_checkpoint`."""
        checkpoint = load_checkpoint(folder, cls.kind, device)
        reach = checkpoint.model.receptive()
        return cls(checkpoint, reach.margin_px, reach.stride_px)

    @property
    def cube(self) -> CubeSpec:
        """Bands and steps that it reads."""
        return self.checkpoint.cube

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a table of samples: none, they are tiles."""
        return ()

    @property
    def classes(self) -> tuple[CropClass, ...]:
        """Class of each output, in order."""
        return self.checkpoint.classes

    @property
    def bytes_per_px(self) -> int:
        """Input as numbers and as floats, and what the network takes."""
        net = self.checkpoint.model
        return (_NUMBER_BYTES + _FLOAT_BYTES) * self.cube.n_features + net.bytes_per_px()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[N, T, C, H, W]."""
        return -1, *self.cube.shape, -1, -1

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[N, K, H, W]."""
        return -1, len(self.classes), -1, -1

    def predict_tiles(self, x: Samples) -> Probabilities:
        """[N, T, C, H, W] uint16 → [N, K, H, W] float32."""
        return self.checkpoint.predict_proba(x)

    def predict_samples(self, x: Samples) -> Probabilities:
        """The same: its samples are tiles."""
        return self.predict_tiles(x)
