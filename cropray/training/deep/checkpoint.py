"""Checkpoints of networks: what training leaves as `weights.safetensors` and `card.json`, no pickle.

Reading and predicting without the rest of cropray: `cropray.training.deep.network_file`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.torch import save_file
from torch import Tensor

import cropray
from cropray.core.cube import STUDY_CUBE, CubeSpec, recorded_cube
from cropray.core.legend import CropClass
from cropray.core.registry import Choice, is_outside, name_of
from cropray.io.storage import whole_file, write_json
from cropray.nets.ensemble import Ensemble
from cropray.nets.registry import Net
from cropray.training.card import CARD_FILE, naming_damage
from cropray.training.deep.device import predict_tiles
from cropray.training.deep.network_file import CARD_VERSION, FIRST_NET, WEIGHTS_FILE, read_network
from cropray.training.deep.tiles import ChannelStats


@dataclass(frozen=True, slots=True)
class NetworkCheckpoint:
    """A trained network and everything that its use needs."""

    model: Net
    """In evaluation mode."""
    stats: ChannelStats
    classes: tuple[CropClass, ...]
    """Class of each output, in order."""
    legend_hash: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able: settings, point, seed, training zones, history …"""
    cube: CubeSpec = STUDY_CUBE
    """Bands and steps of what it reads."""
    net: Choice = "conv_unet"
    """What the network was chosen by."""
    kind: str = field(kw_only=True)
    """Name of the family."""

    def predict_proba(self, x: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
        """Class probabilities of each pixel, see `predict_tiles`."""
        return predict_tiles(self.model, self.stats, x)


def save_checkpoint(folder: Path, checkpoint: NetworkCheckpoint) -> None:
    """Write weights, then the card: a folder with a card is complete."""
    weights: dict[str, Tensor] = {
        name: value.detach().cpu().contiguous() for name, value in checkpoint.model.state_dict().items()
    }
    with whole_file(folder / WEIGHTS_FILE) as temporary:
        save_file(weights, temporary)
    model = checkpoint.model
    own = type(model.members[0] if isinstance(model, Ensemble) else model)
    card = {
        "kind": checkpoint.kind,
        "card_version": CARD_VERSION,
        "cropray_version": cropray.__version__,
        "net": name_of(checkpoint.net),
        **({"modules": [own.__module__]} if is_outside(own) else {}),
        "n_seeds": len(checkpoint.model.members) if isinstance(checkpoint.model, Ensemble) else 1,
        "config": checkpoint.model.config.to_dict(),
        "stats": asdict(checkpoint.stats),
        "features": list(checkpoint.cube.columns),
        "cube": checkpoint.cube.to_record(),
        "classes": [asdict(crop) for crop in checkpoint.classes],
        "legend_hash": checkpoint.legend_hash,
        "provenance": dict(checkpoint.provenance),
    }
    write_json(folder / CARD_FILE, card)


def load_checkpoint(folder: Path, kind: str, device: str = "cpu") -> NetworkCheckpoint:
    """Read a checkpoint of a family, ready to predict.

    Raises:
        MissingArtefactError: there is none.
        SchemaError: it is of another kind or version, or damaged.
    """
    model, stats, card = read_network(folder, kind, device)
    with naming_damage(folder / CARD_FILE):
        return NetworkCheckpoint(
            model=model,
            stats=stats,
            classes=tuple(CropClass(**record) for record in card["classes"]),
            legend_hash=card["legend_hash"],
            provenance=card["provenance"],
            cube=recorded_cube(card),
            net=card.get("net", FIRST_NET),
            kind=kind,
        )
