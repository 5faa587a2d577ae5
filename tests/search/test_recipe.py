"""A recipe is put under a job's own settings, key by key, and `study` is what a job does without one."""

import pickle
import sys
from pathlib import Path

import pytest
import yaml

import cropray
from cropray.config import JobConfig
from cropray.core.errors import ConfigError
from cropray.io.job_file import dump_yaml, load_settings
from cropray.search.recipe import put_under, read_recipe, shipped, way_to
from cropray.search.sampling import trials
from cropray.training.family import families, family

BARE = {"name": "a", "workspace": "/w", "points": {"path": "/p.parquet"}, "search": {"models": ["forest"]}}


def load(tmp_path, *overrides, **changes):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**BARE, **changes}))
    return load_settings(JobConfig, path, overrides)


def recipe_file(tmp_path, **content):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def searched(job, model):
    return trials(family(model), job.settings_of(model), job.search, job.seed)


JOBS = [
    {"search": {"models": ["xgboost"]}},
    {"search": {"models": ["xgboost"], "xgboost": {"learning_rate": [0.3, 0.4]}}},
    {"search": {"models": ["xgboost"], "objective": "val_accuracy"}, "xgboost": {"learning_rate": 0.3, "max_depth": 3}},
    {"search": {"models": ["temp_cnn", "lightgbm"], "sampler": "random"}, "lightgbm": {"num_leaves": 7}},
    {"imagery": {"folder": "/s"}, "parcels": {"path": "/p.gpkg"}, "points": None, "search": {}},
    {"imagery": {"folder": "/s"}, "parcels": {"path": "/p.gpkg"}, "points": None, "search": {"models": ["cnn"]},
     "cnn": {"net": "temp_cnn", "learning_rate": 0.5}},
]  # fmt: skip


@pytest.mark.parametrize("changes", JOBS)
def test_study_is_what_a_job_without_recipe_does(changes, monkeypatch):
    content = {key: value for key, value in {**BARE, **changes}.items() if value is not None}
    with monkeypatch.context() as patched:
        patched.setattr("cropray.config.put_under", lambda job, _recipe, _model: job)
        without = JobConfig.model_validate(content)
    for job in (JobConfig.model_validate(content), JobConfig.model_validate({**content, "recipe": "study"})):
        assert job == without
        for model in job.search.models:
            assert searched(job, model) == searched(without, model)


def test_the_study_names_the_grids_that_its_families_search_by_themselves():
    study = read_recipe("study")["search"]
    assert study["models"] == ["xgboost", "cnn"]
    for model in study["models"]:
        assert {field: tuple(values) for field, values in study[model].items()} == dict(family(model).grid)


def test_a_job_goes_before_its_recipe_key_by_key(tmp_path):
    own = recipe_file(
        tmp_path,
        forest={"n_estimators": 20, "features": ["bands", "ndvi"]},
        lightgbm={"num_leaves": 7},
        search={"models": ["forest", "lightgbm"], "oof_rows": 9},
    )
    job = load(tmp_path, recipe=own, forest={"n_estimators": 30}, search={"oof_rows": 5})
    assert (job.forest.n_estimators, job.forest.features, job.lightgbm.num_leaves) == (30, ("bands", "ndvi"), 7)
    assert (job.search.models, job.search.oof_rows) == (("forest", "lightgbm"), 5)
    assert load(tmp_path, "forest.features=[bands]", recipe=own).forest.features == ("bands",)  # a list is one value


def test_a_choice_with_settings_of_its_own_is_one_value(tmp_path):
    own = recipe_file(tmp_path, temp_cnn={"loss": {"name": "focal", "gamma": 3}, "epochs": 4})
    job = load(tmp_path, recipe=own, temp_cnn={"loss": {"name": "cross_entropy"}})
    assert (job.temp_cnn.loss, job.temp_cnn.epochs) == ("cross_entropy", 4)


def test_what_a_job_fixes_is_not_searched_though_its_recipe_lists_values(tmp_path):
    own = recipe_file(tmp_path, search={"forest": {"max_features": [0.1, 0.2], "min_samples_leaf": [1, 4]}})
    job = load(tmp_path, recipe=own, forest={"max_features": 0.5})
    assert [trial.values for trial in searched(job, "forest")] == [{"min_samples_leaf": 1}, {"min_samples_leaf": 4}]
    job = load(tmp_path, recipe=own, search={"models": ["forest"], "forest": {"max_features": [0.7]}})
    assert {trial.values["max_features"] for trial in searched(job, "forest")} == {0.7}


def test_what_a_recipe_fixes_is_not_searched(tmp_path):
    own = recipe_file(tmp_path, xgboost={"learning_rate": 0.08, "n_estimators": 9}, search={"models": ["xgboost"]})
    job = load(tmp_path, recipe=own, search={})
    assert [(trial.values, trial.steps) for trial in searched(job, "xgboost")] == [({}, (9,))]


def test_the_resolved_job_reads_back_as_it_is(tmp_path):
    own = recipe_file(tmp_path, forest={"n_estimators": 20}, search={"forest": {"max_features": [0.1, 0.2]}})
    for recipe in (own, "best", "study"):
        job = load(tmp_path, recipe=recipe)
        (tmp_path / "resolved.yaml").write_text(dump_yaml(job))
        again = load_settings(JobConfig, tmp_path / "resolved.yaml")
        assert again == job
        assert again.recipe == recipe


def test_a_job_travels_without_the_file_of_its_recipe(tmp_path):
    own = recipe_file(tmp_path, forest={"n_estimators": 20})
    sent = pickle.dumps(load(tmp_path, recipe=own))
    Path(own).unlink()
    assert pickle.loads(sent).forest.n_estimators == 20


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"forest": {"n_estimator": 20}}, r"own\.yaml: unknown key 'forest\.n_estimator'; did you mean 'n_estimators'"),
        ({"workspace": "/elsewhere"}, r"own\.yaml: unknown key 'workspace'"),  # where and of what is the job's
        ({"forest": {"max_features": 3}}, r"own\.yaml: 'forest\.max_features'"),
        ({"search": {"models": ["forst"]}}, r"own\.yaml: .*'forst' is no family"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said_of_its_file(tmp_path, content, said):
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, recipe=recipe_file(tmp_path, **content))


def test_an_unknown_recipe_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match=r"job\.yaml: there is no recipe 'bset'; did you mean 'best'\?"):
        load(tmp_path, recipe="bset")
    with pytest.raises(ConfigError, match=r"the recipe 'gone\.yaml' does not exist"):
        load(tmp_path, recipe="gone.yaml")
    with pytest.raises(ConfigError, match="'recipe'"):
        load(tmp_path, recipe=["best"])


def test_features_of_a_recipe_that_a_cube_cannot_give_are_left_out_if_it_says_so(tmp_path):
    cube = {"bands": ["B02", "B03", "B04"]}
    job = load(tmp_path, recipe="best", search={}, cube=cube)
    reasons = ("ndvi (no band is nir)", "gndvi (no band is nir)", "evi2 (no band is nir)")
    assert job.left_out == {f"{name}.features": reasons for name in ("xgboost", "forest")}
    assert job.left_out_in_words == [f"left out of xgboost.features and forest.features: {', '.join(reasons)}"]
    kept = ("bands", "gr=(B03-B04)/(B03+B04)", "rb=(B04-B02)/(B04+B02)", "differences", "quantiles", "phenology")
    assert job.xgboost.features == job.forest.features == kept
    own = {family_: {"features": ["bands"]} for family_ in ("xgboost", "forest")}
    job = load(tmp_path, recipe="best", search={}, cube=cube, **own)
    assert (job.forest.features, job.left_out) == (("bands",), {})
    firm = recipe_file(tmp_path, forest={"features": ["ndvi"]})
    with pytest.raises(ConfigError, match=rf"'ndvi' needs .*the recipe is '{firm}': set forest\.features"):
        load(tmp_path, recipe=firm, cube=cube)
    with pytest.raises(ConfigError, match=r"'ndvi' needs the bands \['B08'\]"):
        load(tmp_path, "forest.features=[bands, ndvi]", recipe="best", cube=cube)


def test_lists_of_features_that_are_searched_are_left_as_the_cube_can_give_them(tmp_path):
    lists = [["bands"], ["bands", "ndmi?"], ["bands", "sum?[0,2]=nir+red"]]
    job = load(tmp_path, search={"models": ["forest"], "forest": {"features": lists, "n_estimators": [3]}})
    assert [t.values["features"] for t in searched(job, "forest")] == [("bands",), ("bands", "sum[0,2]=B08+B04")]
    assert job.left_out == {"forest.features": ("ndmi (no band is swir1)",)}


STATIC = {"path": "/p.parquet", "static": [{"id": "slope", "unit": "degree", "scale": 0.01}]}


@pytest.mark.parametrize(
    ("models", "changes", "kept", "told"),
    [
        (["cnn", "forest", "xgboost", "blend"], {}, ("forest", "xgboost", "blend"), ["cnn (points have no tiles)"]),
        (["temp_cnn", "forest", "xgboost", "blend"], {"points": STATIC}, ("forest", "xgboost", "blend"),
         ["temp_cnn (it reads the series of the bands alone, and the points have slope)"]),
        (["blend", "forest", "temp_cnn"], {"points": STATIC}, ("forest",),
         ["blend (too few of the families that it is built from are left)",
          "temp_cnn (it reads the series of the bands alone, and the points have slope)"]),
        (["xgboost", "temp_cnn", "blend"], {"cube": {"step": "season"}}, ("xgboost",),
         ["temp_cnn (it reads the course of a pixel, and there is one step)",
          "blend (too few of the families that it is built from are left)"]),
        (["lightgbm", "forest"], {}, ("forest",),
         ["lightgbm (LightGBM needs the package lightgbm, which is not installed: run pip install 'cropray[lightgbm]')"]),
    ],
)  # fmt: skip
def test_families_of_a_recipe_that_the_data_do_not_allow_are_left_out(
    tmp_path, monkeypatch, models, changes, kept, told
):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    own = recipe_file(tmp_path, search={"models": models})
    job = load(tmp_path, recipe=own, **{"search": {"oof_rows": 7}, **changes})
    assert job.search.models == kept
    assert job.left_out == {"search.models": tuple(told)}
    for again in (
        pickle.loads(pickle.dumps(job)),
        load(tmp_path, recipe=own, **{**changes, "search": {"models": kept}}),
    ):
        assert (again.search.models, again.left_out) == (kept, {})  # it names them itself


@pytest.mark.parametrize(
    ("models", "changes", "said"),
    [
        (["cnn", "forest"], {}, "'points' have no tiles for cnn"),
        (["temp_cnn", "forest"], {"points": STATIC}, "temp_cnn read the series of the bands alone"),
        (["forest", "blend"], {}, "blend is the mean of at least 2 other families"),
    ],
)
def test_families_that_a_job_names_are_refused(tmp_path, models, changes, said):
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, recipe="best", search={"models": models}, **changes)
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, f"search.models={models}", recipe="best", search={}, **changes)


@pytest.mark.parametrize("models", [["cnn"], ["forest", "blend"]])
def test_a_recipe_of_which_nothing_is_left_or_that_lacks_members_by_itself_is_refused(tmp_path, models):
    with pytest.raises(ConfigError, match=r"have no tiles for cnn|blend is the mean of at least 2"):
        load(tmp_path, recipe=recipe_file(tmp_path, search={"models": models}), search={})


def test_the_study_of_points_is_its_trees(tmp_path):
    job = load(tmp_path, search={})
    assert (job.search.models, job.left_out) == (("xgboost",), {"search.models": ("cnn (points have no tiles)",)})


def test_shipped_recipes_are_files_of_the_package():
    folder = Path(cropray.__file__).parent / "data" / "recipes"
    assert set(shipped()) == {path.stem for path in folder.glob("*.yaml")} >= {"study", "best"}


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_recipe_is_of_families_that_come_with_cropray(name):
    recipe = read_recipe(name)
    assert set(recipe["search"]["models"]) <= families().keys()
    assert put_under({}, recipe, JobConfig)["search"]["models"]


def test_best_searches_nothing_and_reads_points(tmp_path):
    job = load(tmp_path, recipe="best", search={})
    assert [len(searched(job, model)) for model in job.search.models] == [1] * len(job.search.models)


def test_the_way_to_best_begins_at_the_study_and_ends_there(tmp_path):
    way = way_to("best", ["forest"])
    first, study = load(tmp_path, recipe=recipe_file(tmp_path, **way[0][1])), load(tmp_path, recipe="study")
    assert first.model_copy(update={"recipe": "study"}) == study
    assert searched(first, "xgboost") == searched(study, "xgboost")
    best = read_recipe("best")
    for model in best["search"]["models"]:
        kind = family(model).settings
        assert kind.model_validate(way[-1][1][model]) == kind.model_validate(best[model])
    assert {change.model for change, _ in way} == set(best["search"]["models"])


def test_each_row_adds_to_those_before_it(tmp_path):
    changes = [
        {"name": "as it was", "model": "xgboost"},
        {"name": "narrow", "model": "xgboost", "settings": {"xgboost": {"max_depth": 3, "learning_rate": 0.2}}},
        {"name": "ndvi", "model": "xgboost", "settings": {"xgboost": {"features": ["ndvi"]}}},
    ]
    way = way_to(recipe_file(tmp_path, ablation=changes), ["xgboost"])
    assert [(row.name, raw["xgboost"].get("max_depth"), raw["xgboost"]["features"]) for row, raw in way] == [
        ("as it was", 6, ["bands"]), ("narrow", 3, ["bands"]), ("ndvi", 3, ["ndvi"]),
    ]  # fmt: skip
    assert "learning_rate" not in way[1][1]["search"]["xgboost"]  # it is fixed from there on


def test_a_recipe_that_describes_no_way_is_compared_family_by_family(tmp_path):
    own = recipe_file(tmp_path, forest={"n_estimators": 20})
    way = way_to(own, ["forest", "xgboost"])
    assert [row.name for row, _ in way] == ["study: forest", f"{own}: forest", "study: xgboost", f"{own}: xgboost"]
    assert (way[0][1].get("forest"), way[1][1]["forest"]) == (None, {"n_estimators": 20})


def test_a_recipe_with_a_mean_and_no_way_is_compared_family_by_family(tmp_path):
    models = ["xgboost", "forest", "blend"]
    way = way_to(recipe_file(tmp_path, search={"models": models}), models)
    assert [change.models for change, _ in way] == [
        *[["xgboost"]] * 2, *[["forest"]] * 2, *[["xgboost", "forest", "blend"]] * 2
    ]  # fmt: skip
