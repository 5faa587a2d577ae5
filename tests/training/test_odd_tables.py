"""Families of the best recipe on tables as they come: bands of other sensors, one step, bands and rows of nothing, rare classes."""

import numpy as np
import pyarrow as pa
import pytest

from cropray.config import JobConfig
from cropray.core.legend import legend_from_names
from cropray.datasets.build import band_sums
from cropray.datasets.manifest import statistics
from cropray.training.pixel_blocks import PixelBlock, TreeData
from tests.training.pixel_fits import fitted

LEGEND = legend_from_names([f"c{k}" for k in range(6)])
SMALL = {
    "xgboost": {"n_estimators": 12, "max_depth": 3},
    "forest": {"n_estimators": 16},
    "temp_cnn": {"epochs": 2, "n_seeds": 1, "batch_size": 64, "sampler": {"name": "all", "n": 128}},
}
STEPS = {"xgboost": (12,), "forest": (16,)}


def own(*ids):
    return [{"id": band, "unit": "index" if band in ("NDVI", "EVI") else "reflectance", "scale": 2e-4,
             "offset": -2.0 if band in ("NDVI", "EVI") else 0.0} for band in ids]  # fmt: skip


CASES = {
    "bands of MODIS": {"cube": {"bands": own("NDVI", "EVI", "NIR", "MIR"), "step": "16d"}},
    "one step": {"cube": {"step": "season"}},
    "one index, one step": {"cube": {"bands": own("NDVI"), "step": "season"}},
    "a band of nothing": {"dead": 1},
    "rows of nothing": {"empty": 0.25},
    "a class of three rows, and one that is not learnt": {"rare": True},
}


def job_of(cube):
    return JobConfig.model_validate(
        {"name": "a", "workspace": "/w", "points": {"path": "/p"}, "recipe": "best", "cube": cube, **SMALL}
    )


def table(seed, cube, n, *, dead=None, empty=0.0, rare=()):
    """Rows whose numbers tell their class in every step; a fifth is missing. The last classes have as many rows as `rare` says."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([rng.integers(0, 4, n), *(np.full(n_of, 4 + k) for k, n_of in enumerate(rare))])
    numbers = 9000 + 900 * labels[:, None, None] + rng.integers(0, 500, (len(labels), cube.n_bands, cube.n_steps))
    numbers[rng.random(numbers.shape) < 0.22] = 0
    numbers[: int(empty * n)] = 0
    if dead is not None:
        numbers[:, dead] = 0
    flat = numbers.reshape(len(labels), -1).astype(np.uint16)
    return pa.table({"label": labels.astype(np.uint8), **dict(zip(cube.band_columns, flat.T, strict=True))})


def numbers_of(rows, cube):
    return np.stack([rows[name].to_numpy() for name in cube.columns], 1)


def side(**zones):
    return TreeData({z: PixelBlock(rows, len(rows)) for z, rows in zones.items()}, LEGEND.classes, LEGEND.hash())


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("case", CASES)
def test_it_is_fitted_scored_and_read_back(case, family, tmp_path):
    how = dict(CASES[case])
    job = job_of(how.pop("cube", {}))
    if family not in job.search.models:
        assert (family, job.cube_spec.n_steps) == ("temp_cnn", 1)
        return
    rare, cube = how.pop("rare", False), job.cube_spec
    train = side(a=table(1, cube, 80, rare=(3,) if rare else (), **how), b=table(2, cube, 80, **how))
    val = table(3, cube, 60, rare=(1, 4) if rare else (), **how)
    x = np.concatenate([numbers_of(block.rows, cube) for block in train.blocks.values()])
    sums = band_sums(x.reshape(-1, cube.n_bands, cube.n_steps).transpose(2, 1, 0)[..., None])
    mean, std = (tuple(found.tolist()) for found in statistics(sums))
    (score,), model = fitted(
        family, job.settings_of(family), tmp_path, STEPS.get(family, ()), train=train, val=side(c=val), cube=cube,
        classes=LEGEND.classes, legend_hash=LEGEND.hash(), mean=mean, std=std,
    )  # fmt: skip
    probabilities = model.predict_samples(numbers_of(val, cube))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert score.confusion.sum() == len(val)
    assert score.untrained == ((5,) if rare else (4, 5))
    if family != "temp_cnn":  # which has hardly begun
        assert np.trace(score.confusion) > 0.6 * len(val)
