"""Class weights of boosted trees: rows of training are weighed, validation is not."""

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb

from cropray.training.pixel_blocks import class_indices, features
from cropray.training.weights import class_weights
from cropray.training.xgboost import fit as xgboost_fit
from cropray.training.xgboost.fit import FitJob, train_xgboost
from cropray.training.xgboost.settings import XgboostSettings
from cropray.training.xgboost.tree_file import load_booster, predict_proba
from tests.study import FEATURE_COLUMNS
from tests.training.tree_rows import train_zones, val_zones

N_ROUNDS = 5


def rows_of(data):
    rows = pa.concat_tables([block.rows for block in data.blocks.values()])
    return features(rows), class_indices(rows, data.lookup())


@pytest.mark.parametrize("weighting", ["inverse", "sqrt_inverse", "effective"])
def test_trees_are_those_of_rows_with_these_weights(tmp_path, weighting):
    settings = XgboostSettings(learning_rate=0.3, max_depth=3, max_bin=4096, class_weighting=weighting)
    fitted = train_xgboost(settings, (N_ROUNDS,), train_zones(), val_zones(), 0, tmp_path)
    x, labels = rows_of(train_zones())
    weights = class_weights(np.bincount(labels, minlength=4), weighting)[labels]
    matrix = xgb.QuantileDMatrix(x, labels, weight=weights.astype(np.float32), missing=0, max_bin=4096)
    oracle = xgb.train(settings.parameters(4, 0), matrix, N_ROUNDS)
    oracle.feature_names = list(FEATURE_COLUMNS)
    ours, (x_val, true) = load_booster(tmp_path)[0], rows_of(val_zones())
    probabilities = predict_proba(ours, x_val)
    assert np.allclose(probabilities, predict_proba(oracle, x_val), atol=1e-5)
    # -ln p, of training the weighted mean, of validation the plain one.
    of_train = -np.log(predict_proba(ours, x)[np.arange(len(x)), labels])
    of_val = -np.log(probabilities[np.arange(len(true)), true])
    last = fitted.history[-1]
    assert last["train_loss"] == pytest.approx(np.average(of_train, weights=weights), rel=1e-4)
    assert last["val_loss"] == pytest.approx(of_val.mean(), rel=1e-4)
    assert fitted.scores[0].loss_sum == pytest.approx(of_val.sum(), rel=1e-4)


def test_frames_of_the_other_engine_carry_the_same_weights():
    job = FitJob(
        XgboostSettings(class_weighting="inverse"), {}, 1, np.zeros((48, 1 << 16), np.uint16), train_zones(), val_zones(),
        np.array([0, 10, 30, 60]),
    )  # fmt: skip
    assert job.class_weights("train").tolist() == pytest.approx([0, 100 / 30, 100 / 90, 100 / 180])
    assert job.class_weights("val").tolist() == [0, 1, 1, 1]
    frame = xgboost_fit._frame(job.train, job.table, 0, 2, job.class_weights("train"))
    labels = frame["label"].to_numpy()
    assert frame["weight"].to_numpy() == pytest.approx(job.class_weights("train")[labels])
    assert "weight" not in xgboost_fit._frame(job.train, job.table, 0, 2, None)


def test_without_weighting_no_row_has_a_weight():
    plain = FitJob(
        XgboostSettings(), {}, 1, np.zeros((0, 0), np.uint16), train_zones(), val_zones(), np.array([5, 1, 3, 2])
    )
    assert plain.class_weights("train") is None
    assert plain.class_weights("val") is None
