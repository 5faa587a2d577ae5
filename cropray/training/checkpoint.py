"""CNN checkpoints: a folder with `weights.safetensors` and `card.json`, no pickle.

The card holds all that is needed to use the weights (layers, normalisation, classes) and where they come from.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import cropray
from cropray.bands import FEATURE_COLUMNS
from cropray.errors import MissingArtefactError, SchemaError
from cropray.legend import CropClass
from cropray.models.crop_net import CropNet, CropNetConfig
from cropray.storage import whole_file, write_json
from cropray.training.device import predict_tiles
from cropray.training.tiles import ChannelStats

CARD_VERSION: Final = 1
WEIGHTS_FILE: Final = "weights.safetensors"
CARD_FILE: Final = "card.json"


@dataclass(frozen=True, slots=True)
class CnnCheckpoint:
    """A trained CNN and everything that its use needs."""

    model: CropNet
    """In evaluation mode."""
    stats: ChannelStats
    classes: tuple[CropClass, ...]
    """Class of each output, in order."""
    legend_hash: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able: settings, point, seed, training zones, history …"""

    def predict_proba(self, x: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
        """Class probabilities of each pixel.

        Args:
            x: [N, T, C, H, W] digital numbers, 0 = no data; any height and width.

        Returns:
            [N, K, H, W] float32, sums to 1 over K.
        """
        return predict_tiles(self.model, self.stats, x)


def save_checkpoint(folder: Path, checkpoint: CnnCheckpoint) -> None:
    """Write weights, then the card: a folder with a card is complete."""
    weights: dict[str, Tensor] = {
        name: value.detach().cpu().contiguous() for name, value in checkpoint.model.state_dict().items()
    }
    with whole_file(folder / WEIGHTS_FILE) as temporary:
        save_file(weights, temporary)
    card = {
        "kind": "cnn",
        "card_version": CARD_VERSION,
        "cropray_version": cropray.__version__,
        "config": checkpoint.model.config.to_dict(),
        "stats": asdict(checkpoint.stats),
        "features": list(FEATURE_COLUMNS),
        "classes": [asdict(crop) for crop in checkpoint.classes],
        "legend_hash": checkpoint.legend_hash,
        "provenance": dict(checkpoint.provenance),
    }
    write_json(folder / CARD_FILE, card)


def load_checkpoint(folder: Path, device: str = "cpu") -> CnnCheckpoint:
    """Read a checkpoint, ready to predict.

    Raises:
        MissingArtefactError: there is none.
        SchemaError: it is of another kind or version, or damaged.
    """
    try:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS_FILE, device=device)
    except FileNotFoundError as error:
        raise MissingArtefactError(f"'{error.filename or folder}' does not exist; run `cropray search` first") from None
    except (json.JSONDecodeError, SafetensorError) as error:
        raise SchemaError(f"checkpoint '{folder}' is damaged ({error}); remove it and run `cropray search`") from None
    found = (card.get("kind"), card.get("card_version"))
    if found != ("cnn", CARD_VERSION):
        raise SchemaError(
            f"checkpoint '{folder}' is of kind and version {found}; needed: {('cnn', CARD_VERSION)}. Train it again"
        )
    model = CropNet(CropNetConfig.from_dict(card["config"])).to(device)
    model.load_state_dict(weights)
    return CnnCheckpoint(
        model=model.eval(),
        stats=ChannelStats(tuple(card["stats"]["mean"]), tuple(card["stats"]["std"])),
        classes=tuple(CropClass(**record) for record in card["classes"]),
        legend_hash=card["legend_hash"],
        provenance=card["provenance"],
    )
