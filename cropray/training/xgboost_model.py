"""Boosted trees on disk and in use: a folder with `model.ubj` and `card.json`, prediction and exact scores.

The card holds all that is needed to use the trees and where they come from. Needs numpy, pyarrow and xgboost only.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xgboost as xgb

from cropray import __version__
from cropray.bands import FEATURE_COLUMNS, N_FEATURES, NODATA
from cropray.errors import MissingArtefactError, SchemaError
from cropray.metrics import Counts, confusion, log_loss_sum
from cropray.storage import whole_file, write_json
from cropray.training.pixel_blocks import TreeData, class_indices, features

CARD_VERSION: Final = 1
MODEL_FILE: Final = "model.ubj"
CARD_FILE: Final = "card.json"


@dataclass(frozen=True, slots=True)
class TreeScore:
    """Counts of one number of boosting rounds on some pixels."""

    n_estimators: int
    confusion: Counts
    """[true, predicted] int64 over class indices."""
    loss_sum: float
    """Negative log-likelihood summed over the pixels of trained classes, nats; see `cropray.metrics`."""
    untrained_loss_sum: float
    """The same of the other pixels."""
    seconds: float
    """Time that scoring took; of a fit's scores, with the time to grow so many rounds."""


def predict_proba(
    booster: xgb.Booster, features: npt.NDArray[np.uint16], n_estimators: int | None = None
) -> npt.NDArray[np.float32]:
    """Class probabilities of each pixel.

    Args:
        booster: trained trees.
        features: [N, 48] digital numbers in the order of `FEATURE_COLUMNS`, 0 = missing.
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


def score_rows(
    booster: xgb.Booster,
    rows: pa.Table,
    lookup: npt.NDArray[np.uint8],
    n_estimators: Sequence[int],
    untrained: Sequence[int] = (),
) -> tuple[TreeScore, ...]:
    """Count one block's predictions for several numbers of boosting rounds.

    Args:
        booster: trained trees.
        rows: labelled pixels.
        lookup: [256] stored class id → class index.
        n_estimators: numbers of boosting rounds.
        untrained: indices of classes whose pixels' loss is summed apart.
    """
    x, true = features(rows), class_indices(rows, lookup)
    is_apart = np.isin(true, untrained)
    scores = []
    for n in n_estimators:
        started = time.monotonic()
        probabilities = predict_proba(booster, x, n)
        matrix = confusion(true, probabilities.argmax(1), probabilities.shape[1])
        loss, loss_apart = (log_loss_sum(probabilities[part], true[part]) for part in (~is_apart, is_apart))
        scores.append(TreeScore(n, matrix, loss, loss_apart, time.monotonic() - started))
    return tuple(scores)


def add_scores(blocks: Iterable[Sequence[TreeScore]]) -> tuple[TreeScore, ...]:
    """Sum the scores of several blocks, each with the same numbers of boosting rounds.

    The sums are exact: they do not depend on the order of the blocks.
    """
    return tuple(
        TreeScore(
            parts[0].n_estimators,
            np.sum([part.confusion for part in parts], axis=0),
            math.fsum(part.loss_sum for part in parts),
            math.fsum(part.untrained_loss_sum for part in parts),
            sum(part.seconds for part in parts),
        )
        for parts in zip(*blocks, strict=True)
    )


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
    card = {
        "kind": "xgboost",
        "card_version": CARD_VERSION,
        "cropray_version": __version__,
        "n_estimators": booster.num_boosted_rounds(),
        "features": list(FEATURE_COLUMNS),
        "classes": [asdict(crop) for crop in data.classes],
        "legend_hash": data.legend_hash,
        "provenance": {**provenance, "zones": list(data.blocks)},
    }
    write_json(folder / CARD_FILE, card)


def load_booster(folder: Path) -> xgb.Booster:
    """Read trees that `save_booster` wrote.

    Raises:
        MissingArtefactError: there are none.
        SchemaError: they are damaged or do not belong to the card.
    """
    card = read_card(folder)
    booster = xgb.Booster()
    try:
        booster.load_model(folder / MODEL_FILE)
    except xgb.core.XGBoostError as error:
        reason = str(error).strip().splitlines()[0]
        raise SchemaError(f"model '{folder / MODEL_FILE}' cannot be read ({reason}); train it again") from None
    found = (booster.num_boosted_rounds(), booster.num_features(), n_outputs(booster))
    wanted = (card["n_estimators"], N_FEATURES, len(card["classes"]))
    if found != wanted:
        raise SchemaError(
            f"model '{folder}' has {found} boosting rounds, features and classes, its card says {wanted}; train it again"
        )
    return booster


def booster_from_bytes(model: bytes, n_threads: int | None = None) -> xgb.Booster:
    """Trees from UBJSON.

    Args:
        model: what `Booster.save_raw("ubj")` gave.
        n_threads: threads of a prediction; None: all.
    """
    booster = xgb.Booster({} if n_threads is None else {"nthread": n_threads})
    booster.load_model(bytearray(model))
    return booster


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a folder with trees.

    Raises:
        MissingArtefactError: there is none.
        SchemaError: it is damaged, of another kind or version, or for other features.
    """
    path = folder / CARD_FILE
    if not path.exists() or not (folder / MODEL_FILE).exists():
        raise MissingArtefactError(f"'{folder}' holds no trained trees; run `cropray search CONFIG.yaml` first")
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = (card["kind"], card["card_version"], tuple(card["features"]))
    except (ValueError, KeyError, TypeError) as error:
        raise SchemaError(f"card '{path}' is damaged ({error!r}); train the model again") from None
    if found != ("xgboost", CARD_VERSION, FEATURE_COLUMNS):
        raise SchemaError(
            f"card '{path}' describes a model of kind '{found[0]}', version {found[1]}, with {len(found[2])} features; "
            f"needed is 'xgboost', version {CARD_VERSION}, with {FEATURE_COLUMNS[0]} … {FEATURE_COLUMNS[-1]}"
        )
    return card
