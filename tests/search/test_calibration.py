"""One temperature, and what confidence is worth."""

import numpy as np
import pytest

from cropray.search.calibration import MOST_T, calibration_error, learn_temperature, reliability
from cropray.search.decision import DecisionSettings, learn_decision
from cropray.training.decision import Decision
from tests.search.drawn_predictions import SHARES, drawn


def loss(found, temperature):
    tempered = Decision(temperature=temperature).tempered(found.probabilities, 1).astype(float)
    of_truth = np.maximum(tempered[np.arange(len(found.labels)), found.labels], 1e-16)
    return -(found.weights * np.log(of_truth)).sum()


@pytest.mark.parametrize("sureness", [0.5, 1.0, 2.5])
def test_the_temperature_undoes_what_made_a_model_too_sure(sureness):
    found = drawn(6000, noise=1.2, sureness=sureness)
    learnt = learn_temperature(found.probabilities, found.labels, found.weights)
    assert learnt == pytest.approx(sureness, rel=0.06)
    tried = [loss(found, temperature) for temperature in np.geomspace(learnt / 2, learnt * 2, 201)]
    assert loss(found, learnt) <= min(tried) + 1e-3


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
