"""One temperature, and what confidence is worth."""

from dataclasses import replace

import numpy as np
import pytest

from cropray.core.metrics import PROBABILITY_FLOOR
from cropray.search.calibration import MOST_T, calibration_error, learn_temperature, reliability, set_threshold
from cropray.search.decision import ENOUGH_OF_REGION, DecisionSettings, decision_in_words, learn_decision
from cropray.training.decision import Decision
from tests.search.drawn_predictions import SHARES, drawn


def loss_of(found, temperature):
    tempered = Decision(temperature=temperature).tempered(found.probabilities, 1).astype(float)
    of_truth = np.maximum(tempered[np.arange(len(found.labels)), found.labels], 1e-16)
    return -(found.weights * np.log(of_truth)).sum()


@pytest.mark.parametrize("sureness", [0.5, 1.0, 2.5])
def test_the_temperature_undoes_what_made_a_model_too_sure(sureness):
    found = drawn(6000, noise=1.2, sureness=sureness)
    learnt = learn_temperature(found.probabilities, found.labels, found.weights)
    assert learnt == pytest.approx(sureness, rel=0.06)
    tried = [loss_of(found, temperature) for temperature in np.geomspace(learnt / 2, learnt * 2, 201)]
    assert loss_of(found, learnt) <= min(tried) + 1e-3


def test_rows_of_no_use_leave_a_model_as_it_is():
    found = drawn(50)
    assert learn_temperature(found.probabilities[:0], found.labels[:0], found.weights[:0]) == 1.0
    wrong = np.eye(5, dtype=np.float32)[(found.labels + 1) % 5]
    assert learn_temperature(wrong, found.labels, found.weights) == pytest.approx(MOST_T)


def test_classes_that_a_fit_could_not_learn_say_nothing_of_it():
    found = drawn(3000, noise=1.2)
    untrained = SHARES.copy()
    untrained[2] = 0
    without = found.labels != 2
    wanted = learn_temperature(found.probabilities[without], found.labels[without], found.weights[without])
    lacking = type(found)(
        found.labels, found.probabilities, found.zones, found.weights, np.tile(untrained, (12, 1)), found.folds
    )
    record, _ = learn_decision(lacking, untrained, DecisionSettings(calibrate=True))
    assert record["temperature"] == wanted


def zones_of(n_zones, rng, n_rows=300):
    """Of each zone, the probabilities of the true class: some zones are far harder than others."""
    return [rng.beta(rng.uniform(0.6, 6.0), 1.0, n_rows) for _ in range(n_zones)]


@pytest.mark.parametrize(("n_zones", "coverage"), [(15, 0.8), (40, 0.9), (40, 0.95)])
def test_sets_hold_the_true_class_in_zones_that_nobody_has_seen(n_zones, coverage):
    rng, held = np.random.default_rng(7), []
    for _ in range(150):
        *known, new = zones_of(n_zones + 1, rng)
        names = np.repeat(np.arange(n_zones), 300)
        least = set_threshold(np.concatenate(known), names, np.ones(len(names)), coverage)
        held.append((new >= least).mean())
    error = np.std(held) / np.sqrt(len(held))
    assert coverage - 2 * error <= np.mean(held) <= coverage + 1 / n_zones + 3 * error  # and not for nothing


def test_zones_count_alike_and_the_new_one_for_the_worst():
    of_truth, zones = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]), np.array([0, 1, 1, 1, 1, 2, 2, 2])
    weights = np.array([5.0, 1, 1, 1, 1, 1, 1, 2])
    # Shares of 1/4 each for three zones and the new one: the new one and all of zone 0 make 1/2, then 1/16 each.
    for coverage, wanted in ((0.76, 0.0), (0.5, 0.2), (0.44, 0.2), (0.43, 0.3), (0.3, 0.5), (0.25, 0.6)):
        assert set_threshold(of_truth, zones, weights, coverage) == wanted
    assert set_threshold(of_truth[:0], zones[:0], weights[:0], 0.9) == 0.0


def test_what_sets_are_worth_is_told_of_other_folds():
    found = drawn(6000, n_zones=30, noise=1.2, sureness=2.0)
    record, _ = learn_decision(found, SHARES, DecisionSettings(calibrate=True, coverage=0.9))
    assert 0.9 <= record["sets"]["coverage"] < 0.96
    assert 1.0 < record["sets"]["classes"] < 3
    assert any("to hold the true one of 90% of a new zone's pixels" in line for line in decision_in_words(record))
    others = drawn(6000, noise=1.2, sureness=2.0, seed=3)
    tempered = Decision(temperature=record["temperature"]).tempered(others.probabilities, 1)
    is_in = Decision(set_threshold=record["set_threshold"]).in_sets(tempered)
    # Of all folds' zones the new one is a smaller part than of some: the threshold is less careful.
    assert 0.9 <= is_in[np.arange(6000), others.labels].mean() < record["sets"]["coverage"]
    few, _ = learn_decision(drawn(400, n_zones=4), SHARES, DecisionSettings(coverage=0.9))
    assert (few["set_threshold"], few["sets"]["classes"]) == (0.0, 5.0)


def test_confidence_by_tenths():
    confidence, is_right = np.array([0.31, 0.39, 0.95, 1.0, 0.92]), np.array([False, True, True, True, False])
    low, high = reliability(confidence, is_right, np.array([1.0, 3.0, 1.0, 1.0, 2.0]))
    assert (low.low, low.high, low.pixels) == pytest.approx((0.3, 0.4, 4))
    assert (low.confidence, low.accuracy) == pytest.approx(((0.31 + 3 * 0.39) / 4, 0.75))
    assert (high.pixels, high.confidence, high.accuracy) == pytest.approx((4, (0.95 + 1 + 2 * 0.92) / 4, 0.5))
    error = (abs(low.confidence - 0.75) + abs(high.confidence - 0.5)) / 2
    assert calibration_error([low, high]) == pytest.approx(error)
    assert calibration_error([]) == 0


def test_a_calibrated_model_is_right_as_often_as_it_says():
    record, tables = learn_decision(drawn(8000, noise=1.2, sureness=2.5), SHARES, DecisionSettings(calibrate=True))
    assert record["before"]["ece"] > 0.05
    assert record["after"]["ece"] < 0.02
    assert record["after"]["loss"] < record["before"]["loss"]
    assert all(
        abs(row["confidence"] - row["accuracy"]) < 0.1 for row in tables["reliability"]["after"] if row["pixels"] > 99
    )


def test_a_row_of_a_zone_counts_as_often_as_pixels_that_it_stands_for():
    rng = np.random.default_rng(3)
    of_truth, zones, times = rng.random(200), np.repeat(np.arange(20), 10), rng.integers(1, 9, 200)
    of_truth[times > 6] **= 3  # of seldom classes, which few rows tell of, another likelihood
    whole = set_threshold(np.repeat(of_truth, times), np.repeat(zones, times), np.ones(times.sum()), 0.8)
    assert set_threshold(of_truth, zones, times.astype(float), 0.8) == whole
    assert set_threshold(of_truth, zones, np.ones(200), 0.8) != whole


def of_unlike_folds(**changes):
    """Out of fold, one fold is far surer than it should be and the others are not sure enough."""
    found = drawn(6000, n_zones=18, noise=1.2, **changes)
    powers = found.probabilities.astype(np.float64) ** np.array([3.0, 0.8, 0.7])[found.folds[found.zones], None]
    return replace(found, probabilities=(powers / powers.sum(1, keepdims=True)).astype(np.float32))


def test_what_a_temperature_is_worth_is_told_of_rows_that_did_not_teach_it():
    found = of_unlike_folds()
    record, tables = learn_decision(found, SHARES, DecisionSettings(calibrate=True, coverage=0.8))
    assert record["temperature"] == learn_temperature(found.probabilities, found.labels, found.weights)
    loss, pixels, sure, right, held = 0.0, np.zeros(10), np.zeros(10), np.zeros(10), []
    for fold in range(3):
        here = found.folds[found.zones] == fold
        heat = learn_temperature(found.probabilities[~here], found.labels[~here], found.weights[~here])
        powers = found.probabilities.astype(np.float64) ** (1 / heat)
        tempered = powers / powers.sum(1, keepdims=True)
        of_truth = tempered[np.arange(6000), found.labels]
        least = set_threshold(of_truth[~here], found.zones[~here], found.weights[~here], 0.8)
        held.extend(of_truth[here] >= least)
        for p, label in zip(tempered[here], found.labels[here], strict=True):
            tenth = min(int(p.max() * 10), 9)
            loss -= np.log(max(p[label], PROBABILITY_FLOOR)) / 6000
            pixels[tenth], sure[tenth] = pixels[tenth] + 1, sure[tenth] + p.max()
            right[tenth] += p.argmax() == label
    assert record["after"]["loss"] == pytest.approx(loss, rel=1e-4)
    assert record["after"]["ece"] == pytest.approx(np.abs(sure - right).sum() / 6000, abs=1e-4)
    assert record["sets"]["coverage"] == pytest.approx(np.mean(held), abs=1e-3)
    assert sum(row["pixels"] for row in tables["reliability"]["after"]) == 6000
    of_the_shipped = loss_of(found, record["temperature"]) / 6000
    assert record["after"]["loss"] > of_the_shipped + 0.01  # which the rows taught that it is told of


def test_the_same_is_told_of_each_region():
    found = of_unlike_folds(regions=("hills", "plain", "coast"))  # in turn, as the folds: a region is a fold
    record, tables = learn_decision(found, SHARES, DecisionSettings(calibrate=True))
    regions = tables["reliability"]["regions"]
    assert list(regions) == ["coast", "hills", "plain"]
    for fold, name in enumerate(("hills", "plain", "coast")):
        here = found.folds[found.zones] == fold
        heat = learn_temperature(found.probabilities[~here], found.labels[~here], found.weights[~here])
        for when, temperature in (("before", 1.0), ("after", heat)):
            p = Decision(temperature=temperature).tempered(found.probabilities[here], 1)
            table = reliability(p.max(1).astype(float), p.argmax(1) == found.labels[here], found.weights[here])
            assert regions[name]["ece"][when] == pytest.approx(calibration_error(table), abs=1e-4)
            assert [row["pixels"] for row in regions[name][when]] == [row.pixels for row in table]
        assert regions[name]["rows"] == here.sum()
    assert regions["hills"]["ece"]["before"] > 1.5 * regions["plain"]["ece"]["before"]
    (line,) = (line for line in decision_in_words({**record, **tables}) if "by region" in line)
    worst = max(regions, key=lambda name: regions[name]["ece"]["after"])
    assert f"worst first: {worst} 0." in line
    assert f"({regions['coast']['rows']:,} rows)" in line


def test_a_region_of_few_rows_says_how_few_and_no_more():
    found = drawn(ENOUGH_OF_REGION * 3, n_zones=6, regions=("a", "b", "b", "b", "b", "b"))
    record, tables = learn_decision(found, SHARES, DecisionSettings(calibrate=True))
    n_rows = int((found.zones == 0).sum())
    assert tables["reliability"]["regions"]["a"] == {"rows": n_rows}
    assert "ece" in tables["reliability"]["regions"]["b"]
    assert any(f"too few rows to tell: a ({n_rows})" in line for line in decision_in_words({**record, **tables}))
    alone, tables = learn_decision(drawn(900, regions=("a",)), SHARES, DecisionSettings(calibrate=True))
    assert not any("by region" in line for line in decision_in_words({**alone, **tables}))
