"""Building a mean of models: nothing is fitted; folds and regions are scored, a refit keeps the members' models."""

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray

from cropray import __version__
from cropray.core.errors import AccountingError
from cropray.core.legend import IGNORE
from cropray.core.metrics import confusion, log_loss_sum
from cropray.io.storage import local_folder, write_json
from cropray.training.blend.mean import CARD_VERSION, FOLDER, KIND
from cropray.training.blend.model import BlendModel
from cropray.training.card import CARD_FILE, load_card
from cropray.training.family import Fit, FitScore, Probabilities
from cropray.training.pixel_blocks import PixelBlock, checked_rows, class_indices, class_lookup, in_batches, samples

_TILES_AT_ONCE: Final = 8


def build(job: Fit) -> tuple[FitScore, ...]:
    """Write the card, then score the mean; a refit, which is not scored, gets the members' folders.

    Args:
        job: with its members, each a fit on the same zones.

    Raises:
        AccountingError: pixels were lost or doubled on the way.
    """
    started = time.monotonic()
    models = tuple(member.model() for member in job.members)
    card = _card(job, [model.loader for model in models])
    if job.val is None:
        for member in job.members:
            with local_folder(member.folder) as files:
                shutil.copytree(files, job.folder / FOLDER / member.name)
    write_json(job.folder / CARD_FILE, card)
    if job.val is None:
        return ()
    (untrained,) = {member.untrained for member in job.members}
    matrix, losses, losses_apart = np.zeros((len(job.classes),) * 2, np.int64), list[float](), list[float]()
    for true, probabilities in _predictions(job, BlendModel(models, card)):
        matrix += confusion(true, probabilities.argmax(1), len(job.classes))
        is_apart = np.isin(true, untrained)
        losses.append(log_loss_sum(probabilities[~is_apart], true[~is_apart]))
        losses_apart.append(log_loss_sum(probabilities[is_apart], true[is_apart]))
    if matrix.sum() != sum(job.val.n_rows.values()):
        raise AccountingError(
            f"{matrix.sum()} pixels were scored, the manifest counts {sum(job.val.n_rows.values())}; run "
            f"`cropray dataset CONFIG.yaml --set overwrite=true`"
        )
    seconds = time.monotonic() - started
    return (FitScore(0, matrix, math.fsum(losses), untrained, math.fsum(losses_apart), (), seconds),)


def _card(job: Fit, loaders: Sequence[str]) -> dict[str, Any]:
    cards = [load_card(member.folder) for member in job.members]
    members = [
        {"name": member.name, "loader": loader, "card": card}
        for member, loader, card in zip(job.members, loaders, cards, strict=True)
    ]
    return {
        "kind": KIND,
        "card_version": CARD_VERSION,
        "cropray_version": __version__,
        "modules": sorted({*loaders, *(module for card in cards for module in card.get("modules", ()))}),
        "mean": job.settings.mean,
        "members": members,
        "cube": job.cube.to_record(),
        "classes": [asdict(crop) for crop in job.classes],
        "legend_hash": job.legend_hash,
        "provenance": {
            "settings": job.settings.model_dump(mode="json"),
            "seed": job.seed,
            "zones": [*job.train.blocks],
        },
    }


def _predictions(job: Fit, model: BlendModel) -> Iterator[tuple[npt.NDArray[np.uint8], Probabilities]]:
    """([N] true class indices, [N, K] probabilities) of the labelled pixels of all validation zones, piece by piece."""
    assert job.val is not None
    lookup, columns = class_lookup(job.classes), job.cube.columns
    for zone_id, stored in job.val.blocks.items():
        block = ray.get(stored) if isinstance(stored, ray.ObjectRef) else stored
        if isinstance(block, pa.Table):
            whole = checked_rows(zone_id, PixelBlock(block, job.val.n_rows[zone_id]), block)
            for rows in in_batches([whole]):
                yield class_indices(rows, lookup), model.predict_rows(samples(rows, columns))
            continue
        for start in range(0, len(block.x), _TILES_AT_ONCE):
            piece = slice(start, start + _TILES_AT_ONCE)
            true = lookup[block.labels[piece]]
            yield true[true != IGNORE], model.predict_tiles(block.x[piece]).transpose(0, 2, 3, 1)[true != IGNORE]
