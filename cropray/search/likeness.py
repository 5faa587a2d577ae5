"""Which pixels are unlike the training zones', learnt so that of a new zone's not more are flagged than was asked for."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.search.calibration import set_threshold
from cropray.search.decision import Floats, OutOfFold
from cropray.training.likeness import BATCH_ROWS, Likeness, Numbers

_SHRINKAGE: Final = 0.1  # of correlations towards none: columns are alike, and rows may be fewer than they are


def fit_likeness(x: Numbers, weights: Floats) -> Likeness:
    """Mean and covariance of some pixels, each standing for so many; correlations are shrunk.

    Trained on half of the zones of a table of points (Arkansas, Argentina), with 5 % of other zones' pixels flagged: of the
    other country's 92 and 100 % are, of seasons that are two months off 88 and 75 %. Columns without their correlations flag 66
    and 81, 72 and 34 %, columns beyond the range of training 76 and 86, 66 and 49 %.

    Source: Mahalanobis distance on what a model is given (Lee et al. 2018, arXiv 1807.03888, on its features).

    Args:
        x: [N, F] stored numbers, 0 = missing: of a column all of whose are, any number lies far off.
        weights: [N].
    """
    n_columns = x.shape[1]
    count, total, squares = (np.zeros(n_columns) for _ in range(3))
    for values, is_there, of in _batches(x, weights):
        count, total = count + of @ is_there, total + of @ values
        squares += of @ values**2
    mean = total / np.maximum(count, 1)
    variance = squares / np.maximum(count, 1) - mean**2
    deviation = np.sqrt(np.where(variance > 0, variance, 1))
    together = np.zeros((n_columns, n_columns))
    for values, is_there, of in _batches(x, weights):
        standard = is_there * (values - mean) / deviation
        together += standard.T @ (of[:, None] * standard)
    shrunk = (1 - _SHRINKAGE) * together / weights.sum() + _SHRINKAGE * np.eye(n_columns)
    whitening = np.linalg.inv(np.linalg.cholesky(shrunk)).T / deviation[:, None]
    return Likeness(mean.astype(np.float32), whitening.astype(np.float32))


def _batches(x: Numbers, weights: Floats) -> Iterator[tuple[Floats, npt.NDArray[np.bool_], Floats]]:
    for start in range(0, len(x), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        yield x[part].astype(np.float64), x[part] > 0, weights[part]


def learn_likeness(
    x: Numbers, rows: npt.NDArray[np.int64], found: OutOfFold, most: float
) -> tuple[Likeness, dict[str, float]]:
    """Pixels that are far from those of the folds that hold other zones, and what the flag is worth in new zones.

    Args:
        x: [M, F] stored numbers of some out-of-fold rows.
        rows: [M] their positions in `found`.
        found: out-of-fold predictions of training zones.
        most: share of a new zone's pixels that may be flagged, see `set_threshold`.

    Returns:
        (what a card keeps, of folds that had no part in it the `share` of pixels that are flagged, and the accuracy of the
        likeliest class where they are (`flagged`, 0 where none is) and where they are not (`others`)).
    """
    zones, weights = found.zones[rows], found.weights[rows]
    folds, alike = found.folds[zones], np.zeros(len(rows))
    for fold in np.unique(folds) if len(np.unique(folds)) > 1 else ():
        here = folds == fold
        alike[here] = fit_likeness(x[~here], weights[~here]).of(x[here])
    is_flagged = np.zeros(len(rows), np.bool_)
    for fold in np.unique(folds):
        here = folds == fold
        is_flagged[here] = alike[here] < set_threshold(alike[~here], zones[~here], weights[~here], 1 - most)
    is_right = (found.decided(0.0) == found.labels)[rows]
    worth = {"share": float(np.average(is_flagged, weights=weights))}
    for name, of in (("flagged", is_flagged), ("others", ~is_flagged)):
        worth[name] = float((weights * is_right)[of].sum() / max(weights[of].sum(), 1.0))
    least = set_threshold(alike, zones, weights, 1 - most)
    return replace(fit_likeness(x, weights), least=least), {"least": least, **worth}
