"""What families of pixels share: where rows are read, how a fit is scored, what its card says.

Beside it such a family is its settings, a function that grows a model from `training_rows` (or zone by zone, from
`zone_rows`), one that predicts, and a file. `cropray.training.forest` is an example.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray

from cropray import __version__
from cropray.core.errors import InputError
from cropray.core.metrics import confusion, log_loss_sum
from cropray.core.registry import is_outside
from cropray.io.storage import write_json
from cropray.training.card import CARD_FILE
from cropray.training.crop_model import Probabilities, Samples
from cropray.training.family import FitScore
from cropray.training.pixel_blocks import (
    BATCH_ROWS,
    TreeData,
    checked_rows,
    class_indices,
    features,
    own_weights,
    samples,
    worker_rows,
)

log = logging.getLogger(__name__)

Predict: TypeAlias = Callable[[Samples, int], Probabilities]
"""([N, F] uint16 features, 0 = missing; number of steps whose prefix predicts) → [N, K] float32."""


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Rows of all zones in memory, in the order of the zones."""

    x: Samples
    """[N, F] features, 0 = missing."""
    labels: npt.NDArray[np.uint8]
    """[N] class indices."""
    n_of_class: npt.NDArray[np.int64]
    """[K] rows of each class before any were left out."""
    weights: npt.NDArray[np.float32] | None = None
    """[N] what the dataset says of each row, which is to count as so many; None: 1. See `Family.weighs_rows`."""

    @property
    def untrained(self) -> tuple[int, ...]:
        """Indices of the classes that the zones lack."""
        return tuple(np.flatnonzero(self.n_of_class == 0).tolist())


def training_rows(data: TreeData, most: int | None = None, seed: int = 0) -> TrainingRows:
    """The rows of all zones.

    Args:
        data: the zones.
        most: rows beyond so many are left out, drawn evenly from all; None: all are kept.
        seed: of the draw.

    Raises:
        AccountingError: rows were lost or doubled on the way.
        InputError: the dataset has fewer than two classes.
    """
    check_training(data)
    kept = None
    if most is not None and data.n_rows > most:
        kept = np.sort(np.random.default_rng(seed).choice(data.n_rows, most, replace=False))
    x, labels, weights = [], [], list[npt.NDArray[np.float32]]()
    n_of_class, offset = np.zeros(data.n_classes, np.int64), 0
    for zone_id, block in data.blocks.items():
        rows = zone_rows(data, zone_id)
        indices = class_indices(rows, data.lookup())
        n_of_class += np.bincount(indices, minlength=data.n_classes)
        if kept is not None:
            first, last = np.searchsorted(kept, (offset, offset + block.n_rows))
            rows, indices = rows.take(kept[first:last] - offset), indices[kept[first:last] - offset]
        x.append(features(rows, of=data.features))
        labels.append(indices)
        if (own := own_weights(rows, data)) is not None:
            weights.append(own)
        offset += block.n_rows
    own = np.concatenate(weights) if weights else None
    return TrainingRows(np.concatenate(x), np.concatenate(labels), n_of_class, own)


def check_training(data: TreeData) -> None:
    """Look at training pixels before a model grows on them, and warn of indices that leave the range of their formula.

    Raises:
        InputError: there is nothing to tell apart.
    """
    if data.n_classes < 2:
        raise InputError(f"the dataset has {data.n_classes} class; a classifier needs at least 2")
    beyond = {index: np.zeros(2, np.int64) for index in data.features.indices}
    for zone_id in data.blocks if beyond else ():
        rows = zone_rows(data, zone_id).slice(0, BATCH_ROWS)
        counts = data.features.beyond(samples(rows, data.features.cube.columns))
        beyond = {index: so_far + counts[index.name] for index, so_far in beyond.items()}
    for index, (n, n_values) in beyond.items():
        if n:
            log.warning(
                "features: %s of %s values of '%s' leave its range and count as its ends; give it a wider one: "
                "%s[low,high]=%s", f"{n:,}", f"{n_values:,}", index.name, index.name, index.formula,
            )  # fmt: skip


def worker_tables(data: TreeData, rank: int, n_workers: int) -> Iterator[pa.Table]:
    """The rows of one worker, one zone after the other: none is held while the next one is fetched."""
    for part in worker_rows(data, rank, n_workers):
        yield zone_rows(data, part.zone_id).slice(part.start, part.stop - part.start)


def zone_rows(data: TreeData, zone_id: str) -> pa.Table:
    """Rows of a zone, proved to be as many as the manifest counts.

    Raises:
        AccountingError: rows were lost or doubled on the way.
    """
    block = data.blocks[zone_id]
    rows = block.rows if isinstance(block.rows, pa.Table) else ray.get(block.rows)
    return checked_rows(zone_id, block, rows)


def score_pixels(
    predict: Predict,
    data: TreeData,
    steps: Sequence[int],
    untrained: Sequence[int] = (),
    task_cpus: float | None = None,
) -> tuple[FitScore, ...]:
    """Score a fit zone by zone, exactly: the sums depend neither on the order of zones nor on where they are scored.

    Args:
        predict: of the trained model.
        data: validation pixels.
        steps: prefixes of the fit to score.
        untrained: indices of the classes that the training zones lack; their pixels' loss is summed apart.
        task_cpus: CPUs of a Ray task per zone; None: in this process.

    Returns:
        One per prefix, without history; `seconds` is what its scoring took.
    """
    score = partial(_score_zone, data=data, steps=steps, untrained=untrained)
    if task_cpus is None:
        return add_scores(score(predict, zone_id) for zone_id in data.blocks)
    task = ray.remote(score.func).options(num_cpus=task_cpus, scheduling_strategy="DEFAULT")
    shared = ray.put(predict)
    return add_scores(ray.get([task.remote(shared, zone_id, **score.keywords) for zone_id in data.blocks]))


def _score_zone(
    predict: Predict, zone_id: str, data: TreeData, steps: Sequence[int], untrained: Sequence[int]
) -> tuple[FitScore, ...]:
    return score_rows(predict, zone_rows(data, zone_id), data, steps, untrained)


def score_rows(
    predict: Predict,
    rows: pa.Table,
    data: TreeData,
    steps: Sequence[int],
    untrained: Sequence[int] = (),
) -> tuple[FitScore, ...]:
    """Count one block's predictions by several prefixes of a fit.

    Args:
        predict: of the trained model.
        rows: labelled pixels.
        data: whose classes and features they are.
        steps: of each prefix.
        untrained: indices of classes whose pixels' loss is summed apart.
    """
    x, true = features(rows, of=data.features), class_indices(rows, data.lookup())
    is_apart = np.isin(true, untrained)
    scores = []
    for step in steps:
        started = time.monotonic()
        probabilities = predict(x, step)
        matrix = confusion(true, probabilities.argmax(1), probabilities.shape[1])
        loss, loss_apart = (log_loss_sum(probabilities[part], true[part]) for part in (~is_apart, is_apart))
        scores.append(FitScore(step, matrix, loss, tuple(untrained), loss_apart, (), time.monotonic() - started))
    return tuple(scores)


def add_scores(blocks: Iterable[Sequence[FitScore]]) -> tuple[FitScore, ...]:
    """Sum the scores of several blocks, each by the same prefixes; the sums are exact, whatever the order of blocks."""
    return tuple(
        replace(
            parts[0],
            confusion=np.sum([part.confusion for part in parts], axis=0),
            loss_sum=math.fsum(part.loss_sum for part in parts),
            untrained_loss_sum=math.fsum(part.untrained_loss_sum for part in parts),
            seconds=sum(part.seconds for part in parts),
        )
        for parts in zip(*blocks, strict=True)
    )


def with_seconds(scores: Iterable[FitScore], step_seconds: Sequence[float], fit_s: float) -> tuple[FitScore, ...]:
    """Scores with what a fit of so many steps would have taken: this one without its later steps, and its own scoring.

    Args:
        scores: of prefixes.
        step_seconds: what each step took.
        fit_s: what the fit took, without scoring.
    """
    later = [sum(step_seconds[score.step :]) for score in scores]
    own = [sum(step_seconds[: score.step]) for score in scores]
    # A fit that went on made some of its steps in a process that was lost: they are not in its own time.
    return tuple(
        replace(score, seconds=score.seconds + max(fit_s - after, until))
        for score, after, until in zip(scores, later, own, strict=True)
    )


def write_card(
    folder: Path, kind: str, version: int, data: TreeData, provenance: Mapping[str, Any], **more: Any
) -> None:
    """Write the card of a model whose file is written: a folder with a card is complete.

    Args:
        folder: of the model.
        kind: name of the family.
        version: of its files.
        data: the training pixels; their classes go into the card.
        provenance: JSON-able: settings, seed …
        more: JSON-able fields of the family's own.
    """
    own = sorted({entry.__module__ for entry in data.features.derived if is_outside(entry)})
    card = {
        "kind": kind,
        "card_version": version,
        "cropray_version": __version__,
        **({"modules": own} if own else {}),
        **more,
        "features": list(data.columns),
        "inputs": list(data.features.names),
        "cube": data.features.cube.to_record(),
        "classes": [asdict(crop) for crop in data.classes],
        "legend_hash": data.legend_hash,
        "provenance": {**provenance, "zones": list(data.blocks)},
    }
    write_json(folder / CARD_FILE, card)
