"""A CNN read back and in use: a folder with `weights.safetensors` and `card.json`.

The card holds all that is needed to use the weights (layers, normalisation, classes) and where they come from. Needs
numpy, torch and safetensors only: a registered model carries this module.
"""

import json
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file

from cropray.errors import MissingArtefactError, SchemaError
from cropray.nets.crop_net import CropNet, CropNetConfig
from cropray.training.deep.tiles import ChannelStats

CARD_VERSION: Final = 1
WEIGHTS_FILE: Final = "weights.safetensors"
CARD_FILE: Final = "card.json"


def read_network(folder: Path, device: str = "cpu") -> tuple[CropNet, ChannelStats, dict[str, Any]]:
    """(network in evaluation mode, statistics of its input, card), ready to predict.

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
    stats = ChannelStats(tuple(card["stats"]["mean"]), tuple(card["stats"]["std"]))
    return model.eval(), stats, card
