"""One entry makes a score: shown in table, page and pictures, tracked, and a search can choose by it."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import cohen_kappa_score

from cropray.core.intervals import bootstrap_difference, bootstrap_intervals
from cropray.core.metrics import METRICS, Metric, Ratios, score
from cropray.io.workspace import Workspace
from cropray.report.page import Pictures, render_page, search_rows
from cropray.report.score_pictures import draw_scores, draw_zone_scores
from cropray.report.tables import score_table
from cropray.search.results import RegionOut, group_by_configuration, save_results, winner
from cropray.search.space import SearchSettings
from cropray.stages.family_search import fit_key
from cropray.stages.search_log import means_in_words
from cropray.tracking.projection import Projection
from cropray.training.cnn.settings import CnnSettings
from cropray.training.deep.loop import FitPlan, _badness
from cropray.training.family import family
from cropray.training.xgboost.settings import XgboostSettings
from tests.report.builders import draw_inputs
from tests.search.test_results import result
from tests.synthetic import entry, manifest
from tests.tracking_history import search_note


def kappa(matrix, _loss):
    """Cohen's: agreement beyond that of chance."""
    n = matrix.sum()
    chance = (matrix.sum(0) * matrix.sum(1)).sum() / n**2
    return float((np.trace(matrix) / n - chance) / (1 - chance)) if chance < 1 else 0.0


def wrong(cube):
    hits = np.trace(cube, axis1=1, axis2=2)[:, None]
    return Ratios(cube.sum((1, 2))[:, None] - hits, cube.sum((1, 2))[:, None])


def error_rate(matrix, _loss):
    return wrong(matrix[None]).mean()


@pytest.fixture
def registered():
    METRICS.add(Metric("kappa", "Cohen's kappa", kappa, short="kappa"))
    yield
    METRICS.remove("kappa")


@pytest.fixture
def one_that_falls():
    METRICS.add(Metric("error_rate", "Error rate", error_rate, higher_is_better=False, ratios=wrong))
    yield
    METRICS.remove("error_rate")


MATRIX = np.array([[30, 4, 1], [6, 20, 2], [0, 3, 9]])
TRUE, PREDICTED = (np.repeat(axis.ravel(), MATRIX.ravel()) for axis in np.indices(MATRIX.shape))


@pytest.mark.usefixtures("registered")
def test_its_value_is_of_the_counts():
    assert score(MATRIX)["kappa"] == pytest.approx(cohen_kappa_score(TRUE, PREDICTED))


@pytest.mark.usefixtures("registered")
def test_tables_show_it_before_the_loss():
    inputs = draw_inputs()
    header, _, first, *_ = score_table(inputs.models).splitlines()
    assert header.split()[-3:] == ["kappa", "loss", "pixels"]
    assert f"{kappa(inputs.models[0].confusion, None):.4f}" in first
    (quoted, *_) = [line for line in score_table(inputs.models).splitlines() if "(study)" in line]
    assert quoted.split()[-2:] == ["–", "0.5222"]  # the study published none


@pytest.mark.usefixtures("registered")
def test_the_page_and_its_pictures_show_it(tmp_path):
    inputs = draw_inputs(n_regions=2)
    page = render_page(inputs, Pictures((), (), {}, ()))
    assert "Cohen&#39;s kappa" in page
    assert f"{kappa(inputs.models[0].confusion, None):.4f}" in page
    assert "kappa" in search_rows(inputs.models[0])[0].metrics
    draw_scores(inputs, tmp_path / "scores.png")
    draw_zone_scores(inputs, tmp_path / "zones.png")


@pytest.mark.usefixtures("registered")
def test_its_keys_in_the_tracker(tmp_path):
    folds = [result(fold=0, right=8), result(fold=1, right=6)]
    for fold in folds:
        save_results(Workspace(tmp_path).unit("xgboost", f"fold={fold.fold}") / "result.json", [fold])
    units = tuple(f"fold={fold.fold}" for fold in folds)
    search = Projection(Workspace(tmp_path)).run(search_note(model="xgboost", units=units, n_folds=2))
    (tracked,) = search.below()
    assert {"val_kappa_mean", "val_kappa_std"} <= tracked.metrics.keys()
    assert all("val_kappa" in fold.metrics for fold in tracked.below())
    (configuration,) = group_by_configuration(folds)
    assert {"val_kappa_mean", "val_kappa_std"} <= configuration.metrics.keys()
    assert "region_out_kappa" in RegionOut({"north": folds[0]}).metrics
    assert "test_kappa" in score(MATRIX, 1.0).as_metrics("test")


@pytest.mark.usefixtures("registered")
def test_a_search_chooses_by_it():
    """Most are right where all are said to be of the frequent class: no better than chance."""
    assert SearchSettings(objective="val_kappa").objective == "val_kappa"
    frequent = replace(result(0.1), confusion=((90, 0), (10, 0)))
    fair = replace(result(0.2), confusion=((75, 15), (2, 8)))
    configurations = group_by_configuration([frequent, fair])
    assert winner(configurations, "val_accuracy").params["learning_rate"] == 0.1
    assert winner(configurations, "val_kappa").params["learning_rate"] == 0.2
    assert "kappa 0.4" in (said := means_in_words(configurations[1].metrics, "val_kappa"))
    assert "±" in said


@pytest.mark.usefixtures("one_that_falls")
def test_one_that_falls_with_intervals():
    bad, good = replace(result(0.1), confusion=((6, 4), (0, 0))), replace(result(0.2), confusion=((9, 1), (0, 0)))
    assert winner(group_by_configuration([bad, good]), "val_error_rate").params["learning_rate"] == 0.2
    cnn, trees = draw_inputs().models
    low, high = bootstrap_intervals(cnn.cube, 0)["test_error_rate"]
    assert 0 < low < error_rate(cnn.confusion, None) < high < 1
    assert "test_error_rate" in bootstrap_difference(cnn.cube, trees.cube, 0)


@pytest.mark.usefixtures("one_that_falls")
@pytest.mark.parametrize(("monitor", "better"), [("val_accuracy", 0.7), ("val_error_rate", 0.2), ("val_loss", 0.2)])
def test_a_fit_can_be_stopped_by_any_score(monitor, better):
    assert CnnSettings(monitor=monitor).monitor == monitor
    plan = FitPlan(n_classes=2, learning_rate=0.1, seed=0, monitor=monitor)
    records = [{"epoch": 1, "val_loss": 1.0} | {monitor: value} for value in (better, 0.5)]
    assert _badness(records[0], plan) < _badness(records[1], plan)


@pytest.mark.parametrize("name", ["val_kappa", "kappa", "test_accuracy", "val_accuracy_mean"])
def test_an_unknown_one_is_refused_with_the_known_ones(name):
    for settings, field in ((SearchSettings, "objective"), (CnnSettings, "monitor")):
        with pytest.raises(ValidationError, match=f"'{name}'.*val_loss, val_accuracy, .*val_macro_f1"):
            settings(**{field: name})


def test_a_new_score_makes_no_fit_again_but_those_that_it_stops():
    dataset = manifest(entry("a", 0), entry("b", 1))
    METRICS.add(Metric("kappa", "Cohen's kappa", kappa))
    try:
        new = {name: fit_key(family(name), settings, dataset, 0) for name, settings in SETTINGS.items()}
        stopped = fit_key(family("cnn"), CnnSettings(monitor="val_kappa"), dataset, 0)
    finally:
        METRICS.remove("kappa")
    for name, settings in SETTINGS.items():
        assert fit_key(family(name), settings, dataset, 0).digest == new[name].digest
    assert any(symbol.endswith(":kappa") for symbol in stopped.parts["code"])


SETTINGS = {"cnn": CnnSettings(), "xgboost": XgboostSettings()}
