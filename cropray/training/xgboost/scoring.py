"""Boosted trees on their way to the disk and between processes. Reading and predicting: `cropray.training.xgboost.tree_file`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xgboost as xgb

from cropray.io.storage import whole_file
from cropray.training.pixel_blocks import TreeData
from cropray.training.pixels import write_card
from cropray.training.xgboost.tree_file import CARD_VERSION, KIND, MODEL_FILE


def save_booster(folder: Path, booster: xgb.Booster, data: TreeData, provenance: Mapping[str, Any]) -> None:
    """Write the trees, then the card: a folder with a card is complete.

    Args:
        folder: an existing folder.
        booster: trained trees.
        data: the training pixels; their classes go into the card.
        provenance: JSON-able: settings, point, seed …
    """
    with whole_file(folder / MODEL_FILE) as temporary:
        booster.save_model(temporary)
    write_card(folder, KIND, CARD_VERSION, data, provenance, n_estimators=booster.num_boosted_rounds())


def booster_from_bytes(model: bytes, n_threads: int | None = None) -> xgb.Booster:
    """Trees from UBJSON.

    Args:
        model: what `Booster.save_raw("ubj")` gave.
        n_threads: threads of a prediction; None: all.
    """
    booster = xgb.Booster({} if n_threads is None else {"nthread": n_threads})
    booster.load_model(bytearray(model))
    return booster
