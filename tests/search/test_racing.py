"""What is clearly worse goes no further; what could win, does; and the same again from what was kept."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import ray

from cropray.core.intervals import MIN_ZONES
from cropray.search.fit import SearchData, fit_unit
from cropray.search.racing import LEAST, ZONES_FILE, Race, worth, write_zone_counts
from cropray.search.results import (
    RESULT_FILE,
    ConfigurationResult,
    FoldResult,
    group_by_configuration,
    merit,
    save_results,
    winner,
)
from cropray.search.run import UnitJob
from cropray.search.space import Trial, Unit
from cropray.training.family import family
from cropray.training.forest.settings import ForestSettings
from tests.search.test_fit import CNN, POINT, zones
from tests.synthetic import entry, manifest
from tests.training.tree_rows import LEGEND, draw_rows

OBJECTIVE = "val_macro_f1"
N_FOLDS, N_CLASSES, N_PIXELS = 3, 4, 150


class Field:
    """A drawn search: how right each configuration is, by zones that are hard or easy for all of them."""

    def __init__(self, folder, right, seed=0, n_zones=7, own=0.02):
        """Args: right: trial → share of right pixels of each of its configurations; own: what is a trial's luck in a zone."""
        self.folder = folder
        self.trials = [Trial({"max_depth": i + 1}, tuple(range(10, 10 + len(each)))) for i, each in enumerate(right)]
        self.right = right
        self.rng_of = lambda *which: np.random.default_rng([seed, *which])
        self.n_zones = n_zones
        self.own = own
        self.fitted = Counter()

    def unit(self, trial, fold):
        folder = self.folder / f"{trial.values['max_depth']}-{fold}"
        return UnitJob(Unit("xgboost", trial, fold), folder, folder.with_suffix(".progress"))

    def fit(self, jobs, *, is_counted=True):
        for job in jobs:
            if job.is_finished:
                continue
            number, fold = job.unit.trial.values["max_depth"] - 1, job.unit.fold
            self.fitted[number] += 1
            hard = self.rng_of(0, fold).normal(0, 0.08, self.n_zones)
            cubes = np.stack([self._cube(share - hard, number, fold) for share in self.right[number]])
            results = [
                FoldResult({"max_depth": number + 1, "n_estimators": step}, fold, 1.0, tuple(map(tuple, cube.sum(0).tolist())), (), step, 1.0)
                for step, cube in zip(job.unit.trial.steps, cubes, strict=True)
            ]  # fmt: skip
            job.folder.mkdir(parents=True)
            save_results(job.folder / RESULT_FILE, results)
            if is_counted and fold < N_FOLDS - 1:
                np.save(job.folder / ZONES_FILE, cubes)

    def _cube(self, shares, number, fold):
        rng, cube = self.rng_of(1, number, fold), np.zeros((self.n_zones, N_CLASSES, N_CLASSES), np.int64)
        for zone, share in enumerate(np.clip(shares + rng.normal(0, self.own, self.n_zones), 0.05, 0.99)):
            for true, n in enumerate(self.rng_of(2, fold, zone).multinomial(N_PIXELS, [0.5, 0.3, 0.15, 0.05])):
                wrong = [(1 - share) / (N_CLASSES - 1)] * N_CLASSES
                wrong[true] = share
                cube[zone, true] = rng.multinomial(n, np.array(wrong) / sum(wrong))
        return cube

    def race(self, **how):
        return Race(**{"objective": OBJECTIVE, "n_folds": N_FOLDS, "unit": self.unit, "seed": 0, "is_on": True, **how})

    def run(self, race, trials=None):
        for jobs in race.rounds(self.trials if trials is None else trials):
            self.fit(jobs)
        return race

    def winner(self):
        """Of the configurations with all folds, as a search chooses it."""
        jobs = [self.unit(trial, fold) for fold in range(N_FOLDS) for trial in self.trials]
        found = group_by_configuration(r for job in jobs if job.is_finished for r in job.results())
        return winner([each for each in found if len(each.folds) == N_FOLDS], OBJECTIVE)


@pytest.mark.parametrize("seed", range(12))
def test_the_winner_is_that_of_an_exhaustive_search(tmp_path, seed):
    right = [[0.86], [0.55], [0.85, 0.87], [0.8], [0.7, 0.6], [0.845], [0.4]]
    raced, whole = (Field(tmp_path / name, right, seed) for name in ("raced", "whole"))
    race = raced.run(raced.race())
    whole.run(whole.race(is_on=False))
    assert raced.winner() == whole.winner()
    assert whole.fitted == dict.fromkeys(range(len(right)), N_FOLDS)
    # Those that are far behind are dropped at once, those that are close never.
    assert [raced.fitted[i] for i in (1, 6)] == [1, 1]
    assert raced.fitted[4] < N_FOLDS
    assert [raced.fitted[i] for i in (0, 2)] == [N_FOLDS] * 2
    assert {each["trial"].split()[0] for each in race.dropped} >= {"max_depth=2", "max_depth=5", "max_depth=7"}


def test_what_was_dropped_and_why_is_told(tmp_path):
    field = Field(tmp_path, [[0.9], [0.5, 0.6]])
    race = field.run(field.race())
    (dropped,) = race.dropped
    assert dropped["trial"] == "max_depth=2 n_estimators=10/11"
    assert (dropped["after_folds"], dropped["zones"]) == (1, 7)
    assert dropped["leader"] == {"max_depth": 1, "n_estimators": 10}
    better = (
        field.unit(field.trials[1], 0).results()[1].scores.macro_f1
    )  # of its configurations the one that is less worse
    assert dropped["difference"] == pytest.approx(better - field.unit(field.trials[0], 0).results()[0].scores.macro_f1)
    assert dropped["interval"][0] < dropped["interval"][1] < 0
    assert race.news[0].startswith(
        "dropped after 1 of 3 folds: max_depth=2 n_estimators=10/11; its val_macro_f1 is -0."
    )
    assert race.news[1] == ("race after 1 of 3 folds: 1 of 2 trials go on; the leader is max_depth=1 n_estimators=10")


def test_no_zones_no_verdict(tmp_path):
    """Of too few zones nobody knows, however large the difference is; those of two folds may be enough."""
    field = Field(tmp_path, [[0.9], [0.4]], n_zones=MIN_ZONES - 1)
    race = field.run(field.race())
    assert [each["after_folds"] for each in race.dropped] == [2]
    assert field.fitted == {0: 3, 1: 2}


def test_a_trial_lives_by_its_best_prefix(tmp_path):
    field = Field(tmp_path, [[0.9], [0.3, 0.895, 0.5]])
    assert field.run(field.race()).dropped == []


def test_hardly_worse_is_not_clearly_worse(tmp_path):
    """However sure: less than `LEAST` on the zones of one fold says little of the next one."""
    field = Field(tmp_path, [[0.9], [0.9 - LEAST / 2]], own=0.0, n_zones=400)
    assert field.run(field.race()).dropped == []


def test_a_race_that_goes_on_ends_as_one_that_ran_through(tmp_path):
    right = [[0.86], [0.55], [0.85], [0.8], [0.7]]
    through, stopped = (Field(tmp_path / name, right) for name in ("through", "stopped"))
    whole = through.run(through.race())
    for n_finished in range(1, 12, 2):  # stopped again and again, in the middle of a fold
        for jobs in (race := stopped.race()).rounds(stopped.trials):
            unfinished = [job for job in jobs if not job.is_finished]
            stopped.fit(unfinished[:n_finished])
            if len(unfinished) > n_finished:
                break
    race = stopped.run(stopped.race())
    assert race.dropped == whole.dropped
    assert stopped.fitted == through.fitted
    assert stopped.winner() == through.winner()


def test_what_may_come_is_known(tmp_path):
    field = Field(tmp_path, [[0.9], [0.4], [0.89]])
    race = field.race()
    ahead = []
    for jobs in race.rounds(field.trials):
        ahead.append([(job.unit.trial.values["max_depth"], job.unit.fold) for job in race.ahead])
        field.fit(jobs)
    assert ahead == [[(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)], [(1, 2), (3, 2)], []]


def test_fits_that_were_made_without_racing_go_on_uncompared(tmp_path):
    field = Field(tmp_path, [[0.9], [0.4]])
    field.fit([field.unit(field.trials[1], 0)], is_counted=False)
    assert field.run(field.race()).dropped == []


def test_proposals_run_against_those_of_earlier_batches(tmp_path):
    field = Field(tmp_path, [[0.9], [0.85], [0.5], [0.6]])
    race = field.race()
    field.run(race, field.trials[:2])
    field.run(race, [field.trials[2], field.trials[0], field.trials[3], field.trials[2]])
    assert [each["trial"] for each in race.dropped] == ["max_depth=3 n_estimators=10", "max_depth=4 n_estimators=10"]
    assert race.ahead == []
    assert field.fitted == {0: 3, 1: 3, 2: 1, 3: 1}


def test_what_a_dropped_trial_is_worth_is_measured_on_its_own_folds():
    """One fold may be easier than all: its mean there would compare with nobody's."""
    fold = lambda n, hits: FoldResult({}, n, 1.0, ((hits, 10 - hits), (10 - hits, hits)), (), 1, 1.0)  # noqa: E731
    best = ConfigurationResult({}, (fold(0, 9), fold(1, 6), fold(2, 6)))
    dropped = ConfigurationResult({}, (fold(0, 8),))
    assert worth(dropped, best, "val_accuracy") == pytest.approx(0.7 - 0.1)
    assert worth(best, best, "val_accuracy") == pytest.approx(merit(best, "val_accuracy"))


REGIONS = {"a_1": 0, "a_2": 1, "b_1": 1, "b_2": 0}


def trees():
    """(data of a fold's fits, a unit whose prefixes are two configurations)."""
    _, of_zones = zones(**REGIONS)
    rows = {z: draw_rows(i, of_zones.labelled([z])[z]) for i, z in enumerate(REGIONS)}
    counts = {z: Counter(LEGEND.names[label] for label in rows[z]["label"].to_pylist()) for z in REGIONS}
    four = manifest(*(entry(z, fold, counts[z], region=z[:1]) for z, fold in REGIONS.items()), names=LEGEND.names)
    return SearchData(family("forest"), four, ForestSettings(), rows, 0), Unit("forest", Trial({}, (2, 5)), 1)


def test_zones_of_trees_add_up_to_what_the_fold_counted(tmp_path):
    data, unit = trees()
    results = fit_unit(unit, tmp_path, data)
    write_zone_counts(unit, tmp_path, data, results)
    cubes = np.load(tmp_path / ZONES_FILE)
    assert cubes.shape[:2] == (2, 2)
    assert [cube.sum(0).tolist() for cube in cubes] == [result.matrix.tolist() for result in results]
    assert cubes[0].sum((1, 2)).tolist() == [data.blocks[zone].num_rows for zone in ("a_2", "b_1")]


def test_zones_of_networks_add_up_to_what_the_fold_counted(tmp_path):
    tiles, of_zones = zones(**REGIONS)
    unit, data = Unit("cnn", POINT, 0), SearchData(family("cnn"), of_zones, CNN, tiles, 3)
    (result,) = fit_unit(unit, tmp_path, data)
    write_zone_counts(unit, tmp_path, data, [result])
    (cube,) = np.load(tmp_path / ZONES_FILE)
    assert cube.sum(0).tolist() == result.matrix.tolist()
    assert cube.sum((1, 2)).tolist() == list(of_zones.labelled(["a_1", "b_2"]).values())


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_zones_are_counted_in_tasks_where_a_trial_has_no_cpu(tmp_path):
    data, unit = trees()
    results = fit_unit(unit, tmp_path, data)
    write_zone_counts(unit, tmp_path, data, results)
    here = np.load(tmp_path / ZONES_FILE)
    far = {zone: ray.put(rows) for zone, rows in data.blocks.items()}
    settings = data.settings.model_copy(update={"num_workers": 2})
    write_zone_counts(unit, tmp_path, replace(data, blocks=far, settings=settings), results)
    assert (np.load(tmp_path / ZONES_FILE) == here).all()
