"""A trained network over pixels in use."""

from dataclasses import dataclass
from typing import ClassVar

from cropray.training.crop_model import Probabilities, Samples
from cropray.training.deep.model import TileNetworkModel
from cropray.training.temp_cnn.pixel_network import KIND, predict_rows


@dataclass(frozen=True, slots=True)
class PixelNetworkModel(TileNetworkModel):
    """A network whose samples are pixels [N, T·C] in the order of the cube's columns."""

    kind: ClassVar[str] = KIND
    loader: ClassVar[str] = "cropray.training.temp_cnn.served"

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a table of samples."""
        return self.cube.columns

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[N, T·C]."""
        return -1, self.cube.n_features

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[N, K]."""
        return -1, len(self.classes)

    def predict_samples(self, x: Samples) -> Probabilities:
        """[N, T·C] uint16 → [N, K] float32."""
        return predict_rows(self.checkpoint.model, self.checkpoint.stats, self.cube, x)
