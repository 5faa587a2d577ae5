"""What sets of classes and flags promise of a new zone, simulated: zones are unlike, and pixels of one zone err together."""

from dataclasses import replace

import numpy as np
import pytest

from cropray.search.calibration import set_threshold
from cropray.search.decision import DecisionSettings, OutOfFold, learnt_elsewhere
from cropray.search.likeness import learn_likeness
from tests.search.drawn_predictions import drawn
from tests.search.test_likeness import draw_pixels

pytestmark = pytest.mark.nightly
N_CLASSES, N_ROWS = 4, 40  # of a zone


def within(n_hits, n, low, high):
    """Whether so many hits of n independent ones are what a chance from `low` to `high` gives, to 4 standard deviations."""
    below, above = (4 * np.sqrt(n * p * (1 - p)) for p in (low, high))
    return n * low - below <= n_hits <= n * high + above


def draw_zones(n_zones, rng):
    """(labels, probabilities, zones, weights): a zone's pixels share how hard it is, and which class it is taken for."""
    zones = np.repeat(np.arange(n_zones), N_ROWS)
    labels = rng.integers(0, N_CLASSES, len(zones))
    hard, pull = rng.normal(1.5, 1.2, n_zones), rng.normal(0, 1.2, (n_zones, N_CLASSES))
    logits = pull[zones] + rng.normal(0, 0.7, (len(zones), N_CLASSES))
    logits[np.arange(len(zones)), labels] += hard[zones]
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return labels, powers / powers.sum(1, keepdims=True), zones, rng.lognormal(0, 1, n_zones)[zones]


@pytest.mark.parametrize(("n_zones", "coverage"), [(9, 0.8), (20, 0.9), (60, 0.9), (60, 0.95)])
def test_sets_hold_the_true_class_of_a_new_zones_pixel(n_zones, coverage):
    """A pixel of a new zone is one trial; of many landscapes, trials are independent."""
    rng, n, hits = np.random.default_rng(n_zones), 1500, 0
    for _ in range(n):
        labels, p, zones, weights = draw_zones(n_zones + 1, rng)
        of_truth, known = p[np.arange(len(labels)), labels], zones < n_zones
        new = rng.choice(np.flatnonzero(~known))
        hits += of_truth[new] >= set_threshold(of_truth[known], zones[known], weights[known], coverage)
    # The new zone counts for the worst, and the row at the threshold is in: that much more may be held.
    assert within(hits, n, coverage, coverage + 2 / (n_zones + 1))


def test_what_is_told_of_sets_is_what_they_hold():
    """Of folds that had no part in them: as often as promised, though every fold's zones judge the others'."""
    rng, told, frequencies = np.random.default_rng(1), [], np.full((24, N_CLASSES), 1 / N_CLASSES)
    for _ in range(200):
        labels, p, zones, weights = draw_zones(24, rng)
        found = OutOfFold(labels.astype(np.uint8), p.astype(np.float32), zones, weights, frequencies, np.arange(24) % 4)
        is_in = learnt_elsewhere(found, DecisionSettings(calibrate=True, coverage=0.85)).in_sets
        told.append(is_in[np.arange(len(labels)), labels][rng.integers(len(labels))])
    assert within(sum(told), len(told), 0.85, 0.85 + 2 / 19)


@pytest.mark.parametrize(("n_zones", "most"), [(12, 0.2), (30, 0.1)])
def test_a_new_zones_pixel_is_flagged_as_seldom_as_was_asked_for(n_zones, most):
    rng, n, flagged = np.random.default_rng(2), 300, 0
    zones = np.repeat(np.arange(n_zones + 1), N_ROWS)
    known = np.flatnonzero(zones < n_zones)
    found = replace(drawn(len(known), n_zones), zones=zones[known])
    for _ in range(n):
        x = draw_pixels(zones, rng, 4, spread=400.0)
        likeness, _ = learn_likeness(x[known], np.arange(len(known)), found, most)
        flagged += likeness.is_unlike(x[rng.integers(len(known), len(zones))][None])[0]
    assert within(flagged, n, most - 2 / (n_zones + 1) - 0.03, most)  # distances from fewer zones are larger
