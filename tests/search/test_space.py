"""A search unfolds to units."""

import pytest
from pydantic import ValidationError

from cropray.search.space import CnnSpace, SearchSettings, Unit, XgboostSpace, search_units
from cropray.stages.search_log import title
from cropray.training.cnn import CnnPoint
from cropray.training.xgboost import XgboostPoint


def test_the_cnn_has_a_unit_per_configuration_and_fold():
    settings = SearchSettings(cnn=CnnSpace(learning_rate=(0.1, 0.2), kernel_size=(3, 5)))
    units = search_units(settings, "cnn", 3)
    assert len(set(units)) == len(units) == 2 * 2 * 3
    assert units[:4] == (
        *(Unit("cnn", CnnPoint(learning_rate=0.1, kernel_size=3), fold) for fold in range(3)),
        Unit("cnn", CnnPoint(learning_rate=0.1, kernel_size=5), 0),
    )


def test_numbers_of_trees_share_a_unit():
    # A smaller forest is a prefix of the larger one's fit.
    settings = SearchSettings(xgboost=XgboostSpace(n_estimators=(200, 50, 200), learning_rate=(0.1,)))
    assert search_units(settings, "xgboost", 2) == tuple(
        Unit("xgboost", XgboostPoint(0.1, (50, 200)), fold) for fold in range(2)
    )


def test_the_default_is_the_grid_of_the_study():
    titles = [unit.title for unit in search_units(SearchSettings(), "cnn", 1)]
    assert titles == [f"lr={rate} kernel={size} fold=0" for rate in ("0.001", "0.0001") for size in (3, 5)]
    titles = [unit.title for unit in search_units(SearchSettings(), "xgboost", 1)]
    assert titles == ["lr=0.01 trees=100/200 fold=0", "lr=0.1 trees=100/200 fold=0"]


def test_a_refit_says_so():
    assert Unit("xgboost", XgboostPoint(0.1, (50,)), None).title == "lr=0.1 trees=50 refit"


@pytest.mark.parametrize(
    ("space", "wrong"),
    [
        (CnnSpace, {"kernel_size": [4]}),
        (CnnSpace, {"learning_rate": []}),
        (CnnSpace, {"learning_rate": [0]}),
        (XgboostSpace, {"n_estimators": [0]}),
        (XgboostSpace, {"n_estimators": []}),
        (SearchSettings, {"models": []}),
        (SearchSettings, {"models": ["forest"]}),
        (SearchSettings, {"objective": "test_accuracy"}),  # test scores must not choose
        (SearchSettings, {"max_concurrent": 0}),
    ],
)
def test_wrong_spaces_are_refused(space, wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        space(**wrong)


def test_a_long_grid_of_trees_has_a_short_title():
    """It is a part of a folder's name."""
    (unit,) = search_units(
        SearchSettings(xgboost=XgboostSpace(n_estimators=range(10, 1001, 10), learning_rate=(0.1,))), "xgboost", 1
    )
    assert unit.title == "lr=0.1 trees=10-1000 fold=0"


def test_values_that_are_given_twice_are_searched_once():
    settings = SearchSettings(xgboost=XgboostSpace(learning_rate=(0.1, 0.1)), cnn=CnnSpace(kernel_size=(3, 3)))
    assert len(search_units(settings, "xgboost", 1)) == 1
    assert len(search_units(settings, "cnn", 1)) == 2  # two rates


def test_values_that_are_nearly_alike_have_titles_of_their_own():
    settings = SearchSettings(xgboost=XgboostSpace(learning_rate=(0.1, 0.10000001)))
    assert len({unit.title for unit in search_units(settings, "xgboost", 1)}) == 2
    assert title({"learning_rate": 0.1}) != title({"learning_rate": 0.10000001})


def test_a_fit_without_a_region_names_it():
    unit = Unit("xgboost", XgboostPoint(0.1, (50,)), None, region="Île-de-France, nord")
    assert unit.title == "lr=0.1 trees=50 without=Île-de-France, nord"
