"""LightGBM: the same trees on any number of threads, exact scores, files that are read back or refused."""

import json
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
from pydantic import ValidationError

from cropray.cluster.resources import FitSize
from cropray.core.errors import ConfigError, InputError, MissingArtefactError, SchemaError
from cropray.core.features import as_floats
from cropray.core.legend import legend_from_names
from cropray.training.family import family
from cropray.training.lightgbm.served import _load_pyfunc
from cropray.training.lightgbm.settings import LightgbmSettings
from cropray.training.weights import class_weights
from tests.training.pixel_fits import NO_BEET, files, fit_job, fitted, require_scores, xy
from tests.training.tree_rows import draw_rows, train_zones, tree_data, val_zones

STEPS = (3, 8)
SMALL = LightgbmSettings(learning_rate=0.3, num_leaves=12, max_depth=4)
SAMPLED = SMALL.model_copy(update={"subsample": 0.6, "colsample_bytree": 0.5})


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    return (*fitted("lightgbm", SMALL, folder, STEPS), folder)


def test_a_fit_learns_and_its_scores_follow_from_its_model(fit):
    scores, model, _ = fit
    require_scores(scores, model, STEPS)
    assert np.trace(scores[-1].confusion) > 0.6 * 501
    assert all(score.seconds > 0 for score in scores)  # more steps, more seconds: `test_seconds_of_prefixes`


def test_every_round_is_told_as_it_is_grown(tmp_path):
    told = []
    scores, _ = fitted("lightgbm", SMALL, tmp_path / "fit", STEPS, on_step=told.append)
    assert tuple(told) == scores[-1].history
    assert [record["step"] for record in told] == list(range(1, STEPS[-1] + 1))


@pytest.mark.parametrize("settings", [SMALL, SAMPLED], ids=["all rows", "sampled"])
def test_every_prefix_equals_a_fit_of_its_length(settings, tmp_path):
    long, _ = fitted("lightgbm", settings, tmp_path / "long", STEPS)
    short, _ = fitted("lightgbm", settings, tmp_path / "short", STEPS[:1])
    np.testing.assert_array_equal(short[0].confusion, long[0].confusion)
    assert (short[0].loss_sum, short[0].history) == (long[0].loss_sum, long[0].history)


@pytest.mark.parametrize("settings", [SMALL, SAMPLED], ids=["all rows", "sampled"])
def test_other_numbers_of_threads_grow_the_same_trees(settings, tmp_path):
    for n in (1, 2):
        fitted("lightgbm", settings.on_cpus(n), tmp_path / str(n), STEPS, val=False)
    assert files(tmp_path / "1")["model.txt"] == files(tmp_path / "2")["model.txt"]


def test_another_seed_draws_others(tmp_path):
    one, other = (fitted("lightgbm", SAMPLED, tmp_path / str(n), STEPS, seed=n)[0] for n in (0, 1))
    assert one[-1].loss_sum != other[-1].loss_sum


@pytest.mark.parametrize("weighting", ["none", "inverse"])
def test_rows_that_are_read_in_batches_make_the_trees_of_one_array(weighting, tmp_path):
    settings = SMALL.model_copy(update={"class_weighting": weighting})
    scores, model = fitted("lightgbm", settings, tmp_path, STEPS)
    x, y = xy(train_zones())
    weights = None if weighting == "none" else class_weights(np.bincount(y, minlength=4), weighting)[y]
    plain = lgb.train(settings.parameters(4, 0), lgb.Dataset(as_floats(x), y, weight=weights), STEPS[-1])
    of_val = xy(val_zones())[0]
    np.testing.assert_allclose(model.predict_samples(of_val), plain.predict(as_floats(of_val)), rtol=1e-6)
    # Validation counts every pixel once.
    assert scores[-1].history[-1]["val_loss"] == pytest.approx(scores[-1].loss_sum / 501, rel=1e-5)


def test_the_learning_curve_ends_at_the_score(fit):
    for score in fit[0]:
        assert [record["step"] for record in score.history] == list(range(1, score.step + 1))
        assert score.history[-1]["val_loss"] == pytest.approx(score.loss_sum / 501, rel=1e-5)
    assert fit[0][1].history[-1]["train_loss"] < fit[0][1].history[0]["train_loss"]


def test_a_class_that_training_lacks_is_never_predicted_and_summed_apart(tmp_path):
    scores, model = fitted("lightgbm", SMALL, tmp_path, STEPS, train=NO_BEET)
    require_scores(scores, model, STEPS)
    for score in scores:
        assert score.untrained == (0,)
        assert score.confusion[:, 0].sum() == 0
        assert score.untrained_loss_sum > 0
        n = score.confusion[1:].sum()
        assert score.history[-1]["val_loss"] == pytest.approx(score.loss_sum / n, rel=1e-5)


def test_zones_of_one_class_alone_are_all_that_class(tmp_path):
    scores, model = fitted("lightgbm", SMALL, tmp_path, STEPS, train=tree_data(a=draw_rows(1, 90, ("rape",))))
    require_scores(scores, model, STEPS)
    assert scores[-1].confusion[:, 2].sum() == 501


def test_zero_is_missing_and_not_dark(fit):
    x = xy(val_zones())[0]
    dark = np.where(x == 0, 1, x).astype(np.uint16)
    assert not np.array_equal(fit[1].predict_samples(x), fit[1].predict_samples(dark))


def test_a_refit_has_no_scores_and_an_empty_table_no_answers(tmp_path):
    scores, model = fitted("lightgbm", SMALL, tmp_path, (4,), val=False)
    assert list(scores) == []
    assert model.predict_samples(np.zeros((0, 48), np.uint16)).shape == (0, 4)
    assert model.predict_tiles(np.ones((2, 12, 4, 3, 5), np.uint16)).shape == (2, 4, 3, 5)


def test_it_is_served_as_it_was_trained(fit):
    x = xy(val_zones())[0]
    np.testing.assert_array_equal(_load_pyfunc(str(fit[2])).predict(x), fit[1].predict_samples(x))
    assert sorted(files(fit[2])) == ["card.json", "model.txt"]


def test_damaged_models_are_refused(tmp_path):
    load = family("lightgbm").load
    with pytest.raises(MissingArtefactError, match="holds no trained lightgbm"):
        load(tmp_path, "cpu")
    fitted("lightgbm", SMALL, tmp_path, (2,), val=False)
    model, card = tmp_path / "model.txt", tmp_path / "card.json"
    whole = model.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole.replace(b"leaf_value=", b"leaf_value=9", 1)):
        model.write_bytes(damaged)
        with pytest.raises(SchemaError, match=r"model\.txt' is damaged"):
            load(tmp_path, "cpu")
    model.write_bytes(whole)
    card.write_text(json.dumps({**json.loads(card.read_text()), "kind": "xgboost"}))
    with pytest.raises(SchemaError, match="kind 'xgboost'"):
        load(tmp_path, "cpu")


def test_unusable_settings_are_refused(tmp_path):
    with pytest.raises(ValidationError, match="LightGBM grows a fit in one process: leave it at 0"):
        LightgbmSettings(num_workers=3)
    with pytest.raises(ValidationError, match="num_leaves"):
        LightgbmSettings(num_leaves=1)
    with pytest.raises(ConfigError, match=r"40,000,000 rows of 9 classes take .* raise lightgbm\.memory_gb"):
        SMALL.check(FitSize(4e7, 9, 48, 2e9))
    assert SMALL.check(FitSize(4e5, 9, 48, 2e9)) == ""
    classes = legend_from_names(["wheat"]).classes
    with pytest.raises(InputError, match="at least 2"):
        family("lightgbm").fit(fit_job(SMALL, Path(tmp_path), (2,), classes=classes))
