"""Trained models behind one face, whichever kind they are."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import numpy as np
import numpy.typing as npt

from cropray.core.cube import STUDY_CUBE, CubeSpec, recorded_cube
from cropray.errors import MissingArtefactError, SchemaError
from cropray.legend import CropClass
from cropray.storage import Location, local_folder

if TYPE_CHECKING:
    import xgboost as xgb

    from cropray.training.checkpoint import CnnCheckpoint

CARD_FILE: Final = "card.json"  # whichever kind a model is, see `cropray.training.tree_file` and `network_file`

Samples = npt.NDArray[np.uint16]
Probabilities = npt.NDArray[np.float32]
_NUMBER_BYTES: Final = 2
_FLOAT_BYTES: Final = 4


class TilePredictor(Protocol):
    """What mapping a zone needs of a model."""

    @property
    def cube(self) -> CubeSpec:
        """Bands and steps that it reads."""

    @property
    def classes(self) -> tuple[CropClass, ...]:
        """Class of each output, in order."""

    @property
    def margin_px(self) -> int:
        """Predictions are exact this far from an edge where a window cuts the image."""

    @property
    def stride_px(self) -> int:
        """Windows must start at multiples of this."""

    @property
    def bytes_per_px(self) -> int:
        """Most memory that a prediction takes, bytes per pixel of its window."""

    def predict_tiles(self, x: Samples) -> Probabilities:
        """Class probabilities of each pixel.

        Args:
            x: [N, T, C, H, W] uint16 digital numbers, 0 = no data.

        Returns:
            [N, K, H, W] float32, sums to 1 over K.
        """


class CropModel(TilePredictor, Protocol):
    """What serving and the registry need beside it."""

    loader: ClassVar[str]
    """Module with MLflow's `_load_pyfunc`; a registered model carries it and what it imports."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a table of samples, in order; empty: samples are tiles."""

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

    loader: ClassVar[str] = "cropray.maps.served_network"
    columns: ClassVar[tuple[str, ...]] = ()

    checkpoint: "CnnCheckpoint"
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


@dataclass(frozen=True, slots=True)
class TreeModel:
    """Boosted trees; their samples are pixels [N, F] in the order of the cube's columns."""

    loader: ClassVar[str] = "cropray.maps.served_trees"

    booster: "xgb.Booster"
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
        from cropray.training.tree_file import predict_proba  # noqa: PLC0415

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


@lru_cache(maxsize=1)
def kept_model(folder: Location, content: str, device: str = "cpu") -> CropModel:
    """`load_model`, once for the many zones that a worker process predicts.

    Args:
        folder: weights and `card.json`.
        content: `folder_hash(folder)`; a model that has changed is read again.
        device: where a CNN predicts.
    """
    del content
    return load_model(folder, device)


def _kind(folder: Location) -> Any:
    try:
        return json.loads((folder / CARD_FILE).read_text(encoding="utf-8")).get("kind")
    except FileNotFoundError:
        raise MissingArtefactError(
            f"'{folder}' holds no model ({CARD_FILE} is missing); run `cropray search CONFIG.yaml` first"
        ) from None
    except (json.JSONDecodeError, AttributeError) as error:
        raise SchemaError(f"'{folder / CARD_FILE}' is damaged ({error}); remove the folder and train again") from None


# Each kind's libraries load with the first model of that kind: mapping with trees does not wait for torch.
def _load_cnn(folder: Path, device: str) -> CropModel:
    from cropray.models.crop_net import receptive  # noqa: PLC0415
    from cropray.training.checkpoint import load_checkpoint  # noqa: PLC0415
    from cropray.training.device import torch_device  # noqa: PLC0415

    checkpoint = load_checkpoint(folder, str(torch_device(device, "map.device")))
    reach = receptive(checkpoint.model.config)
    return CnnModel(checkpoint, reach.margin_px, reach.stride_px)


def _load_trees(folder: Path, device: str) -> CropModel:
    from cropray.training.tree_file import load_booster, read_card  # noqa: PLC0415

    del device  # trees predict on the CPU: one pass over a zone takes seconds
    card = read_card(folder)
    classes = tuple(CropClass(**record) for record in card["classes"])
    return TreeModel(load_booster(folder), classes, recorded_cube(card))


_LOADERS: Final[dict[str, Callable[[Path, str], CropModel]]] = {"cnn": _load_cnn, "xgboost": _load_trees}
