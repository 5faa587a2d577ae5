"""Boosted trees on their way to the disk, and exact scores. Reading and predicting: `cropray.training.xgboost.tree_file`."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xgboost as xgb

from cropray import __version__
from cropray.core.cube import STUDY_CUBE
from cropray.core.metrics import Counts, confusion, log_loss_sum
from cropray.storage import whole_file, write_json
from cropray.training.pixel_blocks import TreeData, class_indices, features
from cropray.training.xgboost.tree_file import CARD_FILE, CARD_VERSION, MODEL_FILE, predict_proba


@dataclass(frozen=True, slots=True)
class TreeScore:
    """Counts of one number of boosting rounds on some pixels."""

    n_estimators: int
    confusion: Counts
    """[true, predicted] int64 over class indices."""
    loss_sum: float
    """Negative log-likelihood summed over the pixels of trained classes, nats; see `cropray.core.metrics`."""
    untrained_loss_sum: float
    """The same of the other pixels."""
    seconds: float
    """Time that scoring took; of a fit's scores, with the time to grow so many rounds."""


def score_rows(
    booster: xgb.Booster,
    rows: pa.Table,
    lookup: npt.NDArray[np.uint8],
    n_estimators: Sequence[int],
    untrained: Sequence[int] = (),
    columns: Sequence[str] = STUDY_CUBE.columns,
) -> tuple[TreeScore, ...]:
    """Count one block's predictions for several numbers of boosting rounds.

    Args:
        booster: trained trees.
        rows: labelled pixels.
        lookup: [256] stored class id → class index.
        n_estimators: numbers of boosting rounds.
        untrained: indices of classes whose pixels' loss is summed apart.
        columns: the features.
    """
    x, true = features(rows, columns=columns), class_indices(rows, lookup)
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
        "features": list(data.columns),
        "cube": data.cube.to_record(),
        "classes": [asdict(crop) for crop in data.classes],
        "legend_hash": data.legend_hash,
        "provenance": {**provenance, "zones": list(data.blocks)},
    }
    write_json(folder / CARD_FILE, card)


def booster_from_bytes(model: bytes, n_threads: int | None = None) -> xgb.Booster:
    """Trees from UBJSON.

    Args:
        model: what `Booster.save_raw("ubj")` gave.
        n_threads: threads of a prediction; None: all.
    """
    booster = xgb.Booster({} if n_threads is None else {"nthread": n_threads})
    booster.load_model(bytearray(model))
    return booster
