"""A network read back and in use: a folder with `weights.safetensors` and `card.json`.

The card holds all that is needed to use the weights (network, layers, normalisation, classes) and where they come from.
Needs numpy, torch and safetensors only: a registered model carries this module, and the networks of the catalogue.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file

import cropray.nets.catalogue  # noqa: F401 - a registered model carries what this module imports
from cropray.core.cube import recorded_cube
from cropray.core.errors import ConfigError, MissingArtefactError, SchemaError
from cropray.nets.ensemble import Ensemble
from cropray.nets.registry import NETS, Net
from cropray.training.card import CARD_FILE, class_names, import_own, load_card, naming_damage
from cropray.training.deep.tiles import ChannelStats

CARD_VERSION: Final = 1
WEIGHTS_FILE: Final = "weights.safetensors"
FIRST_NET: Final = "conv_unet"  # of cards that name none: there was no other


def read_network(folder: Path, kind: str, device: str = "cpu") -> tuple[Net, ChannelStats, dict[str, Any]]:
    """(network in evaluation mode, statistics of its input, card), ready to predict.

    Args:
        folder: of a checkpoint.
        kind: name of the family.
        device: where it predicts.

    Raises:
        MissingArtefactError: there is none.
        SchemaError: it is of another kind or version, or damaged.
        ConfigError: its network is not known here.
    """
    card, path = load_card(folder), folder / WEIGHTS_FILE
    found = (card.get("kind"), card.get("card_version"))
    if found != (kind, CARD_VERSION):
        raise SchemaError(
            f"checkpoint '{folder}' is of kind and version {found}; needed: {(kind, CARD_VERSION)}. Train it again"
        )
    try:
        weights = load_file(path, device=device)
    except FileNotFoundError:
        raise MissingArtefactError(f"'{path}' does not exist; run `cropray search CONFIG.yaml` first") from None
    except SafetensorError as error:
        raise SchemaError(f"'{path}' is damaged ({error}); remove the folder and train again") from None
    net = net_of(card)
    with naming_damage(folder / CARD_FILE):
        model = together([net(net.Config.from_dict(card["config"])) for _ in range(card.get("n_seeds", 1))]).to(device)
        stats = ChannelStats(tuple(card["stats"]["mean"]), tuple(card["stats"]["std"]))
        sizes = model.config.n_classes, (model.config.n_months, model.config.n_bands)
        if sizes != (len(class_names(card)), recorded_cube(card).shape):
            raise ValueError("its network is for other classes or another cube than it names")
    with naming_damage(path):
        model.load_state_dict(weights)
    return model.eval(), stats, card


def net_of(card: Mapping[str, Any]) -> type[Net]:
    """The class of a network; one of somebody's own registers itself as its module is read.

    Raises:
        ConfigError: there is none.
    """
    why = import_own(card)
    try:
        return NETS.entry(card.get("net", FIRST_NET))
    except ConfigError as error:
        raise ConfigError("; ".join([str(error), *why])) from None


def together(members: list[Net]) -> Net:
    """One network, or several as one."""
    return members[0] if len(members) == 1 else Ensemble(members)
