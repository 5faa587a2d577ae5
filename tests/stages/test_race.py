"""A search that races: what is fitted, what is recorded, and what makes it out of date; nothing is fitted, no Ray."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from cropray.core.progress import Progress
from cropray.io.storage import write_json
from cropray.search.fit import configuration_of, unit_zones
from cropray.search.racing import ZONES_FILE
from cropray.search.results import RESULT_FILE, FoldResult, save_results
from cropray.search.space import Trial
from cropray.stages import family_search
from cropray.stages.family_search import FamilySearch
from cropray.stages.samples import Samples
from cropray.stages.search_verdict import Searched
from cropray.training.family import family
from tests.search.test_space import job as job_of
from tests.synthetic import entry, manifest

ZONES = manifest(*(entry(f"k{i:02}", i % 3) for i in range(18)), entry("t1", None), source="points", n_folds=3)
RATES = (0.1, 0.2, 0.3, 0.4)
GOOD = {0.1: 0.5, 0.2: 0.9, 0.3: 0.895, 0.4: 0.6}  # learning rate → share of right pixels


@pytest.fixture
def make(tmp_path):
    def make(**search):
        of = {"models": ["xgboost"], "racing": True, "xgboost": {"learning_rate": list(RATES), "n_estimators": [30]}}
        made = job_of(workspace=tmp_path / "work", search={**of, **search})
        return FamilySearch(made, ZONES, "xgboost", Samples(made.artefacts, ZONES))

    return make


def finish(jobs):
    """Write units as if they had been fitted, with what they counted zone by zone."""
    for job in jobs:
        unit, share = job.unit, GOOD[job.unit.trial.values["learning_rate"]]
        n_zones = 0 if unit.fold is None else len(unit_zones(unit, ZONES)[1])
        hits = [round(1000 * (share + 0.01 * (i % 3))) for i in range(n_zones)]
        cube = np.array([[[n, 1000 - n], [1000 - n, n]] for n in hits], np.int64).reshape(-1, 2, 2)
        params = configuration_of(family("xgboost"), unit.trial, 30)
        matrix = tuple(map(tuple, cube.sum(0).tolist())) if n_zones else ((1, 0), (0, 1))
        job.folder.mkdir(parents=True, exist_ok=True)
        np.save(job.folder / ZONES_FILE, cube[None])
        save_results(job.folder / RESULT_FILE, [FoldResult(params, unit.fold or 0, 1.0, matrix, (), 30, 1.0)])


def rates_and_folds(jobs):
    return [(job.unit.trial.values["learning_rate"], job.unit.fold) for job in jobs]


def run(tried):
    batches = [rates_and_folds(tried.batch)]
    finish(tried.batch)
    while tried.advance():
        batches.append(rates_and_folds(tried.batch))
        finish(tried.batch)
    return batches


def publish(tried, monkeypatch):
    log = io.StringIO()
    configurations, best = tried.choose(Progress(log))
    refit = tried.refit(best)
    finish([refit])
    write_json(refit.folder / "card.json", {})
    tried.log = SimpleNamespace(search=SimpleNamespace(key="run"))
    monkeypatch.setattr(tried, "_region_out", lambda _: None)
    tried.publish(refit, {}, configurations, best, Progress(io.StringIO()))
    return json.loads(tried.workspace.search_result("xgboost").read_text()), log.getvalue()


def verdict(tried):
    return Searched(tried.job, ZONES, "xgboost", tried.key, tried.planned, tried.is_finished).why_stale()


def test_trials_go_from_fold_to_fold_and_the_record_says_which_did_not(make, monkeypatch):
    tried = make()
    assert run(tried) == [[(rate, 0) for rate in RATES], [(0.2, 1), (0.3, 1)], [(0.2, 2), (0.3, 2)]]
    result, told = publish(tried, monkeypatch)
    assert [(each["trial"], each["after_folds"]) for each in result["dropped"]] == [
        ("learning_rate=0.1 n_estimators=30", 1),
        ("learning_rate=0.4 n_estimators=30", 1),
    ]
    assert result["best"] == {"learning_rate": 0.2, "n_estimators": 30}
    assert len(result["configurations"]) == 2
    assert result["warnings"] == []  # 0.1 was searched and dropped: nobody need look below 0.2
    assert (len(result["units"]), result["left_out"]) == (8, [])
    assert "xgboost  dropped after 1 of 3 folds: learning_rate=0.1 n_estimators=30; its val_macro_f1 is -0.4" in told
    assert "race after 1 of 3 folds: 2 of 4 trials go on; the leader is n_estimators=30 learning_rate=0.2" in told


def test_a_race_that_was_run_is_up_to_date_and_says_what_it_dropped_again(make, monkeypatch):
    tried = make()
    run(tried)
    before, _ = publish(tried, monkeypatch)
    again = make()
    assert again.is_finished()
    assert verdict(again) == []
    after, told = publish(again, monkeypatch)
    assert after == before
    assert told.count("dropped after") == 2


def test_a_race_that_is_switched_on_or_off_says_so(make, monkeypatch):
    tried = make()
    run(tried)
    publish(tried, monkeypatch)
    off = make(racing=False)
    assert rates_and_folds(unit for unit in off.units if not unit.is_finished) == [
        (rate, fold) for rate in (0.1, 0.4) for fold in (1, 2)
    ]
    assert verdict(off)[0] == "setting search.racing was true, is false"
    assert not any("search.xgboost" in why for why in verdict(off))
    finish(off.units)
    off.advance()
    publish(off, monkeypatch)
    assert verdict(make()) == ["setting search.racing was false, is true"]


def test_a_race_whose_time_was_up_knows_what_it_lacks(make, monkeypatch):
    """Folds to which trials may come count as well; which ones are dropped is not known yet."""
    tried = make(sampler="random", n_trials=4, time_budget_s=60)
    assert rates_and_folds(tried.planned) == [(rate, 0) for rate in (r for r, _ in rates_and_folds(tried.units))] + [
        (rate, fold) for rate, _ in rates_and_folds(tried.units) for fold in (1, 2)
    ]
    finish(tried.batch)
    tried.advance()
    finish(tried.batch)
    tried.advance()
    finish(tried.batch[:1])
    result, _ = publish(tried, monkeypatch)
    assert len(result["left_out"]) == len(tried.batch) - 1
    if result["left_out"]:
        assert verdict(make(sampler="random", n_trials=4, time_budget_s=60))[0].startswith("its time was up")


def test_proposals_are_told_what_dropped_ones_are_worth(make, monkeypatch):
    told = []

    def batches(*given):
        for rates in ((0.2, 0.1), (0.3, 0.4)):
            batch = [Trial({"learning_rate": rate}, (30,)) for rate in rates]
            yield batch
            told.extend(given[-1](trial) for trial in batch)

    monkeypatch.setattr(family_search, "batches", batches)
    tried = make(sampler="tpe", n_trials=4, batch=2)
    fitted = run(tried)
    assert fitted == [
        [(0.2, 0), (0.1, 0)], [(0.2, 1)], [(0.2, 2)], [(0.3, 0), (0.4, 0)], [(0.3, 1)], [(0.3, 2)],
    ]  # fmt: skip
    of = dict(zip((0.2, 0.1, 0.3, 0.4), told, strict=True))
    assert sorted(of, key=of.get) == [0.1, 0.4, 0.3, 0.2]
    assert of[0.2] - of[0.1] == pytest.approx(GOOD[0.2] - GOOD[0.1], abs=1e-9)


def test_what_has_no_intervals_is_no_objective_of_a_race(make):
    with pytest.raises(ValidationError, match=r"val_loss has not: set objective to val_accuracy.*, or racing to false"):
        make(objective="val_loss")
