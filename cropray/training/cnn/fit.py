"""Fitting the network over tiles, by the loop of all networks."""

from typing import Final

from cropray.training.cnn.model import KIND
from cropray.training.deep.fit import Kind, tile_samples

CNN: Final = Kind(KIND, tile_samples)
