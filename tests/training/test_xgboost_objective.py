"""The bounded Hessian: the numbers themselves, and the trees that grow by them, alone, on workers and after a loss."""

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb

from cropray.training.family import family
from cropray.training.xgboost.fit import XgboostSettings, train_xgboost
from cropray.training.xgboost.memory import row_bytes
from cropray.training.xgboost.objective import bounded
from cropray.training.xgboost.tree_file import load_booster, predict_proba
from tests.training.pixel_fits import files, fitted, xy
from tests.training.test_recovery import LostError, rounds  # noqa: F401  a fixture
from tests.training.test_xgboost import POINT, same
from tests.training.tree_rows import draw_rows, train_zones, tree_data, val_zones

BOUNDED = XgboostSettings(learning_rate=0.3, max_depth=4, hessian="bounded", checkpoint_every=3)
WEIGHTED = BOUNDED.model_copy(update={"class_weighting": "sqrt_inverse", "colsample_bynode": 0.4})


@pytest.mark.parametrize("weights", [None, np.linspace(0.5, 4, 60)])
def test_gradients_are_those_of_a_plain_loop(weights):
    rng = np.random.default_rng(4)
    margins, labels = rng.normal(0, 3, (60, 5)).astype(np.float32), rng.integers(0, 5, 60)
    margins[7] = [90, -90, 0, 0, 0]  # a probability of 0
    gradient, hessian = bounded(margins.copy(), xgb.DMatrix(np.zeros((60, 1)), labels, weight=weights))
    for row, (of_row, label) in enumerate(zip(margins.astype(float), labels, strict=True)):
        weight = 1.0 if weights is None else weights[row]
        total = sum(np.exp(m - max(of_row)) for m in of_row)
        for k, margin in enumerate(of_row):
            slope = np.exp(margin - max(of_row)) / total - (k == label)
            assert gradient[row, k] == pytest.approx(weight * slope, rel=1e-5, abs=1e-6)
            assert hessian[row, k] == pytest.approx(weight * abs(slope), rel=1e-5, abs=1e-6)
    assert (hessian > 0).all()
    assert gradient.dtype == hessian.dtype == np.float32


def rare(n):
    """Many rows of two classes, and a few of a third one among them."""
    return tree_data(a=draw_rows(1, n, ("maize", "wheat")), b=draw_rows(2, 3, ("beet",)))


def largest_leaf(settings, folder):
    folder.mkdir()
    train_xgboost(settings, (12,), rare(1500), None, 0, folder)
    trees = load_booster(folder)[0].trees_to_dataframe()
    return trees.Gain[trees.Feature == "Leaf"].abs().max()


def test_a_rare_class_makes_no_large_leaf(tmp_path):
    loose = {"reg_lambda": 1e-3, "min_child_weight": 0.0}
    assert largest_leaf(BOUNDED.model_copy(update=loose), tmp_path / "bounded") <= BOUNDED.learning_rate
    plain = BOUNDED.model_copy(update={**loose, "hessian": "softmax"})
    assert largest_leaf(plain, tmp_path / "softmax") > 10 * BOUNDED.learning_rate


@pytest.mark.parametrize("settings", [BOUNDED, WEIGHTED], ids=["plain", "weighted and sampled"])
def test_prefixes_are_read_back_as_they_were_scored(tmp_path, settings):
    scores, model = fitted("xgboost", settings, tmp_path, POINT)
    x, true = xy(val_zones())
    for score in scores:
        probabilities = family("xgboost").prefix(model, score.step).predict_samples(x)
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
        expected = np.zeros((4, 4), int)
        np.add.at(expected, (true, probabilities.argmax(1)), 1)
        np.testing.assert_array_equal(score.confusion, expected)
        assert score.loss_sum == pytest.approx(-np.log(probabilities[np.arange(501), true].astype(float)).sum())
    assert np.trace(scores[-1].confusion) > 0.6 * 501


@pytest.mark.parametrize("lost", [2, 5, 8])
@pytest.mark.parametrize("settings", [BOUNDED, WEIGHTED], ids=["plain", "weighted and sampled"])
def test_trees_go_on_from_any_round(tmp_path, rounds, settings, lost):  # noqa: F811
    def fit(name):
        (tmp_path / name).mkdir(exist_ok=True)
        progress = None if name == "through" else tmp_path / "progress"
        return train_xgboost(settings, POINT, train_zones(), val_zones(), 0, tmp_path / name, progress=progress)

    through = fit("through")
    rounds.lost = lost
    with pytest.raises(LostError):
        fit("lost")
    rounds.lost = None
    resumed = fit("resumed")
    assert resumed.history == through.history
    assert [score.loss_sum for score in resumed.scores] == [score.loss_sum for score in through.scores]
    assert files(tmp_path / "resumed") == files(tmp_path / "through")


def test_a_row_of_weight_3_is_three_rows(tmp_path):
    rows, times = draw_rows(9, 400), np.random.default_rng(0).integers(1, 4, 400)
    weighted = rows.append_column("weight", pa.array(times.astype(np.float32)))
    repeated = rows.take(np.repeat(np.arange(400), times))
    x = xy(val_zones())[0]
    # With as many bins as there are values, bins of rows and of weights are the same.
    settings = BOUNDED.model_copy(update={"max_bin": 4096, "min_child_weight": 0.0})
    _, one = fitted("xgboost", settings, tmp_path / "w", (4,), train=tree_data(a=weighted), is_weighted=True)
    _, other = fitted("xgboost", settings, tmp_path / "r", (4,), train=tree_data(a=repeated))
    np.testing.assert_allclose(one.predict_samples(x), other.predict_samples(x), rtol=2e-4, atol=1e-6)


def test_gradients_that_are_computed_here_are_counted():
    plain = BOUNDED.model_copy(update={"hessian": "softmax"})
    assert row_bytes(BOUNDED, 20) - row_bytes(plain, 20) == 20 * 8


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("settings", "engine"), [(WEIGHTED, "ray_train"), (BOUNDED, "xgboost_ray")])
def test_workers_grow_the_same_trees(ray_local, tmp_path, settings, engine):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    alone.mkdir(), shared.mkdir()
    one = train_xgboost(settings, POINT, train_zones(), val_zones(), 0, alone)
    two = settings.model_copy(update={"num_workers": 2, "engine": engine})
    same(train_xgboost(two, POINT, train_zones(), val_zones(), 0, shared), one)
    x = xy(val_zones())[0]
    np.testing.assert_allclose(
        predict_proba(load_booster(shared)[0], x), predict_proba(load_booster(alone)[0], x), rtol=1e-4, atol=1e-6
    )
