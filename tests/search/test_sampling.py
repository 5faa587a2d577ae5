"""Trials that are proposed by what earlier ones scored: the same again with the same scores."""

import builtins
import math

import pytest

from cropray.core.errors import ConfigError
from cropray.search.sampling import batches
from cropray.training.family import family
from tests.search.test_space import job

SPACE = {
    "learning_rate": {"low": 1e-3, "high": 1.0, "log": True},
    "max_depth": {"low": 2, "high": 12},
    "n_estimators": [20, 40, 80],
}


def proposals(score, seed=0, **search):
    found = job(search={"sampler": "tpe", "n_trials": 30, "batch": 5, "xgboost": SPACE, **search}, seed=seed)
    return list(batches(family("xgboost"), found.settings_of("xgboost"), found.search, seed, score))


def near_a_tenth(trial):
    """Best at a rate of 0.1 and depth 5."""
    return -abs(math.log10(trial.values["learning_rate"]) + 1) - abs(trial.values["max_depth"] - 5) / 10


def test_batches_have_their_size_and_their_number():
    found = proposals(near_a_tenth, n_trials=12)
    assert [len(batch) for batch in found] == [5, 5, 2]
    for trial in (trial for batch in found for trial in batch):
        assert 1e-3 <= trial.values["learning_rate"] <= 1
        assert isinstance(trial.values["max_depth"], int)
        assert trial.steps[0] in (20, 40, 80)


def test_the_same_scores_propose_the_same():
    """So a search that goes on finds its finished units, though no state was kept."""
    assert proposals(near_a_tenth) == proposals(near_a_tenth)
    assert proposals(near_a_tenth) != proposals(near_a_tenth, seed=1)


def test_later_proposals_are_better_ones():
    found = proposals(near_a_tenth, n_trials=60)
    early, late = (sum(near_a_tenth(trial) for batch in part for trial in batch) for part in (found[:2], found[-2:]))
    assert late > early / 2  # both are below 0


def test_a_batch_waits_for_the_one_before():
    found = job(search={"sampler": "tpe", "n_trials": 4, "batch": 2, "xgboost": SPACE})
    scored = []
    waiting = batches(
        family("xgboost"), found.settings_of("xgboost"), found.search, 0, lambda t: scored.append(t) or 0.5
    )
    first = next(waiting)
    assert scored == []
    next(waiting)
    assert scored == first
    assert next(waiting, None) is None


def test_without_optuna_it_is_said_what_to_install(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest, **named):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigError, match=r"pip install 'cropray\[tpe\]'"):
        proposals(near_a_tenth)


def test_all_trials_of_a_grid_come_at_once():
    found = job(search={"xgboost": {"learning_rate": [0.1, 0.2], "max_depth": [3, 4]}})
    (batch,) = batches(family("xgboost"), found.settings_of("xgboost"), found.search, 0, lambda _: 0.0)
    assert len(batch) == 4
