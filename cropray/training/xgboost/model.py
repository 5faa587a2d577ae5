"""Trained boosted trees in use."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import xgboost as xgb

from cropray.core.cube import STUDY_CUBE, CubeSpec, recorded_cube
from cropray.legend import CropClass
from cropray.training.family import Probabilities, Samples
from cropray.training.xgboost.tree_file import load_booster, predict_proba, read_card

_NUMBER_BYTES: Final = 2
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class TreeModel:
    """Boosted trees; their samples are pixels [N, F] in the order of the cube's columns."""

    loader: ClassVar[str] = "cropray.training.xgboost.served"

    booster: xgb.Booster
    classes: tuple[CropClass, ...]
    cube: CubeSpec = STUDY_CUBE

    @property
    def columns(self) -> tuple[str, ...]:
        """The cube's."""
        return self.cube.columns

    @property
    def margin_px(self) -> int:
        """Trees look at one pixel."""
        return 0

    @property
    def stride_px(self) -> int:
        """Trees look at one pixel."""
        return 1

    @property
    def bytes_per_px(self) -> int:
        """Features as numbers and as floats, and the classes' probabilities three times."""
        return (_NUMBER_BYTES + _FLOAT_BYTES) * self.cube.n_features + 3 * _FLOAT_BYTES * len(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[N, F]."""
        return -1, self.cube.n_features

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[N, K]."""
        return -1, len(self.classes)

    def predict_tiles(self, x: Samples) -> Probabilities:
        """[N, T, C, H, W] uint16 → [N, K, H, W] float32."""
        n, steps, bands, height, width = x.shape
        # Features are band-major: axes to N, H, W, C, T before the last two become one.
        pixels = x.transpose(0, 3, 4, 2, 1).reshape(-1, bands * steps)
        probabilities = self.predict_samples(pixels).reshape(n, height, width, len(self.classes))
        return np.ascontiguousarray(probabilities.transpose(0, 3, 1, 2))

    def predict_samples(self, x: Samples) -> Probabilities:
        """[N, F] uint16 → [N, K] float32."""
        return predict_proba(self.booster, np.ascontiguousarray(x))


def load_trees(folder: Path) -> TreeModel:
    """The trees of a folder.

    Raises:
        MissingArtefactError: there are none.
        SchemaError: they are damaged.
    """
    card = read_card(folder)
    classes = tuple(CropClass(**record) for record in card["classes"])
    return TreeModel(load_booster(folder), classes, recorded_cube(card))
