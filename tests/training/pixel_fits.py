"""Fits of families of pixels on small drawn tables."""

from pathlib import Path

import numpy as np

from cropray.training.family import Fit, FitData, family
from cropray.training.pixel_blocks import TreeData, class_indices, features
from tests.training.tree_rows import CLASSES, LEGEND, draw_rows, train_zones, tree_data, val_zones

FEW = ("maize", "rape", "wheat")
NO_BEET = tree_data(a=draw_rows(1, 700, FEW), b=draw_rows(2, 500, FEW))


def fit_data(data: TreeData) -> FitData:
    """As a search hands it over."""
    return FitData({z: b.rows for z, b in data.blocks.items()}, {z: b.n_rows for z, b in data.blocks.items()})


def fit_job(settings, folder: Path, steps=(), *, train=None, val=None, **changes) -> Fit:
    """A fit on `train_zones`, scored on `val_zones`; `val=False`: a refit."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "settings": settings,
        "train": fit_data(train or train_zones()),
        "val": None if val is False else fit_data(val or val_zones()),
        "classes": CLASSES,
        "legend_hash": LEGEND.hash(),
        "mean": (1200.0,) * 4,
        "std": (600.0,) * 4,
        "seed": 0,
        "folder": folder,
        "steps": steps,
    }
    return Fit(**{**values, **changes})


def fitted(name: str, settings, folder: Path, steps=(), **changes):
    """(scores, model read back) of a fit."""
    scores = family(name).fit(fit_job(settings, folder, steps, **changes))
    return scores, family(name).load(folder, "cpu")


def xy(data: TreeData):
    """([N, 48] digital numbers, [N] class indices) of all zones."""
    blocks = [block.rows for block in data.blocks.values()]
    return np.concatenate([features(rows) for rows in blocks]), np.concatenate(
        [class_indices(rows, data.lookup()) for rows in blocks]
    )


def files(folder: Path) -> dict[str, bytes]:
    """Content of every file."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def require_scores(scores, model, steps) -> None:
    """The last score is that of the model that was written, counted one pixel at a time."""
    x, true = xy(val_zones())
    probabilities = model.predict_samples(x)
    expected, loss_sum, apart = np.zeros((4, 4), int), 0.0, 0.0
    for t, p in zip(true, probabilities, strict=True):
        expected[t, p.argmax()] += 1
        loss = -float(np.log(max(np.float64(p[t]), 1e-16)))
        loss_sum, apart = (loss_sum, apart + loss) if t in scores[-1].untrained else (loss_sum + loss, apart)
    assert [score.step for score in scores] == list(steps)
    np.testing.assert_array_equal(scores[-1].confusion, expected)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert abs(scores[-1].loss_sum - loss_sum) <= 1e-9 * loss_sum
    assert abs(scores[-1].untrained_loss_sum - apart) <= 1e-9 * max(apart, 1)
