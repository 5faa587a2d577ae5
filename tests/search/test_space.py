"""A search unfolds to trials and units."""

import pytest

from cropray.config import JobConfig
from cropray.core.errors import ConfigError
from cropray.io.job_file import load_settings
from cropray.search.sampling import trials
from cropray.search.space import Trial, Unit, title
from cropray.training.family import family
from tests.jobs import write_job


def job(**changes):
    content = {"name": "a", "workspace": "/w", "imagery": {"folder": "/s"}, "parcels": {"path": "/p.gpkg"}, **changes}
    return JobConfig.model_validate(content)


def trials_of(model, search, **changes):
    found = job(search=search, **changes)
    return trials(family(model), found.settings_of(model), found.search, found.seed)


def test_a_grid_is_tried_value_by_value():
    found = trials_of("cnn", {"cnn": {"learning_rate": [0.1, 0.2], "kernel_size": [3, 5]}})
    assert found == [Trial({"learning_rate": rate, "kernel_size": size}) for rate in (0.1, 0.2) for size in (3, 5)]


def test_numbers_of_trees_share_a_fit():
    # A smaller forest is a prefix of the larger one's fit.
    found = trials_of("xgboost", {"xgboost": {"n_estimators": [200, 50, 200], "learning_rate": [0.1]}})
    assert found == [Trial({"learning_rate": 0.1}, (50, 200))]


def test_the_default_is_the_grid_of_the_study():
    titles = [Unit("cnn", trial, 0).title for trial in trials_of("cnn", {})]
    assert titles == [
        f"learning_rate={rate} kernel_size={size} fold=0" for rate in ("0.001", "0.0001") for size in (3, 5)
    ]
    titles = [Unit("xgboost", trial, 0).title for trial in trials_of("xgboost", {})]
    assert titles == [f"learning_rate={rate} n_estimators=100/200 fold=0" for rate in ("0.01", "0.1")]


def test_any_field_that_is_no_resource_is_searched():
    search = {"cnn": {"learning_rate": [0.1], "kernel_size": [3], "unet_channels": [[8, 8], [4]], "augment": [True]}}
    found = trials_of("cnn", search)
    assert [trial.values["unet_channels"] for trial in found] == [(8, 8), (4,)]
    assert title(found[0].values) == "learning_rate=0.1 kernel_size=3 augment=True unet_channels=8-8"
    found = trials_of("xgboost", {"xgboost": {"learning_rate": [0.1], "max_depth": [2, 9]}})
    assert [(trial.values["max_depth"], trial.steps) for trial in found] == [(2, (100, 200)), (9, (100, 200))]


def test_what_the_job_sets_is_not_searched_unless_it_lists_values():
    found = trials_of("cnn", {}, cnn={"learning_rate": 0.5})
    assert found == [Trial({"kernel_size": 3}), Trial({"kernel_size": 5})]
    found = trials_of("cnn", {"cnn": {"learning_rate": [0.1]}}, cnn={"learning_rate": 0.5, "kernel_size": 5})
    assert found == [Trial({"learning_rate": 0.1})]
    found = trials_of("xgboost", {}, xgboost={"n_estimators": 30, "learning_rate": 0.2})
    assert found == [Trial({}, (30,))]


def test_a_job_that_is_read_back_searches_the_same(tmp_path):
    first = job(search={"cnn": {"weight_decay": [0, 0.1]}}, cnn={"learning_rate": 0.5})
    again = load_settings(JobConfig, write_job(first.model_dump(mode="json"), tmp_path))
    assert again == first
    of = [trials(family("cnn"), each.settings_of("cnn"), each.search, 0) for each in (first, again)]
    assert of[0] == of[1]
    assert [sorted(trial.values) for trial in of[0]] == [["kernel_size", "weight_decay"]] * 4


def test_drawn_trials_are_those_of_the_seed():
    space = {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "max_depth": {"low": 2, "high": 12}}
    search = {"sampler": "random", "n_trials": 200, "xgboost": {**space, "n_estimators": [10, 50]}}
    found, again, other = (trials_of("xgboost", search, seed=seed) for seed in (3, 3, 4))
    assert found == again != other
    assert len(found) == 200
    rates = sorted(trial.values["learning_rate"] for trial in found)
    assert 1e-4 <= rates[0] < rates[-1] <= 1e-1
    assert 1e-3 < rates[100] < 1e-2  # evenly in the logarithm
    assert {trial.values["max_depth"] for trial in found} == set(range(2, 13))
    assert {trial.steps for trial in found} == {(10,), (50,)}


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"cnn": {"kernel_size": [4]}}, r"search.cnn.kernel_size.0': Input should be 3 or 5 \(got 4\)"),
        ({"cnn": {"learning_rate": []}}, "search.cnn.learning_rate': Tuple should have at least 1 item"),
        ({"cnn": {"learning_rate": [0]}}, "search.cnn.learning_rate.0': Input should be greater than 0"),
        ({"cnn": {"learning_rat": [1]}}, "unknown key 'search.cnn.learning_rat'; did you mean 'learning_rate'"),
        ({"cnn": {"num_workers": [1, 2]}}, "unknown key 'search.cnn.num_workers'"),  # it changes no result
        ({"xgboost": {"n_estimators": [0]}}, "search.xgboost.n_estimators.0"),
        ({"xgboost": {"max_depth": {"low": 5, "high": 5}}}, "a range needs low < high"),
        ({"xgboost": {"max_depth": {"low": 0, "high": 5, "log": True}}}, "low > 0 where it is logarithmic"),
        ({"xgboost": {"max_depth": {"low": 2, "high": 5}}}, "search.xgboost.max_depth is a range.*search.sampler"),
        ({"models": []}, "search.models"),
        ({"models": ["cnn", "cnn"]}, "names a family twice"),
        ({"models": ["oracle"]}, "'oracle' is no family of models; known are xgboost, cnn"),
        ({"objective": "test_accuracy"}, "search.objective"),  # test scores must not choose
        ({"max_concurrent": 0}, "search.max_concurrent"),
    ],
)
def test_wrong_searches_are_refused(search, said, tmp_path):
    content = {"name": "a", "workspace": "/w", "imagery": {"folder": "/s"}, "parcels": {"path": "/p.gpkg"}}
    with pytest.raises(ConfigError, match=said):
        load_settings(JobConfig, write_job({**content, "search": search}, tmp_path))


def test_a_long_list_of_steps_has_a_short_title():
    """It is a part of a folder's name."""
    (trial,) = trials_of("xgboost", {"xgboost": {"n_estimators": list(range(10, 1001, 10)), "learning_rate": [0.1]}})
    assert Unit("xgboost", trial, 0).title == "learning_rate=0.1 n_estimators=10-1000 fold=0"


def test_values_that_are_given_twice_are_searched_once():
    search = {"xgboost": {"learning_rate": [0.1, 0.1]}, "cnn": {"kernel_size": [3, 3]}}
    assert len(trials_of("xgboost", search)) == 1
    assert len(trials_of("cnn", search)) == 2  # two rates


def test_values_that_are_nearly_alike_have_titles_of_their_own():
    found = trials_of("xgboost", {"xgboost": {"learning_rate": [0.1, 0.10000001]}})
    assert len({Unit("xgboost", trial, 0).title for trial in found}) == 2


def test_refits_say_what_they_are():
    trial = Trial({"learning_rate": 0.1}, (50,))
    assert Unit("xgboost", trial, None).title == "learning_rate=0.1 n_estimators=50 refit"
    without = Unit("xgboost", trial, None, region="Île-de-France, nord")
    assert without.title == "learning_rate=0.1 n_estimators=50 without=Île-de-France, nord"
