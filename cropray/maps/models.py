"""Trained models behind one face, whichever kind they are."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from cropray.bands import N_BANDS, N_FEATURES, N_MONTHS
from cropray.errors import MissingArtefactError, SchemaError
from cropray.legend import CropClass
from cropray.models.crop_net import receptive
from cropray.storage import Location, local_folder
from cropray.training.checkpoint import CARD_FILE, CnnCheckpoint, load_checkpoint
from cropray.training.device import torch_device
from cropray.training.xgboost_model import load_booster, predict_proba, read_card

Samples = npt.NDArray[np.uint16]
Probabilities = npt.NDArray[np.float32]


class TilePredictor(Protocol):
    """What mapping a zone needs of a model."""

    @property
    def classes(self) -> tuple[CropClass, ...]:
        """Class of each output, in order."""

    @property
    def margin_px(self) -> int:
        """Predictions are exact this far from an edge where a window cuts the image."""

    @property
    def stride_px(self) -> int:
        """Windows must start at multiples of this."""

    def predict_tiles(self, x: Samples) -> Probabilities:
        """Class probabilities of each pixel.

        Args:
            x: [N, T, C, H, W] uint16 digital numbers, 0 = no data.

        Returns:
            [N, K, H, W] float32, sums to 1 over K.
        """


class CropModel(TilePredictor, Protocol):
    """What serving and the registry need beside it."""

    requirements: ClassVar[tuple[str, ...]]
    """Distributions that are needed to load it."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Axes of `predict_samples`' input, -1 where any length is accepted."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Axes of `predict_samples`' output."""

    def predict_samples(self, x: Samples) -> Probabilities:
        """Class probabilities of samples in the model's own form, as a model server gets them."""


@dataclass(frozen=True, slots=True)
class CnnModel:
    """A CNN; its samples are tiles [N, T, C, H, W]."""

    requirements: ClassVar[tuple[str, ...]] = ("torch", "safetensors")

    checkpoint: CnnCheckpoint

    @property
    def classes(self) -> tuple[CropClass, ...]:
        """Class of each output, in order."""
        return self.checkpoint.classes

    @property
    def margin_px(self) -> int:
        """The network's reach, rounded up to its stride."""
        return receptive(self.checkpoint.model.config).margin_px

    @property
    def stride_px(self) -> int:
        """The network's coarsest pixel."""
        return receptive(self.checkpoint.model.config).stride_px

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[N, T, C, H, W]."""
        return -1, N_MONTHS, N_BANDS, -1, -1

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


@dataclass(frozen=True, slots=True)
class TreeModel:
    """Boosted trees; their samples are pixels [N, 48] in the order of `FEATURE_COLUMNS`."""

    requirements: ClassVar[tuple[str, ...]] = ("xgboost",)

    booster: xgb.Booster
    classes: tuple[CropClass, ...]

    @property
    def margin_px(self) -> int:
        """Trees look at one pixel."""
        return 0

    @property
    def stride_px(self) -> int:
        """Trees look at one pixel."""
        return 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[N, 48]."""
        return -1, N_FEATURES

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[N, K]."""
        return -1, len(self.classes)

    def predict_tiles(self, x: Samples) -> Probabilities:
        """[N, T, C, H, W] uint16 → [N, K, H, W] float32."""
        n, months, bands, height, width = x.shape
        # Features are band-major: axes to N, H, W, C, T before the last two become one.
        pixels = x.transpose(0, 3, 4, 2, 1).reshape(-1, bands * months)
        probabilities = self.predict_samples(pixels).reshape(n, height, width, len(self.classes))
        return np.ascontiguousarray(probabilities.transpose(0, 3, 1, 2))

    def predict_samples(self, x: Samples) -> Probabilities:
        """[N, 48] uint16 → [N, K] float32."""
        return predict_proba(self.booster, np.ascontiguousarray(x))


def load_model(folder: Location, device: str = "cpu") -> CropModel:
    """Read a model folder that training has written.

    Args:
        folder: weights and `card.json`.
        device: `cpu` or `cuda`, where a CNN predicts.

    Raises:
        ConfigError: torch sees no GPU in this process.
        MissingArtefactError: there is no model.
        SchemaError: it is damaged, or of an unknown kind.
    """
    kind = _kind(folder)
    if kind not in _LOADERS:
        raise SchemaError(
            f"the model in '{folder}' is of kind {kind!r}, this cropray knows {sorted(_LOADERS)}; "
            f"use the cropray version that trained it, or train it again"
        )
    with local_folder(folder) as files:
        return _LOADERS[kind](files, device)


def _kind(folder: Location) -> Any:
    try:
        return json.loads((folder / CARD_FILE).read_text(encoding="utf-8")).get("kind")
    except FileNotFoundError:
        raise MissingArtefactError(
            f"'{folder}' holds no model ({CARD_FILE} is missing); run `cropray search CONFIG.yaml` first"
        ) from None
    except (json.JSONDecodeError, AttributeError) as error:
        raise SchemaError(f"'{folder / CARD_FILE}' is damaged ({error}); remove the folder and train again") from None


def _load_cnn(folder: Path, device: str) -> CropModel:
    return CnnModel(load_checkpoint(folder, str(torch_device(device, "map.device"))))


def _load_trees(folder: Path, device: str) -> CropModel:
    del device  # trees predict on the CPU: one pass over a zone takes seconds
    classes = tuple(CropClass(**record) for record in read_card(folder)["classes"])
    return TreeModel(load_booster(folder), classes)


_LOADERS: Final[dict[str, Callable[[Path, str], CropModel]]] = {"cnn": _load_cnn, "xgboost": _load_trees}
