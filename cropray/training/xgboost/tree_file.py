"""Boosted trees read back and in use: a folder with `model.ubj` and `card.json`.

The card holds all that is needed to use the trees and where they come from. Needs numpy and xgboost only: a registered
model carries this module.
"""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from cropray.core.errors import SchemaError
from cropray.core.sensors import NODATA
from cropray.training.card import read_card

KIND: Final = "xgboost"
CARD_VERSION: Final = 1
MODEL_FILE: Final = "model.ubj"


def predict_proba(
    booster: xgb.Booster, features: npt.NDArray[np.uint16], n_estimators: int | None = None
) -> npt.NDArray[np.float32]:
    """Class probabilities of each pixel.

    Args:
        booster: trained trees.
        features: [N, F] digital numbers in the order of the card's `features`, 0 = missing.
        n_estimators: use the first so many boosting rounds; None: all.

    Returns:
        [N, K] float32, sums to 1 over K.
    """
    rounds = booster.num_boosted_rounds() if n_estimators is None else n_estimators
    if not 1 <= rounds <= booster.num_boosted_rounds():
        raise ValueError(f"n_estimators is {rounds}, the model has {booster.num_boosted_rounds()} boosting rounds")
    if len(features) == 0:  # XGBoost refuses an empty array
        return np.empty((0, n_outputs(booster)), np.float32)
    probabilities: npt.NDArray[np.float32] = booster.inplace_predict(
        features, iteration_range=(0, rounds), missing=NODATA
    )
    return probabilities


def n_outputs(booster: xgb.Booster) -> int:
    """Classes that the trees predict."""
    return int(json.loads(booster.save_config())["learner"]["learner_model_param"]["num_class"])


def load_booster(folder: Path) -> tuple[xgb.Booster, dict[str, Any]]:
    """(trees that `save_booster` wrote, their card).

    Raises:
        MissingArtefactError: there are none.
        SchemaError: they are damaged or do not belong to the card.
    """
    card = read_card(folder, KIND, CARD_VERSION, MODEL_FILE)
    booster = xgb.Booster()
    try:
        booster.load_model(folder / MODEL_FILE)
    except xgb.core.XGBoostError as error:
        reason = str(error).strip().splitlines()[0]
        raise SchemaError(f"model '{folder / MODEL_FILE}' cannot be read ({reason}); train it again") from None
    found = (booster.num_boosted_rounds(), booster.num_features(), n_outputs(booster))
    wanted = (card.get("n_estimators"), len(card["features"]), len(card["classes"]))
    if found != wanted:
        raise SchemaError(
            f"model '{folder}' has {found} boosting rounds, features and classes, its card says {wanted}; train it again"
        )
    return booster, card
