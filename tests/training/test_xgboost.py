"""Boosted trees: the same trees in this process, on workers and by both engines; exact scores; honest files."""

import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import xgboost as xgb

from cropray.core.errors import ConfigError, InputError, MissingArtefactError, SchemaError
from cropray.core.legend import legend_from_names
from cropray.training.pixel_blocks import PixelBlock, TreeData, class_indices, features
from cropray.training.xgboost.fit import XgbFit, XgboostSettings, train_xgboost
from cropray.training.xgboost.progress import RoundBooster
from cropray.training.xgboost.tree_file import load_booster, predict_proba
from tests.training.tree_rows import CLASSES, draw_rows, train_zones, tree_data, val_zones

POINT = (3, 8)
SMALL = XgboostSettings(learning_rate=0.3, max_depth=4)


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> tuple[XgbFit, Path]:
    folder = tmp_path_factory.mktemp("fit")
    return train_xgboost(SMALL, POINT, train_zones(), val_zones(), 0, folder), folder


def same(one: XgbFit, other: XgbFit) -> None:
    for a, b in zip(one.scores, other.scores, strict=True):
        assert a.step == b.step
        np.testing.assert_array_equal(a.confusion, b.confusion)
        assert a.loss_sum == pytest.approx(b.loss_sum, rel=1e-6)
        assert a.untrained_loss_sum == pytest.approx(b.untrained_loss_sum, rel=1e-6)
    for a, b in zip(one.history, other.history, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_a_fit_learns(fit: tuple[XgbFit, Path]) -> None:
    last = fit[0].scores[-1]
    # 501 validation pixels, four classes: chance is one in four.
    assert last.confusion.sum() == 501
    assert np.trace(last.confusion) > 0.6 * 501


def test_every_prefix_equals_a_fit_of_its_length(fit: tuple[XgbFit, Path], tmp_path: Path) -> None:
    short = train_xgboost(SMALL, (3,), train_zones(), val_zones(), 0, tmp_path)
    np.testing.assert_array_equal(short.scores[0].confusion, fit[0].scores[0].confusion)
    assert short.scores[0].loss_sum == fit[0].scores[0].loss_sum
    assert short.history == fit[0].history[:3]


def test_other_numbers_of_cpus_grow_the_same_trees(fit: tuple[XgbFit, Path], tmp_path: Path) -> None:
    two = SMALL.model_copy(update={"cpus_per_worker": 2})
    same(train_xgboost(two, POINT, train_zones(), val_zones(), 0, tmp_path), fit[0])


def test_scores_follow_from_the_written_model(fit: tuple[XgbFit, Path]) -> None:
    booster, val = load_booster(fit[1])[0], val_zones()
    expected, loss_sum = np.zeros((4, 4), int), 0.0
    for block in val.blocks.values():
        x, true = features(block.rows), class_indices(block.rows, val.lookup())
        probabilities = predict_proba(booster, x, 3)
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
        for t, p in zip(true, probabilities, strict=True):  # plain loop as an oracle
            expected[t, p.argmax()] += 1
            loss_sum -= float(np.log(np.float64(p[t])))
    np.testing.assert_array_equal(fit[0].scores[0].confusion, expected)
    assert fit[0].scores[0].loss_sum == pytest.approx(loss_sum, rel=1e-9)


def test_the_learning_curve_ends_at_the_score(fit: tuple[XgbFit, Path]) -> None:
    for score in fit[0].scores:
        point = fit[0].history[score.step - 1]
        assert point["step"] == score.step
        assert point["val_loss"] == pytest.approx(score.loss_sum / 501, rel=1e-5)


FEW = ("maize", "rape", "wheat")
NO_BEET = tree_data(a=draw_rows(1, 700, FEW), b=draw_rows(2, 500, FEW))


@pytest.fixture(scope="module")
def fit_without_beet(tmp_path_factory: pytest.TempPathFactory) -> XgbFit:
    return train_xgboost(SMALL, POINT, NO_BEET, val_zones(), 0, tmp_path_factory.mktemp("without"))


def test_a_class_that_training_lacks_is_summed_apart(fit_without_beet: XgbFit, tmp_path: Path) -> None:
    only_known = {z: block.rows.filter(pc.not_equal(block.rows["label"], 0)) for z, block in val_zones().blocks.items()}
    known = train_xgboost(SMALL, POINT, NO_BEET, tree_data(**only_known), 0, tmp_path)
    n_beet = 501 - sum(len(rows) for rows in only_known.values())
    assert fit_without_beet.scores[0].untrained == known.scores[0].untrained == (0,)
    for score, without in zip(fit_without_beet.scores, known.scores, strict=True):
        assert score.confusion[0].sum() == n_beet > 50
        assert score.loss_sum == pytest.approx(without.loss_sum, rel=1e-12)
        assert score.untrained_loss_sum > without.untrained_loss_sum == 0
        assert fit_without_beet.history[score.step - 1]["val_loss"] == pytest.approx(
            score.loss_sum / (501 - n_beet), rel=1e-5
        )


def test_a_prefix_takes_its_own_rounds_and_no_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rounds of a second each, by decree: the longer prefix takes five more of them."""
    now, update = [0.0], RoundBooster.update

    def slow(self: RoundBooster, dtrain: xgb.DMatrix, iteration: int, fobj: None = None) -> None:
        update(self, dtrain, iteration, fobj)
        now[0] += 1.0

    monkeypatch.setattr(RoundBooster, "update", slow)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    scores = train_xgboost(SMALL, POINT, train_zones(), val_zones(), 0, tmp_path).scores
    assert [score.seconds for score in scores] == [3.0, 8.0]


def test_trees_hold_for_raw_values(fit: tuple[XgbFit, Path]) -> None:
    """Without our bins XGBoost sees fewer than 256 different values here, so its own are exact: the same trees."""
    train = train_zones()
    coarse = {z: PixelBlock(_coarse(block.rows), block.n_rows) for z, block in train.blocks.items()}
    data = TreeData(coarse, CLASSES, "")
    x = np.concatenate([features(block.rows) for block in coarse.values()])
    y = np.concatenate([class_indices(block.rows, data.lookup()) for block in coarse.values()])
    plain = xgb.train(SMALL.parameters(4, 0), xgb.DMatrix(x.astype(np.float32), label=y, missing=0), 3)
    folder = fit[1] / "coarse"
    folder.mkdir()
    train_xgboost(SMALL, (3,), data, None, 0, folder)
    np.testing.assert_array_equal(predict_proba(load_booster(folder)[0], x), plain.inplace_predict(x, missing=0))


def _coarse(rows):
    for i, name in enumerate(rows.column_names):
        if name.startswith("B"):
            rows = rows.set_column(i, name, [rows[name].to_numpy() // 32 * 32])
    return rows


def test_zero_is_missing_and_not_dark(fit: tuple[XgbFit, Path]) -> None:
    booster, _ = load_booster(fit[1])
    x = features(draw_rows(9, 50))
    as_nan = np.where(x == 0, np.nan, x.astype(np.float32))
    np.testing.assert_array_equal(predict_proba(booster, x), booster.inplace_predict(as_nan))
    assert not np.array_equal(predict_proba(booster, x), booster.inplace_predict(x, missing=np.nan))


def test_a_class_absent_from_training_keeps_its_place(tmp_path: Path) -> None:
    train = tree_data(a=draw_rows(1, 300, ("maize", "wheat")))
    fit = train_xgboost(SMALL, POINT, train, val_zones(), 0, tmp_path)
    assert fit.scores[-1].confusion.shape == (4, 4)
    assert fit.scores[-1].confusion[:, 0].sum() == 0  # beet was never seen, so it is never predicted
    assert predict_proba(load_booster(tmp_path)[0], np.zeros((0, 48), np.uint16)).shape == (0, 4)


def test_a_refit_has_no_scores(tmp_path: Path) -> None:
    fit = train_xgboost(SMALL, (4,), train_zones(), None, 0, tmp_path)
    assert fit.scores == ()
    assert [set(point) for point in fit.history] == [{"step", "train_loss"}] * 4
    assert load_booster(tmp_path)[0].num_boosted_rounds() == 4


def test_the_card_tells_classes_and_origin(fit: tuple[XgbFit, Path]) -> None:
    card = json.loads((fit[1] / "card.json").read_text())
    assert card["kind"] == "xgboost"
    assert [record["name"] for record in card["classes"]] == ["beet", "maize", "rape", "wheat"]
    assert card["features"][12] == "B03_01"
    assert card["provenance"]["seed"] == 0
    assert card["provenance"]["zones"] == ["a", "b", "c"]


def test_damaged_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingArtefactError, match="holds no trained xgboost"):
        load_booster(tmp_path)
    train_xgboost(SMALL, (2,), train_zones(), None, 0, tmp_path)
    model, card = tmp_path / "model.ubj", tmp_path / "card.json"
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SchemaError, match="cannot be read"):
        load_booster(tmp_path)
    model.write_bytes(whole)
    record = json.loads(card.read_text())
    card.write_text(json.dumps({**record, "n_estimators": 9}))
    with pytest.raises(SchemaError, match="its card says"):
        load_booster(tmp_path)
    card.write_text(json.dumps({**record, "kind": "cnn"}))
    with pytest.raises(SchemaError, match="kind 'cnn'"):
        load_booster(tmp_path)


def test_unusable_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set num_workers to 1 or more"):
        XgboostSettings(engine="xgboost_ray")
    for trees in ((), (0, 5), (5, 3), (5, 5)):
        with pytest.raises(ValueError, match="rising numbers"):
            train_xgboost(SMALL, trees, train_zones(), None, 0, tmp_path)
    few = tree_data(a=draw_rows(1, 3))
    with pytest.raises(ConfigError, match="3 training pixels cannot be divided among 4 workers"):
        train_xgboost(XgboostSettings(num_workers=4), POINT, few, None, 0, tmp_path)
    alone = TreeData(few.blocks, legend_from_names(["wheat"]).classes, "")
    with pytest.raises(InputError, match="at least 2"):
        train_xgboost(SMALL, POINT, alone, None, 0, tmp_path)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("engine", ["ray_train", "xgboost_ray"])
@pytest.mark.parametrize("n_workers", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_engines_and_workers_agree(fit_without_beet: XgbFit, engine: str, n_workers: int, tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"engine": engine, "num_workers": n_workers})
    other = train_xgboost(settings, POINT, NO_BEET, val_zones(), 0, tmp_path)
    same(fit_without_beet, other)
    assert all(score.seconds > 0 for score in other.scores)  # more rounds, more seconds: `test_seconds_of_prefixes`
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "model.ubj"]
