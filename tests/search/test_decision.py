"""How a decision is learnt out of fold, against a slow and obvious version of the choice."""

import math
from dataclasses import replace

import numpy as np
import pytest

from cropray.search.calibration import learn_temperature
from cropray.search.decision import (
    MOST_LOST,
    TAUS,
    DecisionSettings,
    choose_tau,
    learn_decision,
    learnt_elsewhere,
    multipliers,
)
from tests.search.drawn_predictions import SHARES, drawn

PRIOR = DecisionSettings(rule="prior")


def obvious_scores(rows, zones):
    """(macro F1, accuracy) of [(zone, true, predicted, weight)], of some zones, over the classes that all rows hold."""
    here = [row for row in rows if row[0] in zones]
    f1s = []
    for k in sorted({true for _, true, _, _ in rows}):
        hits = sum(w for _, t, p, w in here if t == p == k)
        both = sum(w for _, t, _, w in here if t == k) + sum(w for _, _, p, w in here if p == k)
        f1s.append((2 * hits, both))
    right = sum(w for _, t, p, w in here if t == p) / sum(w for *_, w in here)
    return f1s, right


def obvious_tau(found):
    """The choice, pixel by pixel and zone by zone."""
    by_tau, zone_ids = [], sorted(set(found.zones.tolist()))
    for tau in TAUS:
        rows = []
        for i, zone in enumerate(found.zones.tolist()):
            known = [f if f > 0 else max(found.frequencies[zone]) for f in found.frequencies[zone]]
            favoured = [float(p / np.float32(f**tau)) for p, f in zip(found.probabilities[i], known, strict=True)]
            rows.append((zone, int(found.labels[i]), favoured.index(max(favoured)), float(found.weights[i])))
        by_tau.append(rows)
    f1, accuracy, pseudo = [], [], []
    for rows in by_tau:
        ratios, right = obvious_scores(rows, zone_ids)
        values = [over / under for over, under in ratios]
        f1.append(sum(values) / len(values))
        accuracy.append(right)
        without = []
        for zone in zone_ids:
            left, _ = obvious_scores(rows, [z for z in zone_ids if z != zone])
            each = [o / u if u else value for (o, u), value in zip(left, values, strict=True)]
            without.append((len(zone_ids) - 1) * (f1[-1] - sum(each) / len(each)))
        pseudo.append(without)

    def error_of(t, other):
        d = [a - b for a, b in zip(pseudo[t], pseudo[other], strict=True)]
        mean = sum(d) / len(d)
        return math.sqrt(sum((x - mean) ** 2 for x in d) / (len(d) - 1) / len(d))

    allowed = [a >= accuracy[0] - 0.01 and f1[t] >= f1[0] - error_of(t, 0) for t, a in enumerate(accuracy)]
    best = max((t for t in range(len(TAUS)) if allowed[t]), key=lambda t: (f1[t], -t))
    errors = sorted(error for t in range(len(TAUS)) if (error := error_of(t, best)) > 0)
    middle = len(errors) // 2
    error = math.inf  # all tell the same
    if errors:
        error = errors[middle] if len(errors) % 2 else (errors[middle - 1] + errors[middle]) / 2
    weight = [
        math.exp((f1[t] - f1[best]) / error - ((tau - 0.4) / 0.15) ** 2 / 2) if allowed[t] else 0.0
        for t, tau in enumerate(TAUS)
    ]
    mean = sum(w * tau for w, tau in zip(weight, TAUS, strict=True)) / sum(weight) * min(1, len(found.labels) / 200)
    nearest = min(range(len(TAUS)), key=lambda t: abs(TAUS[t] - mean))
    while not allowed[nearest]:
        nearest -= 1
    return TAUS[nearest]


@pytest.mark.parametrize(
    "case",
    [
        {"n_rows": 300, "noise": 1.2},
        {"n_rows": 300, "noise": 0.7, "seed": 4},
        {"n_rows": 130, "n_zones": 7, "noise": 1.5},
        {"n_rows": 250, "noise": 1.1, "sureness": 2.0},
        {"n_rows": 250, "noise": 1.0, "shares": np.full(5, 0.2)},
    ],
    ids=["hard", "easy", "few", "too sure", "even"],
)
def test_the_choice_is_the_obvious_one(case):
    found = drawn(**case)
    found = replace(found, weights=np.random.default_rng(1).integers(1, 9, len(found.labels)).astype(float))
    assert choose_tau(np.stack([found.counts(tau) for tau in TAUS]), len(found.labels)) == obvious_tau(found)


def test_seldom_classes_are_found_at_no_price():
    """Where frequent classes are favoured too much: on other rows of the same kind as well."""
    record, tables = learn_decision(drawn(4000, noise=1.3, pull=0.5), SHARES, PRIOR)
    assert 0.4 <= record["tau"] <= 0.6
    assert record["after"]["macro_f1"] > record["before"]["macro_f1"] + 0.02
    assert record["after"]["accuracy"] >= record["before"]["accuracy"]
    assert record["other_folds"]["macro_f1"] > record["before"]["macro_f1"] + 0.02
    assert record["multipliers"] == pytest.approx(SHARES ** -record["tau"])
    assert [row["tau"] for row in tables["taus"]] == list(TAUS)
    others = drawn(6000, noise=1.3, pull=0.5, seed=9)
    plain, ruled = (others.scores(others.counts(tau)) for tau in (0.0, record["tau"]))
    assert ruled["macro_f1"] > plain["macro_f1"] + 0.02


def test_accuracy_is_never_paid_with():
    """Probabilities of a model that is far too unsure: any tau soon takes the wrong class."""
    for sureness in (0.15, 0.3, 0.5):
        record, _ = learn_decision(drawn(3000, noise=0.9, sureness=sureness), SHARES, PRIOR)
        assert record["after"]["accuracy"] >= record["before"]["accuracy"] - MOST_LOST
        assert record["tau"] < 0.4


def test_a_model_that_was_trained_with_balanced_classes_wants_none():
    found = drawn(20_000, n_zones=30, noise=1.0)
    balanced = found.probabilities / SHARES.astype(np.float32) ** 0.5
    found = replace(found, probabilities=balanced / balanced.sum(1, keepdims=True))
    assert learn_decision(found, SHARES, PRIOR)[0]["tau"] <= 0.1


def test_few_rows_learn_little():
    taus = [learn_decision(drawn(n, noise=1.3, pull=0.5), SHARES, PRIOR)[0]["tau"] for n in (20, 60, 4000)]
    assert taus[0] <= 0.05
    assert taus[0] <= taus[1] < taus[2]


def test_the_likeliest_class_needs_no_choice():
    record, tables = learn_decision(drawn(500), SHARES, DecisionSettings(calibrate=True))
    assert (record["tau"], record["multipliers"], record["other_folds"]) == (0.0, [], None)
    assert len(tables["taus"]) == 1
    assert record["before"]["macro_f1"] == record["after"]["macro_f1"]


def test_a_class_that_no_fit_saw_is_favoured_least():
    assert multipliers(np.array([0.5, 0.0, 0.1]), 0.5) == pytest.approx([2**0.5, 2**0.5, 10**0.5])
    assert multipliers(np.array([0.5, 0.0, 0.1]), 0.0) == ()


def test_rows_stand_for_the_pixels_that_they_were_drawn_of():
    """As if each had been written as often."""
    found = drawn(400, noise=1.2)
    times = np.random.default_rng(2).integers(1, 6, len(found.labels))
    repeated = replace(
        found,
        **{name: np.repeat(getattr(found, name), times, 0) for name in ("labels", "probabilities", "zones", "weights")},
    )
    weighted, _ = learn_decision(replace(found, weights=times.astype(float)), SHARES, PRIOR)
    wanted, _ = learn_decision(repeated, SHARES, PRIOR)
    assert weighted["tau"] == wanted["tau"]
    for when in ("before", "after"):
        assert weighted[when] == pytest.approx(wanted[when])


def test_each_zone_is_decided_by_what_its_own_fit_was_trained_on():
    found = drawn(300, n_zones=2)
    other = np.array([0.2, 0.2, 0.2, 0.2, 0.2])
    changed = replace(found, frequencies=np.stack([SHARES, other]))
    decided, plain = changed.decided(0.5), found.probabilities.argmax(1)
    np.testing.assert_array_equal(decided[found.zones == 0], found.decided(0.5)[found.zones == 0])
    np.testing.assert_array_equal(decided[found.zones == 1], plain[found.zones == 1])


def test_other_folds_choose_for_a_fold():
    """The score that is promised is of zones that had no part in the choice."""
    found = drawn(900, noise=1.2)
    record, _ = learn_decision(found, SHARES, PRIOR)
    cubes, summed = {tau: found.counts(tau) for tau in TAUS}, np.zeros((5, 5))
    for fold in range(3):
        others = found.folds != fold
        n_rows = int(others[found.zones].sum())
        tau = choose_tau(np.stack([cubes[tau][others] for tau in TAUS]), n_rows)
        summed += cubes[tau][~others].sum(0)
    assert record["other_folds"]["accuracy"] == pytest.approx(np.diag(summed).sum() / summed.sum())


def test_a_single_zone_and_a_single_fold_are_no_error():
    record, _ = learn_decision(drawn(500, n_zones=1), SHARES, DecisionSettings(rule="prior", calibrate=True))
    assert record["tau"] in TAUS
    assert record["other_folds"]["accuracy"] == record["before"]["accuracy"]


def test_what_other_folds_choose_can_be_counted_pixel_by_pixel():
    found, rule = drawn(900, pull=0.6, seed=3), DecisionSettings(rule="prior")
    card, _ = learn_decision(found, SHARES, rule)
    predicted = learnt_elsewhere(found, rule).predicted
    assert (predicted == found.labels).mean() == pytest.approx(card["other_folds"]["accuracy"])
    assert (predicted != found.decided(0.0)).any()
    np.testing.assert_array_equal(learnt_elsewhere(found, DecisionSettings()).predicted, found.decided(0.0))


def test_what_other_folds_choose_is_tempered_before_it_decides():
    """As maps do: a temperature of the other folds, then a power of the frequencies."""
    found, rule = drawn(1500, sureness=2.5, pull=0.5, seed=4), DecisionSettings(rule="prior", calibrate=True)
    expected = np.empty(len(found.labels), np.int64)
    for fold in range(3):
        rows = found.folds[found.zones] == fold
        heat = learn_temperature(found.probabilities[~rows], found.labels[~rows], found.weights[~rows])
        powers = found.probabilities.astype(np.float64) ** (1 / heat)
        tempered = replace(found, probabilities=(powers / powers.sum(1, keepdims=True)).astype(np.float32))
        cubes = np.stack([tempered.counts(tau) for tau in TAUS])
        expected[rows] = tempered.decided(choose_tau(cubes[:, found.folds != fold], int((~rows).sum())))[rows]
    got = learnt_elsewhere(found, rule).predicted
    np.testing.assert_array_equal(got, expected)
    assert (got != learnt_elsewhere(found, DecisionSettings(rule="prior")).predicted).any()
