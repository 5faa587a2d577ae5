"""Boosted trees of LightGBM: one fit, in the process that asks for it."""

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from cropray.core.features import as_floats
from cropray.io.storage import whole_file
from cropray.training.family import Fit, FitScore
from cropray.training.lightgbm.settings import LightgbmSettings
from cropray.training.lightgbm.tree_file import CARD_VERSION, KIND, MODEL_FILE, predict_proba
from cropray.training.pixel_blocks import BATCH_ROWS, TreeData, class_indices, features, own_weights, tree_data
from cropray.training.pixels import check_training, score_pixels, with_seconds, write_card, zone_rows
from cropray.training.weights import class_weights, row_weights

_THREADS: Final = re.compile(r"^\[num_threads: \d+\]\n", re.MULTILINE)


def train_lightgbm(job: Fit) -> tuple[FitScore, ...]:
    """Grow trees, score every prefix on the validation data and write the model.

    A fit that lost its process starts again. From trees that were read back LightGBM goes on to the same bits only where
    neither rows nor features are drawn, and it takes no rows in batches then.

    Args:
        job: its `steps` are numbers of boosting rounds, the last of which is grown.

    Raises:
        InputError: the dataset has fewer than two classes.
    """
    started = time.monotonic()
    settings: LightgbmSettings = job.settings
    train, val = tree_data(job.train, job), None if job.val is None else tree_data(job.val, job)
    check_training(train)
    parameters = settings.parameters(train.n_classes, job.seed)
    labels = _labels(train)
    counts = np.bincount(labels, minlength=train.n_classes)
    untrained = tuple(np.flatnonzero(counts == 0).tolist())
    of_class = None
    if settings.class_weighting != "none":
        of_class = class_weights(counts, settings.class_weighting).astype(np.float32)
    weights = row_weights(_own_weights(train), of_class, labels)
    matrices = {"train": _matrix(train, labels, parameters, weights)}
    if val is not None:
        labels = _labels(val)
        # Classes that training lacks are no part of the curve. Weights that are all 1 LightGBM drops, and has those of
        # the training rows in their place, which nobody set; 2 gives the same mean.
        of_class = np.where(counts > 0, 1 if weights is None else 2, 0).astype(np.float32)
        matrices["val"] = _matrix(val, labels, parameters, of_class[labels], matrices["train"])
    rounds = _Rounds(job.on_step)
    booster = lgb.train(
        parameters,
        matrices["train"],
        job.steps[-1],
        valid_sets=list(matrices.values()),
        valid_names=list(matrices),
        callbacks=[rounds],
    )
    _save(job, booster, train)
    if val is None:
        return ()
    fit_s = time.monotonic() - started
    scores = score_pixels(partial(predict_proba, booster, n_threads=settings.threads), val, job.steps, untrained)
    timed = with_seconds(scores, rounds.seconds, fit_s)
    return tuple(replace(score, history=tuple(rounds.history[: score.step])) for score in timed)


def _labels(data: TreeData) -> npt.NDArray[np.uint8]:
    return np.concatenate([class_indices(zone_rows(data, zone_id), data.lookup()) for zone_id in data.blocks])


def _own_weights(data: TreeData) -> npt.NDArray[np.float32] | None:
    found = [own_weights(zone_rows(data, zone_id), data) for zone_id in data.blocks if data.is_weighted]
    return np.concatenate([own for own in found if own is not None]) if found else None


def _matrix(
    data: TreeData,
    labels: npt.NDArray[np.uint8],
    parameters: Mapping[str, Any],
    weight: npt.NDArray[Any] | None = None,
    reference: lgb.Dataset | None = None,
) -> lgb.Dataset:
    zones = _Zones(data)
    rows = [_ZoneRows(zones, zone_id) for zone_id, block in data.blocks.items() if block.n_rows]
    return lgb.Dataset(rows, labels, reference, weight, feature_name=list(data.columns), params=dict(parameters))


class _Zones:
    """Features of the zone that was asked for last: one is held at a time."""

    def __init__(self, data: TreeData) -> None:
        self.data = data
        self._held = ("", np.empty((0, 0), np.uint16))

    def x(self, zone_id: str) -> npt.NDArray[np.uint16]:
        """[N, F] features."""
        if self._held[0] != zone_id:
            self._held = ("", np.empty((0, 0), np.uint16))  # before the next one is fetched
            self._held = (zone_id, features(zone_rows(self.data, zone_id), of=self.data.features))
        return self._held[1]


class _ZoneRows(lgb.Sequence):  # type: ignore[misc]  # mypy passes lightgbm over
    """One zone as LightGBM reads it, batch by batch: the floats of all rows are never there together."""

    batch_size = BATCH_ROWS

    def __init__(self, zones: _Zones, zone_id: str) -> None:
        self._zones = zones
        self._zone_id = zone_id

    def __len__(self) -> int:
        return self._zones.data.blocks[self._zone_id].n_rows

    def __getitem__(self, index: int | slice) -> npt.NDArray[np.floating[Any]]:
        rows = as_floats(self._zones.x(self._zone_id)[index])
        return rows if isinstance(index, slice) else rows.astype(np.float64)  # of single rows it makes the bins


class _Rounds:
    """Called after every round: what it took, and its losses."""

    def __init__(self, on_step: Callable[[Mapping[str, float]], None] | None) -> None:
        self.seconds: list[float] = []
        self.history: list[Mapping[str, float]] = []
        """`step` (from 1), `train_loss` and, with validation data, `val_loss`: mean nats per pixel."""
        self._on_step = on_step
        self._last = time.monotonic()

    def __call__(self, done: Any) -> None:
        now = time.monotonic()
        self.seconds.append(now - self._last)
        self._last = now
        losses = {f"{name}_loss": loss for name, _, loss, *_ in done.evaluation_result_list}
        self.history.append({"step": done.iteration + 1, **losses})
        if self._on_step is not None:
            self._on_step(self.history[-1])


def _save(job: Fit, booster: lgb.Booster, train: TreeData) -> None:
    text = _THREADS.sub("", booster.model_to_string()).encode()  # equal trees are equal files
    with whole_file(job.folder / MODEL_FILE) as temporary:
        temporary.write_bytes(text)
    provenance = {"settings": job.settings.model_dump(mode="json"), "n_estimators": job.steps, "seed": job.seed}
    digest = hashlib.sha256(text).hexdigest()
    write_card(job.folder, KIND, CARD_VERSION, train, provenance, n_estimators=job.steps[-1], sha256=digest)
