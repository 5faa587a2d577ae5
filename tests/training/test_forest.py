"""Extra trees: scikit-learn's own forest, whoever grows it and wherever it predicts."""

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file
from sklearn.ensemble import ExtraTreesClassifier

from cropray.cluster.resources import FitSize
from cropray.core.errors import ConfigError, InputError, MissingArtefactError, SchemaError
from cropray.core.features import as_floats
from cropray.core.legend import legend_from_names
from cropray.training.family import family
from cropray.training.forest.grow import grow, join
from cropray.training.forest.served import _load_pyfunc
from cropray.training.forest.settings import ForestSettings
from cropray.training.forest.tree_file import load_forest, predict_proba
from cropray.training.weights import class_weights
from tests.training.pixel_fits import NO_BEET, files, fit_job, fitted, require_scores, xy
from tests.training.tree_rows import draw_rows, train_zones, tree_data, val_zones

STEPS = (4, 11)
SMALL = ForestSettings(min_samples_leaf=2, max_features=0.5)


def oracle(settings, train, n=STEPS[-1], seed=0):
    """scikit-learn's forest; its probabilities in the places of the dataset's classes."""
    x, y = xy(train)
    weights = class_weights(np.bincount(y, minlength=4), settings.class_weighting)[y]
    forest = ExtraTreesClassifier(
        n,
        max_depth=settings.max_depth,
        min_samples_leaf=settings.min_samples_leaf,
        max_features=settings.max_features,
        random_state=seed,
    ).fit(as_floats(x), y, weights)

    def predict(x):
        probabilities = np.zeros((len(x), 4))
        probabilities[:, forest.classes_] = forest.predict_proba(as_floats(x))
        return probabilities

    return predict


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    return (*fitted("forest", SMALL, folder, STEPS), folder)


def test_a_fit_learns_and_its_scores_follow_from_its_model(fit):
    scores, model, _ = fit
    require_scores(scores, model, STEPS)
    assert np.trace(scores[-1].confusion) > 0.5 * 501
    assert all(score.seconds > 0 for score in scores)  # more steps, more seconds: `test_seconds_of_prefixes`
    assert [record["step"] for record in scores[1].history] == list(STEPS)
    assert scores[1].history[0]["val_loss"] == pytest.approx(scores[0].loss_sum / 501)


@pytest.mark.parametrize(
    ("settings", "train"),
    [
        (SMALL, train_zones()),
        (ForestSettings(min_samples_leaf=1, max_features=0.1), train_zones()),
        (ForestSettings(max_depth=5, min_samples_leaf=7, max_features=1.0), train_zones()),
        (SMALL, NO_BEET),
        (SMALL.model_copy(update={"class_weighting": "inverse"}), NO_BEET),
    ],
    ids=["default", "whole leaves", "flat", "a class is missing", "classes weigh the same"],
)
def test_its_probabilities_are_scikit_learns(settings, train, tmp_path):
    _, model = fitted("forest", settings, tmp_path, STEPS, train=train, val=False)
    for x in (xy(val_zones())[0], xy(train)[0], np.random.default_rng(5).integers(0, 65_536, (500, 48), np.uint16)):
        np.testing.assert_allclose(model.predict_samples(x), oracle(settings, train)(x), atol=1e-6)


def test_every_prefix_equals_a_fit_of_its_length(fit, tmp_path):
    short, _ = fitted("forest", SMALL, tmp_path, STEPS[:1])
    np.testing.assert_array_equal(short[0].confusion, fit[0][0].confusion)
    assert short[0].loss_sum == fit[0][0].loss_sum


def test_however_the_trees_are_parted_the_forest_is_the_same():
    (x, y), whole = xy(train_zones()), range(11)
    one = grow(SMALL, 3, whole, x, y, 4)
    threads = grow(SMALL.on_cpus(3), 3, whole, x, y, 4)
    parts = join(grow(SMALL, 3, part, x, y, 4) for part in (whole[:4], whole[4:5], whole[5:]))
    for other in (threads, parts):
        for a, b in zip(one.arrays().values(), other.arrays().values(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_more_threads_predict_the_same(fit):
    forest, _ = load_forest(fit[2])
    x = np.random.default_rng(5).integers(0, 5000, (9_000, 48), np.uint16)
    np.testing.assert_array_equal(predict_proba(forest, x), predict_proba(forest, x, n_threads=3))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_workers_grow_the_same_forest(fit, tmp_path):
    scores, _ = fitted("forest", SMALL.model_copy(update={"num_workers": 3}), tmp_path, STEPS)
    for a, b in zip(scores, fit[0], strict=True):
        np.testing.assert_array_equal(a.confusion, b.confusion)
        assert (a.loss_sum, a.untrained_loss_sum) == (b.loss_sum, b.untrained_loss_sum)
    assert files(tmp_path)["trees.safetensors"] == files(fit[2])["trees.safetensors"]


def test_a_class_that_training_lacks_is_never_predicted_and_summed_apart(tmp_path):
    scores, model = fitted("forest", SMALL, tmp_path, STEPS, train=NO_BEET)
    require_scores(scores, model, STEPS)
    assert scores[-1].untrained == (0,)
    assert scores[-1].confusion[:, 0].sum() == 0
    assert scores[-1].untrained_loss_sum > 0


def test_zones_of_one_class_alone_are_all_that_class(tmp_path):
    scores, _ = fitted("forest", SMALL, tmp_path, STEPS, train=tree_data(a=draw_rows(1, 90, ("rape",))))
    assert scores[-1].confusion[:, 2].sum() == 501


def test_rows_beyond_the_limit_are_left_out_and_counted(tmp_path, caplog):
    limited = SMALL.model_copy(update={"max_rows": 300})
    with caplog.at_level(logging.WARNING, "cropray"):
        scores, _ = fitted("forest", limited, tmp_path / "a", STEPS)
    assert caplog.messages == []
    again, _ = fitted("forest", limited, tmp_path / "b", STEPS)
    other, _ = fitted("forest", limited, tmp_path / "c", STEPS, seed=1)
    assert files(tmp_path / "a") == files(tmp_path / "b") != files(tmp_path / "c")
    assert scores[0].loss_sum == again[0].loss_sum != other[0].loss_sum
    provenance = json.loads((tmp_path / "a" / "card.json").read_text())["provenance"]
    assert (provenance["n_rows"], provenance["n_rows_kept"]) == (1500, 300)
    assert "300 of up to 2,001 pixels, drawn evenly (forest.max_rows)" in limited.check(FitSize(2001, 4, 48, None))
    assert SMALL.check(FitSize(2001, 4, 48, None)) == ""


def test_a_class_of_which_no_row_is_kept_is_told(tmp_path, caplog):
    rows = [draw_rows(1, 900, ("maize", "wheat")), draw_rows(2, 1, ("rape",))]
    train = tree_data(a=rows[0], b=rows[1])
    with caplog.at_level(logging.WARNING, "cropray"):
        scores, _ = fitted("forest", SMALL.model_copy(update={"max_rows": 20}), tmp_path, STEPS, train=train)
    assert "pixels of ['rape'] none is among the 20 that forest.max_rows keeps" in caplog.text
    assert scores[0].untrained == (0,)  # its zones hold rape


def test_missing_values_go_their_own_way(fit):
    x = xy(val_zones())[0]
    dark = np.where(x == 0, 1, x).astype(np.uint16)
    assert not np.array_equal(fit[1].predict_samples(x), fit[1].predict_samples(dark))


def test_it_is_served_as_it_was_trained_without_scikit_learn(fit):
    x = xy(val_zones())[0]
    np.testing.assert_array_equal(_load_pyfunc(str(fit[2])).predict(x), fit[1].predict_samples(x))
    assert sorted(files(fit[2])) == ["card.json", "trees.safetensors"]
    code = "import sys, cropray.training.forest.served; print('sklearn' in sys.modules, 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_damaged_models_are_refused(fit, tmp_path):
    load = family("forest").load
    with pytest.raises(MissingArtefactError, match="holds no trained forest"):
        load(tmp_path, "cpu")
    fitted("forest", SMALL, tmp_path, (2,), val=False)
    model, card = tmp_path / "trees.safetensors", tmp_path / "card.json"
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SchemaError, match="cannot be used"):
        load(tmp_path, "cpu")
    model.write_bytes(whole)
    record = json.loads(card.read_text())
    card.write_text(json.dumps({**record, "n_estimators": 9}))
    with pytest.raises(SchemaError, match="its card says"):
        load(tmp_path, "cpu")


@pytest.mark.parametrize(
    "damage",
    [
        lambda a: a["nodes"].__setitem__(0, a["nodes"][0] & np.uint64(0xFFFF_FFFF)),  # the right child is the root
        lambda a: a["nodes"].__setitem__(0, a["nodes"][0] | np.uint64(0x7FFF_FFFF << 32)),
        lambda a: a["nodes"].__setitem__(0, a["nodes"][0] | np.uint64(0x7FF0 << 16)),
        lambda a: a["nodes"].__setitem__(-1, a["nodes"][0]),
        lambda a: a["roots"].__setitem__(1, 0),
        lambda a: a.__setitem__("leaves", a["leaves"][:1]),
    ],
    ids=["circle", "beyond", "feature", "no end", "empty tree", "no leaf"],
)
def test_trees_that_lead_astray_are_refused(fit, tmp_path, damage):
    arrays = load_file(fit[2] / "trees.safetensors")
    damage(arrays)
    (tmp_path / "card.json").write_bytes((fit[2] / "card.json").read_bytes())
    save_file(arrays, tmp_path / "trees.safetensors")
    with pytest.raises(SchemaError, match="train it again"):
        load_forest(tmp_path)


def test_unusable_settings_are_refused(tmp_path):
    for values in ({"max_features": 0}, {"max_features": 1.2}, {"max_rows": 1}, {"n_estimators": 0}):
        with pytest.raises(ValidationError):
            ForestSettings(**values)
    with pytest.raises(ConfigError, match=r"400 trees on 100,000 rows of 9 classes .* lower forest\.max_rows"):
        ForestSettings().check(FitSize(4e7, 9, 48, 1e9))
    with pytest.raises(InputError, match="at least 2"):
        family("forest").fit(fit_job(SMALL, tmp_path, (2,), classes=legend_from_names(["wheat"]).classes))
