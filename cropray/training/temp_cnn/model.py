"""A trained network over pixels in use."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cropray.bands import FEATURE_COLUMNS, N_FEATURES
from cropray.training.cnn.checkpoint import load_checkpoint
from cropray.training.cnn.model import CnnModel
from cropray.training.family import Probabilities, Samples
from cropray.training.temp_cnn.pixel_network import KIND, predict_rows


@dataclass(frozen=True, slots=True)
class PixelModel(CnnModel):
    """A network whose samples are pixels [N, 48] in the order of `FEATURE_COLUMNS`."""

    loader: ClassVar[str] = "cropray.training.temp_cnn.served"
    columns: ClassVar[tuple[str, ...]] = FEATURE_COLUMNS

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[N, 48]."""
        return -1, N_FEATURES

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[N, K]."""
        return -1, len(self.classes)

    def predict_samples(self, x: Samples) -> Probabilities:
        """[N, 48] uint16 → [N, K] float32."""
        return predict_rows(self.checkpoint.model, self.checkpoint.stats, x)


def load_temp_cnn(folder: Path, device: str) -> PixelModel:
    """The network of a folder.

    Raises:
        MissingArtefactError: there is none.
        SchemaError: it is damaged.
    """
    checkpoint = load_checkpoint(folder, device, KIND)
    reach = checkpoint.model.receptive()
    return PixelModel(checkpoint, reach.margin_px, reach.stride_px)
