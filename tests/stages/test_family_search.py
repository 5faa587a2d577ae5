"""The search of one family and what is made of it, with units that are finished by hand: no fit, no Ray."""

import io
import json
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from cropray.cluster.placement import Node
from cropray.cluster.zone_jobs import ZoneTask
from cropray.core.errors import ConfigError, StageFailedError
from cropray.core.progress import Progress
from cropray.io.storage import write_json
from cropray.search.fit import configuration_of
from cropray.search.results import RESULT_FILE, FoldResult, save_results
from cropray.search.space import Trial, title
from cropray.stages import family_search, out_of_fold, search
from cropray.stages.family_search import FamilySearch, Samples
from cropray.stages.search_log import SearchLog
from cropray.stages.search_verdict import Searched
from cropray.tracking import Tracker
from cropray.training.family import family
from tests.search.test_space import job as job_of
from tests.synthetic import entry, manifest

ZONES = manifest(entry("k1", 0), entry("k2", 1), entry("k3", 2), entry("t1", None), source="points", n_folds=3)
TRIALS = [Trial({"learning_rate": rate}, (30,)) for rate in (0.2, 0.4, 0.6)]


@pytest.fixture
def make(tmp_path):
    """Make the search of trees, of which nothing is fitted."""

    def make(**changes):
        changes["search"] = {
            "models": ["xgboost"],
            "xgboost": {"learning_rate": [0.2, 0.4]},
            **changes.get("search", {}),
        }
        made = job_of(workspace=tmp_path / "work", **changes)
        return FamilySearch(made, ZONES, "xgboost", Samples(made.artefacts, ZONES))

    return make


def finish(units, hits=lambda _: 5):
    """Write units as if they had been fitted; `hits`: trial → right pixels of ten."""
    for unit in units:
        of, n = unit.unit, hits(unit.unit.trial)
        matrix = ((n, 10 - n), (10 - n, n))
        found = [
            FoldResult(configuration_of(family(of.model), of.trial, step), of.fold or 0, 1.0, matrix, (), step, 1.0)
            for step in of.trial.steps or (1,)
        ]
        unit.folder.mkdir(parents=True, exist_ok=True)
        save_results(unit.folder / RESULT_FILE, found)


def proposing(monkeypatch, *proposed):
    """Make the sampler propose these batches; returns what it is told."""
    told = []

    def batches(*given):
        for batch in proposed:
            yield batch
            told.extend(given[-1](trial) for trial in batch)

    monkeypatch.setattr(family_search, "batches", batches)
    return told


TPE = {"sampler": "tpe", "n_trials": 4, "batch": 3}


def test_a_trial_that_is_proposed_twice_is_fitted_once_and_told_twice(make, monkeypatch):
    told = proposing(monkeypatch, [TRIALS[0], TRIALS[1], TRIALS[0]], [TRIALS[2]])
    tried = make(search=TPE)
    assert len(tried.batch) == len({unit.folder for unit in tried.batch}) == 6
    finish(tried.batch, lambda trial: 9 if trial == TRIALS[0] else 6)
    assert tried.advance()
    assert told[0] == told[2] > told[1]
    finish(tried.batch)
    assert not tried.advance()
    log = io.StringIO()
    configurations, best = tried.choose(Progress(log))
    assert [c.params["learning_rate"] for c in configurations] == [0.2, 0.4, 0.6]
    assert best.params["learning_rate"] == 0.2
    assert "1 of 4 trials repeat the values of others and count once" in log.getvalue()


def test_draws_that_come_again_are_counted(make):
    tried = make(search={"sampler": "random", "n_trials": 12, "xgboost": {"learning_rate": [0.2, 0.4]}})
    assert len(tried.units) == 2 * 3
    assert tried.n_repeated == 12 - 2 * 2  # rates and numbers of trees, which share fits
    assert make().n_repeated == 0


def test_trials_that_were_not_proposed_are_known(make, monkeypatch):
    proposing(monkeypatch, TRIALS[:1], TRIALS[1:])
    tried = make(search={**TPE, "n_trials": 3})
    assert tried.n_not_proposed == 2
    finish(tried.batch)
    tried.advance()
    assert tried.n_not_proposed == 0
    assert make().n_not_proposed == 0


def verdict(tried, **changes):
    """What is said once a search was published, of a job with changed settings."""
    settings = tried.job.search.model_copy(update=changes)
    job = tried.job.model_copy(update={"search": settings})
    return Searched(job, ZONES, "xgboost", tried.key, tried.units, tried.is_finished).why_stale()


def publish(tried, monkeypatch):
    best = tried.choose(Progress(io.StringIO()))[1]
    refit, regions = tried.refit(best), tried.regions(best)
    finish([refit, *regions.values()])
    (refit.folder / "card.json").write_text("{}")
    tried.log = SimpleNamespace(search=SimpleNamespace(key="run"))
    monkeypatch.setattr(tried, "_region_out", lambda _: None)
    tried.publish(refit, regions, *tried.choose(Progress(io.StringIO())), Progress(io.StringIO()))


def test_a_search_that_was_cut_off_has_no_changed_settings(make, monkeypatch):
    tried = make(search={"time_budget_s": 60})
    finish(tried.units[:4])
    publish(tried, monkeypatch)
    assert verdict(tried) == ["its time was up (search.time_budget_s): 2 fits are left to be made"]
    other = make(search={"xgboost": {"learning_rate": [0.2, 0.3]}})
    assert verdict(other) == ["setting search.xgboost changed, or dataset.n_folds: 3 fits are to be made"]


def test_proposals_that_there_was_no_time_for_are_no_changed_settings(make, monkeypatch):
    proposing(monkeypatch, TRIALS[:1], TRIALS[1:])
    tried = make(search={**TPE, "n_trials": 3, "time_budget_s": 60})
    finish(tried.units)
    publish(tried, monkeypatch)
    assert json.loads(tried.workspace.search_result("xgboost").read_text())["not_proposed"] == 2
    again = make(search={**TPE, "n_trials": 3, "time_budget_s": 60})
    assert len(again.units) == 3 * 3 or again.advance()  # it goes on where it was
    assert verdict(again) == ["its time was up (search.time_budget_s): 6 fits are left to be made"]


@pytest.mark.parametrize(("was", "now"), [(True, False), (False, True)])
def test_scores_of_new_regions_that_are_not_wanted_any_more_or_are_wanted_now(make, monkeypatch, was, now):
    tried = make()
    finish(tried.units)
    publish(tried, monkeypatch)
    path = tried.workspace.search_result("xgboost")
    write_json(path, {**json.loads(path.read_text()), **({"region_out": {}} if was else {})})
    assert f"setting search.leave_region_out was {str(was).lower()}, is {str(now).lower()}" in verdict(
        tried, leave_region_out=now
    )
    assert verdict(tried, leave_region_out=was) == []


class Notes:
    """What a tracker is told."""

    def __init__(self):
        self.told, self.n_looks = [], 0

    def note(self, note):
        self.told.append(note)

    def keep_up(self, _note):
        self.n_looks += 1


def test_a_search_notes_its_units_its_steps_and_what_it_came_to(make, monkeypatch):
    proposing(monkeypatch, TRIALS[:1], TRIALS[1:])
    tried = make(search={**TPE, "n_trials": 3})
    job, tracker = tried.job, Notes()
    log = SearchLog(job, ZONES, "xgboost", tried.context, tracker)
    log.plan(tried.units)
    log.plan(tried.units)  # nothing new in it
    finish(tried.batch)
    tried.advance()
    log.plan(tried.units)
    assert [len(note.units) for note in tracker.told] == [3, 9]
    unit = tried.units[4]
    for step in (1, 2):
        log.follow(unit, {"step": step, "val_loss": 1 / step})
    (running,) = tracker.told[-1].running.values()
    assert (running.fold, running.history) == (1, ({"step": 1, "val_loss": 1.0}, {"step": 2, "val_loss": 0.5}))
    assert running.params == {"n_estimators": 30, "learning_rate": 0.4}
    finish(tried.units)
    best = tried.choose(Progress(io.StringIO()))[1]
    tried.workspace.folds.parent.mkdir(parents=True)
    for file in (tried.workspace.folds, tried.workspace.search_result("xgboost")):
        file.write_text(file.name)
    log.finish(best, tried.workspace, None)
    closed = tracker.told[-1]
    assert (closed.metrics, closed.running, closed.n_folds) == (best.metrics, {}, 3)
    files = sorted(file.name for file in tried.workspace.run_files(closed.key).iterdir())
    assert files == ["config.yaml", "folds.csv", "xgboost.json"]
    assert {note.key for note in tracker.told} == {closed.key}


def test_a_search_whose_units_are_there_is_in_the_store_with_all_that_is_below_it(make):
    tried = make()
    finish(tried.units, lambda trial: 5 + 10 * trial.values["learning_rate"] // 2)
    refit = tried.refit(tried.choose(Progress(io.StringIO()))[1])
    finish([refit])
    (refit.folder / "card.json").write_text("{}")
    tried.workspace.folds.parent.mkdir(parents=True)
    tried.workspace.folds.write_text("zone_id")
    with Tracker(tried.workspace, tried.job.name) as tracker:
        tried.start(tracker)
        budget = search._TimeBudget(None, [[tried]])
        search._run_group([tried], None, tried.samples, Progress(io.StringIO()), budget)
    assert tracker.outcome() == []
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name(tried.job.name).experiment_id
    runs = {run.data.tags["cropray.key"]: run for run in client.search_runs([experiment])}
    kinds = Counter(run.data.tags["cropray.kind"] for run in runs.values())
    n_trees = len({title(result.params) for unit in tried.units for result in unit.results()})
    assert kinds == {"search": 1, "configuration": n_trees, "fold": 3 * n_trees}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    key = json.loads(tried.workspace.search_result("xgboost").read_text())["run"]
    assert runs[key].data.metrics["val_accuracy_mean"] == pytest.approx(0.7)
    files = {file.path for file in client.list_artifacts(runs[key].info.run_id)}
    assert files == {"config.yaml", "folds.csv", "xgboost.json"}


def fake(units, budget_s=50.0, n_batches=1):
    """A search with so many batches of units."""
    left = [n_batches - 1]

    def advance():
        left[0] -= 1
        return left[0] >= 0

    settings = SimpleNamespace(time_budget_s=budget_s)
    return SimpleNamespace(
        model="m", batch=units, advance=advance, left_out=[], n_not_proposed=0, job=SimpleNamespace(search=settings)
    )


def units(n, *, is_finished):
    return [SimpleNamespace(is_finished=is_finished) for _ in range(n)]


def test_finished_units_count_where_cpus_are_shared(monkeypatch):
    """A search that goes on computes on as many CPUs as it would have."""
    seen = []
    monkeypatch.setattr(search, "_run_units", lambda _, jobs, *__: seen.append(len(jobs)))
    both = [fake(units(4, is_finished=True)), fake(units(3, is_finished=False), n_batches=2)]
    both[1].n_not_proposed, log = 4, io.StringIO()
    search._run_batches(both, None, Progress(log), search._TimeBudget(None, [both]))
    assert seen == [7, 7]
    assert "(search.time_budget_s = 50): 4 trials were not proposed; run the search again" in log.getvalue()


def test_the_time_is_that_of_all_families_together(monkeypatch):
    """And each that has units to fit gets a part of it."""
    given = []

    def run_units(*arguments):
        given.append(arguments[-1])
        clock[0] += 10.0  # each is finished before its time is up

    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(search, "_run_units", run_units)
    done, *others = groups = [
        [fake(units(2, is_finished=is_finished), 90.0)] for is_finished in (True, False, False, False)
    ]
    budget = search._TimeBudget(90.0, groups)
    for group in (done, *others):
        search._run_batches(group, None, Progress(io.StringIO()), budget)
    assert given == [30.0, 40.0, 70.0]


def test_a_family_whose_time_is_up_leaves_the_others_theirs(monkeypatch):
    clock, given = [0.0], []

    def run_units(*arguments):
        given.append(arguments[-1])
        clock[0] += arguments[-1] + 1  # Tune ends them a little late

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(search, "_run_units", run_units)
    groups = [[fake(units(2, is_finished=False), 41.0, n_batches=5)] for _ in range(2)]
    budget = search._TimeBudget(41.0, groups)
    for group in groups:
        search._run_batches(group, None, Progress(io.StringIO()), budget)
    assert given == [20.5, 19.5]


@pytest.fixture
def predicted(monkeypatch):
    """Zones that were handed over to be predicted, which are then there."""
    zones = []

    def run_zone_tasks(stage, tasks, workspace, *_, **__):
        zones.append(
            [task.zone_id for task in tasks if not workspace.is_current(stage, task.zone_id, task.inputs, task.outputs)]
        )
        for task in tasks:
            task.outputs[0].parent.mkdir(parents=True, exist_ok=True)
            task.outputs[0].write_text("")
            workspace.mark_current(stage, task.zone_id, task.inputs)

    monkeypatch.setattr(out_of_fold, "run_zone_tasks", run_zone_tasks)
    monkeypatch.setattr(out_of_fold, "task_bytes", lambda: 1e9)
    return zones


def test_files_out_of_fold_that_are_of_nothing_any_more_are_removed(make, predicted):
    log = io.StringIO()
    tried = make()
    finish(tried.units)
    assert tried.write_out_of_fold(Progress(log)) == 3
    folder = tried.workspace.out_of_fold("xgboost", "k1").parent
    (folder / "gone.parquet").write_text("of a zone that was")
    write_json(tried.workspace.stamp("oof-xgboost", "gone"), {})
    tried.write_out_of_fold(Progress(log))
    assert {path.stem for path in folder.iterdir()} == {"k1", "k2", "k3"}
    assert not tried.workspace.stamp("oof-xgboost", "gone").exists()
    assert "are not of this search are removed (gone)" in log.getvalue()
    assert make(search={"oof_rows": 0}).write_out_of_fold(Progress(log)) == 0
    assert list(folder.iterdir()) == []
    assert predicted == [["k1", "k2", "k3"], []]


def test_what_cuts_a_model_to_its_steps_is_a_part_of_what_its_predictions_are_made_from(make, predicted, plant):
    tried = make()
    finish(tried.units)
    assert [one.group for one in tried.out_of_fold()] == ["search/xgboost/oof"] * 3
    assert {one.why_stale()[0] for one in tried.out_of_fold()} == {"missing"}
    tried.write_out_of_fold(Progress(io.StringIO()))
    assert [one.why_stale() for one in tried.out_of_fold()] == [[]] * 3
    prefix = family("xgboost").prefix
    path = f"{prefix.__module__.removeprefix('cropray.').replace('.', '/')}.py"
    plant(path, f"def {prefix.__name__}(", f"def {prefix.__name__}_other():\n    return 1\n\n\ndef {prefix.__name__}(")
    assert [one.why_stale() for one in tried.out_of_fold()] == [[]] * 3
    plant(path, "replace(model, n_steps=n_steps)", "replace(model, n_steps=n_steps + 1)")
    assert all(prefix.__name__ in one.why_stale()[0] for one in tried.out_of_fold())


def test_a_winner_s_decision_is_learnt_when_its_folds_have_predicted(make, predicted, monkeypatch):
    seen = []
    monkeypatch.setattr(family_search, "learn_of_winner", lambda *given: seen.append((given[2], len(predicted))))
    tried = make(decision={"rule": "prior"})
    finish(tried.units)
    tried.write_out_of_fold(Progress(io.StringIO()))
    assert seen == [("xgboost", 1)]
    assert [unit.folder for unit in tried.units] == [unit.folder for unit in make().units]  # nothing is fitted for it


def test_a_search_without_a_whole_configuration_has_nothing_out_of_fold(make):
    tried = make()
    finish(tried.units[:1])
    assert list(tried.out_of_fold()) == []


def test_predictions_of_folds_ask_for_the_gpu_that_they_take(make, monkeypatch, predicted):
    """Their tasks would wait for ever."""
    for module in ("cropray.stages.devices", "cropray.cluster.placement"):
        monkeypatch.setattr(f"{module}.live_nodes", lambda: [Node(4)])
    monkeypatch.setattr("cropray.cluster.placement.request_resources", lambda **_: None)
    made = job_of(map={"device": "cuda"}, search={"models": ["cnn"]})
    task = ZoneTask("k1", lambda: None, make().key, (made.artefacts.root / "none",), gpus=1)
    monkeypatch.setattr(out_of_fold, "_tasks", lambda *_: ([task], []))
    with pytest.raises(ConfigError, match=r"Set map\.device to cpu"):
        out_of_fold.write_of_winner(made, ZONES, "cnn", {}, Progress(io.StringIO()))
    assert predicted == []


def test_models_are_published_before_their_folds_predict_and_all_are_tried(monkeypatch):
    begun = []

    class Search:
        def __init__(self, model):
            self.model = model

        def write_out_of_fold(self, _):
            begun.append(self.model)
            if self.model == "cnn":
                raise StageFailedError("oof-cnn", {"k2": "no room"}, 2)
            return 3

    with pytest.raises(StageFailedError, match=r"1 failed, 5 finished\.\n  cnn out of fold, k2: no room"):
        search._write_out_of_fold([Search("cnn"), Search("xgboost")], Progress(io.StringIO()))
    assert begun == ["cnn", "xgboost"]


def test_predictions_stand_without_the_composites_that_they_were_made_of(tmp_path, predicted):
    """A dataset may be handed on without; what would be made otherwise now cannot be, and goes."""
    zones = replace(ZONES, source="parcels")
    made = job_of(workspace=tmp_path / "work", search={"models": ["xgboost"]})
    tried, log = FamilySearch(made, zones, "xgboost", Samples(made.artefacts, zones)), io.StringIO()
    finish(tried.units)
    for zone_id in ("k1", "k3"):
        made.artefacts.composite(zone_id).parent.mkdir(parents=True, exist_ok=True)
        made.artefacts.composite(zone_id).write_text("")
    assert tried.write_out_of_fold(Progress(log)) == 2
    assert "no out-of-fold probabilities of 1 zones without composite (k2)" in log.getvalue()
    made.artefacts.composite("k1").unlink()
    assert tried.write_out_of_fold(Progress(log)) == 2
    other = FamilySearch(made.model_copy(update={"seed": 9}), zones, "xgboost", tried.samples)
    finish(other.units)
    assert other.write_out_of_fold(Progress(log)) == 1
    assert predicted == [["k1", "k3"], [], ["k3"]]
    assert {path.stem for path in made.artefacts.out_of_fold("xgboost", "k1").parent.iterdir()} == {"k3"}
