"""The threshold below which a pixel is answered by its group: learnt so that classes that are kept are right in other zones."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from cropray.search.decision import DecisionSettings, decision_in_words, learn_decision
from cropray.search.fall_back import learn_fall_back, least_percent
from tests.search.drawn_predictions import SHARES, drawn

GROUPS = (0, 1, 0, 1, 1)
FOUND = drawn(3000, n_zones=15, noise=1.2)


def learnt(found=FOUND, groups=GROUPS, **asked):
    settings = DecisionSettings(**asked)
    card, _ = learn_decision(found, SHARES, settings)
    return {**card, "fall_back": {**learn_fall_back(found, card, settings, groups), "level": "level_1"}}


def obvious_percent(sure, is_right, zones, weights, share):
    """Threshold after threshold, zone after zone."""
    names = np.unique(zones)
    for threshold in range(101):
        keeps = sure >= threshold
        pixels = np.array([weights[keeps & (zones == zone)].sum() for zone in names])
        right = np.array([weights[keeps & is_right & (zones == zone)].sum() for zone in names])
        if (pixels > 0).sum() < min(5, len(names)):
            continue
        found = right.sum() / pixels.sum()
        off = (right - found * pixels) / pixels.mean()
        if found - off.std(ddof=1) / len(names) ** 0.5 >= share:
            return threshold
    return 101


@pytest.mark.parametrize("share", [0.3, 0.75, 0.9, 0.97, 0.999])
def test_the_threshold_is_the_obvious_one(share):
    rng = np.random.default_rng(4)
    zones, sure = rng.integers(0, 9, 900) * 3, rng.integers(20, 101, 900).astype(np.uint8)
    is_right, weights = rng.random(900) < sure / 100, rng.uniform(1, 30, 900)
    assert least_percent(sure, is_right, zones, weights, share) == obvious_percent(
        sure, is_right, zones, weights, share
    )


def test_a_handful_of_sure_rows_is_no_evidence():
    rng = np.random.default_rng(0)
    zones, sure = np.repeat(np.arange(8), 50), np.full(400, 60, np.uint8)
    is_right = rng.random(400) < 0.6
    sure[:30], is_right[:30] = 99, True  # of one zone
    assert least_percent(sure, is_right, zones, np.ones(400), 0.95) == 101
    assert least_percent(sure[:50], is_right[:50], zones[:50], np.ones(50), 0.95) == 0  # one zone tells nothing


def test_the_more_classes_are_to_be_right_the_fewer_are_kept():
    kept = []
    for share in (0.86, 0.9, 0.93, 0.97):
        record = learnt(fall_back=share)["fall_back"]
        kept.append(record["kept"])
        assert record["class_right"] > share - 0.01
        assert record["group_right"] > 0.5
    assert 1 > kept[0] > kept[1] > kept[2] > kept[3] > 0


def test_what_it_is_worth_is_told_by_what_other_folds_teach():
    """The third fold's model is sure and wrong: its own threshold would know, that of the others does not."""
    worse = FOUND.folds[FOUND.zones] == 2
    probabilities = FOUND.probabilities.copy()
    probabilities[worse] = np.roll(probabilities[worse], 1, axis=1)
    record = learnt(replace(FOUND, probabilities=probabilities), fall_back=0.9)["fall_back"]
    assert record["class_right"] < 0.8
    fair = learnt(fall_back=0.9)["fall_back"]
    assert (fair["class_right"] > 0.9) > (record["class_right"] > 0.9)
    keeps, right = np.zeros(3000, bool), FOUND.probabilities.argmax(1) == FOUND.labels
    sure = np.rint(100 * FOUND.probabilities.max(1)).astype(np.uint8)
    for fold in range(3):
        own = FOUND.folds[FOUND.zones] == fold
        others = sure[~own], right[~own], FOUND.zones[~own], FOUND.weights[~own]
        keeps[own] = sure[own] >= least_percent(*others, 0.9)
    assert (fair["kept"], fair["class_right"]) == pytest.approx((keeps.mean(), right[keeps].mean()))


def test_a_threshold_of_ones_own_goes_before():
    record = learnt(fall_back=0.99, fall_back_below=45)
    assert record["fall_back"]["below_percent"] == 45
    sure = np.rint(100 * FOUND.probabilities.max(1))
    assert record["fall_back"]["kept"] == pytest.approx((sure >= 45).mean())
    (line,) = decision_in_words(record)
    assert "below 45 % of confidence" in line
    assert "as given" in line
    for wrong in (0, 101):
        with pytest.raises(ValidationError, match="fall_back_below"):
            DecisionSettings(fall_back_below=wrong)


@pytest.mark.parametrize(
    ("found", "groups", "why"),
    [
        (drawn(900, n_zones=4), GROUPS, "900 rows of 4 zones are too few to learn from, 5 and 200 are needed: set decision"),
        (drawn(150, n_zones=9), GROUPS, "150 rows of 9 zones are too few"),
        (FOUND, (), "the legend has no groups between"),
    ],
)  # fmt: skip
def test_where_nothing_can_be_learnt_classes_are_kept_and_it_is_said(found, groups, why):
    record = learnt(found, groups, fall_back=0.9)
    assert record["fall_back"]["below_percent"] == 0
    (line,) = decision_in_words(record)
    assert "no pixel falls back" in line
    assert why in line


def test_more_than_the_model_can_do_keeps_no_class_and_it_is_said():
    found = drawn(2000, n_zones=10, noise=9.0)
    record = learnt(found, fall_back=0.95)
    assert record["fall_back"]["below_percent"] == 101
    assert (record["fall_back"]["kept"], record["fall_back"]["class_right"]) == (0, None)
    said = " ".join(decision_in_words(record))
    assert "all pixels are answered by their group; lower decision.fall_back" in said


def test_thresholds_are_of_what_people_are_told():
    """Tempered confidence, and the class that the rule decides for."""
    found = drawn(3000, n_zones=15, noise=1.2, sureness=3.0, pull=0.5)
    record = learnt(found, rule="prior", calibrate=True, fall_back=0.9)
    raw = learnt(found, fall_back=0.9)
    assert record["temperature"] > 1.5
    assert record["fall_back"]["below_percent"] < raw["fall_back"]["below_percent"]
    assert record["fall_back"]["class_right"] > 0.88
