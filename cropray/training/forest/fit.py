"""Extremely randomised trees: one fit, in this process or with its trees divided among tasks of Ray.

Source: Geurts, Ernst, Wehenkel, Extremely randomized trees, Machine Learning 63 (2006).
"""

import logging
import time
from dataclasses import replace
from functools import partial

import numpy as np
import ray
from safetensors.numpy import save

from cropray.cluster.resources import worker_resources
from cropray.io.storage import whole_file
from cropray.training.family import Fit, FitScore
from cropray.training.forest.grow import grow, join
from cropray.training.forest.settings import ForestSettings
from cropray.training.forest.tree_file import CARD_VERSION, KIND, MODEL_FILE, Forest, predict_proba
from cropray.training.pixel_blocks import tree_data
from cropray.training.pixels import TrainingRows, score_pixels, training_rows, with_seconds, write_card
from cropray.training.weights import class_weights, row_weights

log = logging.getLogger(__name__)


def train_forest(job: Fit) -> tuple[FitScore, ...]:
    """Grow trees, score every prefix on the validation data and write the model.

    A worker that is lost grows its own share again; a fit that lost its process starts again.

    Args:
        job: its `steps` are numbers of trees, the last of which are grown.

    Raises:
        InputError: the dataset has fewer than two classes.
    """
    started = time.monotonic()
    settings: ForestSettings = job.settings
    train = tree_data(job.train, job)
    rows = training_rows(train, settings.max_rows, job.seed)
    _tell_what_is_lost(job, rows)
    forest = _grow(settings, job, rows)
    _save(job, forest, rows)
    if job.val is None:
        return ()
    predict_proba(forest, rows.x[:1])  # the first prediction of a process waits for the compiler: it is no prefix's own
    fit_s = time.monotonic() - started
    predict = partial(predict_proba, forest, n_threads=settings.threads)
    task_cpus = settings.threads if settings.num_workers else None
    scores = score_pixels(predict, tree_data(job.val, job), job.steps, rows.untrained, task_cpus)
    timed = with_seconds(scores, [fit_s / forest.n_trees] * forest.n_trees, fit_s)
    history = [_record(score) for score in timed]
    return tuple(replace(score, history=tuple(history[: i + 1])) for i, score in enumerate(timed))


def _tell_what_is_lost(job: Fit, rows: TrainingRows) -> None:
    kept = np.bincount(rows.labels, minlength=len(job.classes))
    lost = [crop.name for crop, n, left in zip(job.classes, rows.n_of_class, kept, strict=True) if n and not left]
    if lost:
        log.warning(
            "of the training pixels of %s none is among the %s that forest.max_rows keeps: raise it", lost, len(rows.x)
        )


def _grow(settings: ForestSettings, job: Fit, rows: TrainingRows) -> Forest:
    n, n_workers, n_classes = job.steps[-1], settings.num_workers, len(job.classes)
    x, of_class = rows.x, None
    if settings.class_weighting != "none":
        of_class = class_weights(rows.n_of_class, settings.class_weighting)
    weights = row_weights(rows.weights, of_class, rows.labels)
    if not n_workers:
        return grow(settings, job.seed, range(n), x, rows.labels, n_classes, weights)
    bundle = worker_resources(settings.threads, 0.0, settings.memory_gb)
    task = ray.remote(grow).options(
        num_cpus=bundle["CPU"],
        memory=bundle.get("memory"),
        max_retries=settings.max_failures,
        scheduling_strategy="DEFAULT",  # not within the bundle of a trial
    )
    stored = ray.put(x), ray.put(rows.labels), n_classes, ray.put(weights)
    shares = [range(n * rank // n_workers, n * (rank + 1) // n_workers) for rank in range(n_workers)]
    return join(ray.get([task.remote(settings, job.seed, share, *stored) for share in shares if share]))


def _save(job: Fit, forest: Forest, rows: TrainingRows) -> None:
    with whole_file(job.folder / MODEL_FILE) as temporary:
        temporary.write_bytes(save(forest.arrays()))
    provenance = {
        "settings": job.settings.model_dump(mode="json"),
        "n_estimators": job.steps,
        "seed": job.seed,
        "n_rows": int(rows.n_of_class.sum()),
        "n_rows_kept": len(rows.x),
    }
    train = tree_data(job.train, job)
    write_card(job.folder, KIND, CARD_VERSION, train, provenance, n_estimators=forest.n_trees)


def _record(score: FitScore) -> dict[str, float]:
    """A point of the learning curve: trees, and the mean loss of the validation pixels of trained classes, nats."""
    n = int(score.confusion.sum() - score.confusion[list(score.untrained)].sum())
    return {"step": score.step, **({"val_loss": score.loss_sum / n} if n else {})}
