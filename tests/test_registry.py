"""One registered model per dataset, and aliases that move for the better alone."""

import shutil
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from cropray.tracking import CHAMPION, Tracker
from tests.tracking_history import MERIT, candidate, evaluation_note, prepare

NAME = "upper valley"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """An empty store: creating its tables takes seconds, copying it none."""
    root = tmp_path_factory.mktemp("store")
    Tracker(prepare(root), NAME)
    return root / "mlflow.db"


class Evaluations:
    """Evaluates models that differ by their seed, as one stage after the other would."""

    def __init__(self, root):
        self.workspace = prepare(root)
        self.client = MlflowClient(f"sqlite:///{root}/mlflow.db")
        self.notes = []
        self.time_ms = 0

    def tracker(self, **_):
        return Tracker(self.workspace, NAME)

    def evaluate(self, seed, value, tracker=None, **changes):
        """Version of a model with a validation loss; None: it waits."""
        merit = replace(MERIT, **{"value": value, **changes})
        folder = self.workspace.root / "models" / merit.family
        folder.mkdir(exist_ok=True)
        (folder / "card.json").write_text(f'{{"seed": {seed}}}')
        tracker, self.time_ms = tracker or self.tracker(), self.time_ms + 1
        key, asked = f"evaluate/{merit.family}/e{seed}", candidate(self.workspace, merit, self.time_ms)
        tracker.note(evaluation_note(NAME, key=key, model=merit.family, candidate=asked, time_ms=self.time_ms))
        waits = tracker.sync()
        self.notes = list(tracker.notes)
        found = [] if waits else self.client.search_model_versions(f"name = '{NAME}'")
        return next((str(v.version) for v in found if v.tags["cropray.model_hash"] == asked.content), None)

    @property
    def aliases(self):
        return {alias: str(version) for alias, version in self.client.get_registered_model(NAME).aliases.items()}

    def put(self, alias, version):
        self.client.set_registered_model_alias(NAME, alias, version)


@pytest.fixture
def models(tmp_path, template):
    shutil.copy(template, tmp_path / "mlflow.db")
    return Evaluations(tmp_path)


def test_a_worse_model_becomes_a_version_and_no_more(models):
    assert models.evaluate(1, 0.61) == "1"
    assert models.evaluate(2, 0.64) == "2"
    assert models.aliases == {"cnn": "1", CHAMPION: "1"}
    assert models.evaluate(3, 0.58) == "3"
    assert models.aliases == {"cnn": "3", CHAMPION: "3"}
    assert any("version 3, which is better than version 1 (val_loss was 0.6100)" in note for note in models.notes)


def test_the_champion_is_the_best_of_all_families(models):
    models.evaluate(1, 0.5, family="xgboost")
    models.evaluate(2, 0.7, family="cnn")
    assert models.aliases == {"xgboost": "1", "cnn": "2", CHAMPION: "1"}
    models.evaluate(3, 0.4, family="cnn")
    assert models.aliases == {"xgboost": "1", "cnn": "3", CHAMPION: "3"}


def test_scores_are_better_when_they_are_greater(models):
    scores = {"objective": "val_macro_f1", "greater_is_better": True}
    models.evaluate(1, 0.71, **scores)
    models.evaluate(2, 0.69, **scores)
    assert models.aliases[CHAMPION] == "1"
    models.evaluate(3, 0.73, **scores)
    assert models.aliases[CHAMPION] == "3"


def test_evaluating_again_moves_nothing_and_says_nothing(models):
    models.evaluate(1, 0.5)
    models.evaluate(2, 0.6)
    before = models.client.get_registered_model(NAME)
    assert models.evaluate(1, 0.5) == "1"
    assert models.evaluate(2, 0.6) == "2"
    after = models.client.get_registered_model(NAME)
    assert (after.aliases, after.tags) == (before.aliases, before.tags)
    assert models.notes == []


def test_models_of_an_earlier_dataset_are_replaced_by_newer_ones(models):
    models.evaluate(1, 0.2)
    models.evaluate(2, 0.9, dataset="d2")
    assert models.aliases == {"cnn": "2", CHAMPION: "2"}
    assert any("of another version of the dataset and is not compared" in note for note in models.notes)
    models.evaluate(1, 0.2)  # the earlier dataset once more, nothing new in it
    assert models.aliases == {"cnn": "2", CHAMPION: "2"}


def test_another_objective_compares_what_was_scored_by_it(models):
    models.evaluate(1, 0.5, family="xgboost")
    models.evaluate(2, 0.6, family="cnn")
    scores = {"objective": "val_accuracy", "greater_is_better": True}
    models.evaluate(1, 0.8, family="xgboost", **scores)
    models.evaluate(2, 0.9, family="cnn", **scores)
    assert models.aliases == {"xgboost": "1", "cnn": "2", CHAMPION: "2"}


def test_a_person_s_choice_stands(models):
    models.evaluate(1, 0.6)
    models.evaluate(2, 0.5)
    models.put(CHAMPION, "1")
    models.evaluate(3, 0.4)
    assert models.aliases == {"cnn": "3", CHAMPION: "1"}
    assert any("'champion' stands on version 1, by hand" in note and "version 3" in note for note in models.notes)
    models.client.delete_registered_model_alias(NAME, CHAMPION)
    models.evaluate(4, 0.3)
    assert models.aliases == {"cnn": "4"}
    assert any("'champion' was taken away, by hand" in note for note in models.notes)
    models.client.delete_registered_model_tag(NAME, "cropray.alias.champion")  # as the note says
    models.evaluate(4, 0.3)
    assert models.aliases == {"cnn": "4", CHAMPION: "4"}


def test_an_alias_that_was_there_before_is_a_person_s(models):
    models.client.create_registered_model(NAME)
    models.client.create_model_version(NAME, "file:///elsewhere", None)
    models.put(CHAMPION, "1")
    models.evaluate(1, 0.5)
    assert models.aliases == {"cnn": "2", CHAMPION: "1"}


def test_an_alias_goes_on_when_its_version_is_deleted(models):
    for seed, value in ((1, 0.5), (2, 0.4), (3, 0.6)):
        models.evaluate(seed, value)
    models.client.delete_model_version(NAME, "2")
    models.evaluate(3, 0.6)
    assert models.aliases == {"cnn": "1", CHAMPION: "1"}
    models.client.delete_registered_model(NAME)
    assert models.evaluate(3, 0.6) == "1"
    assert models.aliases == {"cnn": "1", CHAMPION: "1"}


@pytest.mark.parametrize("method", ["set_registered_model_tag", "set_registered_model_alias"])
@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("is_made", [True, False])
def test_a_move_that_was_cut_off_is_no_person_s(models, monkeypatch, method, call, is_made):
    models.evaluate(1, 0.6)
    real, calls = getattr(MlflowClient, method), []

    def cut_off(*args):
        calls.append(args)
        if len(calls) != call:
            return real(*args)
        if is_made:
            real(*args)
        raise OSError("connection reset")

    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, method, cut_off)
        models.evaluate(2, 0.5)
    assert Tracker(models.workspace, NAME).close(0) == 0  # a later process makes up for it
    assert models.aliases == {"cnn": "2", CHAMPION: "2"}
    tags = models.client.get_registered_model(NAME).tags
    assert tags == {"cropray.alias.cnn": "2", "cropray.alias.champion": "2"}


def test_what_waits_is_registered_in_order(models, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "get_experiment_by_name", lambda *_: (_ for _ in ()).throw(OSError("away")))
        tracker = models.tracker()
        for seed, value, family in ((1, 0.4, "cnn"), (2, 0.5, "xgboost"), (3, float("nan"), "other")):
            assert models.evaluate(seed, value, tracker, family=family) is None
    assert Tracker(models.workspace, NAME).close(0) == 0
    assert models.aliases == {"cnn": "1", "xgboost": "2", "other": "3", CHAMPION: "1"}


def test_a_version_says_what_it_is_worth(models):
    models.evaluate(1, 0.625)
    version = models.client.get_model_version(NAME, "1")
    wanted = {
        "cropray.family": "cnn", "cropray.dataset": "d1", "cropray.objective": "val_loss",
        "cropray.objective_value": "0.625", "cropray.key": "evaluate/cnn/e1",
    }  # fmt: skip
    assert wanted.items() <= version.tags.items()
    assert models.client.get_run(version.run_id).data.tags["cropray.key"] == "evaluate/cnn/e1"


def test_an_objective_that_is_no_number_does_not_stop_the_registration(models):
    assert models.evaluate(1, float("nan")) == "1"
    assert models.evaluate(2, 0.5) == "2"
    assert models.aliases == {"cnn": "2", CHAMPION: "2"}
