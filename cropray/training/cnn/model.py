"""A trained CNN in use."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from cropray.core.cube import CubeSpec
from cropray.legend import CropClass
from cropray.nets.crop_net import receptive
from cropray.training.cnn.checkpoint import CnnCheckpoint, load_checkpoint
from cropray.training.family import Probabilities, Samples

_NUMBER_BYTES: Final = 2
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class CnnModel:
    """A CNN; its samples are tiles [N, T, C, H, W]."""

    loader: ClassVar[str] = "cropray.training.cnn.served"
    columns: ClassVar[tuple[str, ...]] = ()

    checkpoint: CnnCheckpoint
    margin_px: int
    """The network's reach, rounded up to its stride."""
    stride_px: int
    """The network's coarsest pixel."""

    @property
    def cube(self) -> CubeSpec:
        """Bands and steps that it reads."""
        return self.checkpoint.cube

    @property
    def classes(self) -> tuple[CropClass, ...]:
        """Class of each output, in order."""
        return self.checkpoint.classes

    @property
    def bytes_per_px(self) -> int:
        """Input, and the largest of: embeddings of the months, the finest level of the U-Net, the classes.

        Measured as the growth of a process, torch 2.13 on CPU: 1.8-2.2 kB for the study's network (64 channels, U-Net
        64-128-256-512-512, 1000 × 1000 pixels), 1.3 kB for 64 and 32-32, 0.8 kB for 32 and 16-32-64-64.
        """
        config = self.checkpoint.model.config
        finest = config.unet_channels[0]
        largest = max(15 * config.temporal_channels, 30 * finest, 4 * finest + 12 * config.n_classes)
        return (_NUMBER_BYTES + _FLOAT_BYTES) * config.n_months * config.n_bands + largest

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
        """The same: a CNN's samples are tiles."""
        return self.predict_tiles(x)


def load_cnn(folder: Path, device: str) -> CnnModel:
    """The CNN of a folder.

    Raises:
        MissingArtefactError: there is none.
        SchemaError: it is damaged.
    """
    checkpoint = load_checkpoint(folder, device)
    reach = receptive(checkpoint.model.config)
    return CnnModel(checkpoint, reach.margin_px, reach.stride_px)
