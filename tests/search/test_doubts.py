"""Ends of what was searched, and what folds cannot have learnt."""

import pytest

from cropray.datasets.manifest import BandSums
from cropray.search.doubts import fold_doubts, search_warnings
from cropray.search.results import ConfigurationResult, FoldResult
from cropray.search.space import Range
from cropray.training.cnn.settings import CnnSettings
from cropray.training.family import family
from cropray.training.xgboost.settings import XgboostSettings
from tests.synthetic import entry, manifest


def configuration(best_steps=(5, 5), **params):
    folds = (FoldResult(params, i, 1.0, ((1, 0), (0, 1)), (), step, 0.0) for i, step in enumerate(best_steps))
    return ConfigurationResult(params, tuple(folds))


TREES = [configuration(n_estimators=n, learning_rate=rate) for n in (50, 100, 400) for rate in (0.03, 0.1, 0.3)]


def trees_that_win(n, rate):
    best = next(c for c in TREES if c.params == {"n_estimators": n, "learning_rate": rate})
    return search_warnings(family("xgboost"), XgboostSettings(), TREES, best, {})


def test_a_winner_inside_the_grid_is_no_doubt():
    assert trees_that_win(100, 0.1) == []


@pytest.mark.parametrize(
    ("n", "rate", "said"),
    [
        (400, 0.1, ["n_estimators 400 is the largest of those searched (50, 100, 400): a better one may lie above"]),
        (
            100,
            0.03,
            ["learning_rate 0.03 is the smallest of those searched (0.03, 0.1, 0.3): a better one may lie below"],
        ),
        (50, 0.3, ["n_estimators 50 is the smallest", "learning_rate 0.3 is the largest"]),
    ],
)
def test_a_winner_at_an_end_of_the_grid_is_told(n, rate, said):
    warnings = trees_that_win(n, rate)
    assert len(warnings) == len(said)
    for warning, words in zip(warnings, said, strict=True):
        assert words in warning
        assert "widen search.xgboost." in warning


def test_what_has_no_neighbour_or_was_not_searched_is_no_doubt():
    cnns = [configuration(learning_rate=0.01, kernel_size=size) for size in (3, 5)]
    assert (
        search_warnings(family("cnn"), CnnSettings(), cnns, cnns[1], {}) == []
    )  # a kernel is 3 or 5 wide, and one rate was searched


def test_a_best_epoch_that_is_the_last_one_is_told():
    best = configuration((12, 7, 12), learning_rate=0.01, kernel_size=3)
    (warning,) = search_warnings(family("cnn"), CnnSettings(epochs=12), [best], best, {})
    assert "the last one allowed (12) in 2 of 3 folds (0, 2)" in warning
    assert "raise cnn.epochs" in warning
    assert search_warnings(family("cnn"), CnnSettings(epochs=13), [best], best, {}) == []
    assert search_warnings(family("cnn"), CnnSettings(epochs=12, patience=None), [best], best, {}) == []  # it is meant


def test_searched_choices_are_no_doubt_and_searched_epochs_bound_the_winner():
    several = [configuration(pool=pool, epochs=n) for pool in ("max", "mean") for n in (5, 9, 20)]
    assert search_warnings(family("cnn"), CnnSettings(), several, several[1], {}) == []
    (late,) = search_warnings(family("cnn"), CnnSettings(), several[:1], several[0], {})
    assert "the last one allowed (5)" in late


def test_folds_with_classes_that_they_cannot_have_learnt_are_told():
    zones = manifest(
        entry("a", 0, {"wheat": 90, "hops": 10}), entry("b", 1, {"wheat": 5}), entry("t", None, {"maize": 3}),
        names=("wheat", "maize", "hops"),
    )  # fmt: skip
    (doubt,) = fold_doubts(zones)
    assert doubt.startswith(
        "fold 0: 10 of 100 validation pixels (10.0 %) are of classes that its training zones lack (hops 10)"
    )


def test_a_band_that_training_has_never_seen_is_told():
    blank = BandSums((3, 3, 0, 3), (1.0,) * 4, (1.0,) * 4)
    doubts = fold_doubts(manifest(entry("a", 0), entry("b", 1, sums=blank)))
    assert doubts == ("fold 0: its training zones have no value of B04 in any month; models cannot use it",)


def drawn(rate, depth):
    ranges = {"learning_rate": Range(low=0.01, high=0.5, log=True), "max_depth": Range(low=2.6, high=8)}
    tried = [configuration(learning_rate=r, max_depth=d) for r, d in ((0.02, 3), (0.31, 6), (rate, depth))]
    return search_warnings(family("xgboost"), XgboostSettings(), tried, tried[-1], ranges)


def test_the_extremes_of_what_was_drawn_are_no_ends_of_a_range():
    assert drawn(0.4, 7) == drawn(0.015, 4) == []
    (low,) = drawn(0.1, 3)
    assert "max_depth 3 is the smallest of those searched (3 to 8): a better one may lie below" in low
    (high,) = drawn(0.5, 5)
    assert "learning_rate 0.5 is the largest of those searched (0.01 to 0.5)" in high
