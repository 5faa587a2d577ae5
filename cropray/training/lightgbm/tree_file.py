"""LightGBM's trees read back and in use: a folder with `model.txt`, its own text, and `card.json`.

Needs numpy and lightgbm only: a registered model carries this module.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from cropray.core.errors import SchemaError
from cropray.core.features import as_floats
from cropray.training.card import read_card

KIND: Final = "lightgbm"
CARD_VERSION: Final = 1
MODEL_FILE: Final = "model.txt"
_BATCH_ROWS: Final = 1 << 16  # pixels that are floats at the same time


def predict_proba(
    booster: lgb.Booster, features: npt.NDArray[np.uint16], n_estimators: int | None = None, n_threads: int = 0
) -> npt.NDArray[np.float32]:
    """Class probabilities of each pixel.

    Args:
        booster: trained trees.
        features: [N, F] features in the order of the card's, 0 = missing.
        n_estimators: use the first so many boosting rounds; None: all.
        n_threads: 0: as many as OpenMP has.

    Returns:
        [N, K] float32, sums to 1 over K.
    """
    rounds = -1 if n_estimators is None else n_estimators
    probabilities = np.empty((len(features), booster.num_model_per_iteration()), np.float32)
    for start in range(0, len(features), _BATCH_ROWS):
        part = slice(start, start + _BATCH_ROWS)
        probabilities[part] = booster.predict(as_floats(features[part]), num_iteration=rounds, num_threads=n_threads)
    return probabilities


def load_booster(folder: Path) -> tuple[lgb.Booster, dict[str, Any]]:
    """(trees, their card).

    Raises:
        MissingArtefactError: there are none.
        SchemaError: they are damaged or do not belong to the card.
    """
    card = read_card(folder, KIND, CARD_VERSION, MODEL_FILE)
    text = (folder / MODEL_FILE).read_bytes()
    if hashlib.sha256(text).hexdigest() != card.get("sha256"):  # before it is parsed: that would end the process
        raise SchemaError(f"model '{folder / MODEL_FILE}' is damaged or of another fit than its card; train it again")
    return lgb.Booster(model_str=text.decode()), card
