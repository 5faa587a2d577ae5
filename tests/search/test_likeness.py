"""Pixels that are unlike the training zones': the distance, and how often new zones' pixels are flagged."""

from dataclasses import replace

import numpy as np
import pytest

from cropray.search.calibration import set_threshold
from cropray.search.decision import DecisionSettings, decision_in_words, learn_decision
from cropray.search.likeness import fit_likeness, learn_likeness
from cropray.training.likeness import recorded_likeness
from tests.search.drawn_predictions import SHARES, drawn


def draw_pixels(zones, rng, n_columns=6, spread=120.0):
    """[N, F] numbers of some zones, each of which lies a little elsewhere; columns go together, some are missing."""
    mix = np.random.default_rng(8).normal(size=(n_columns, n_columns))
    shift = rng.normal(0, spread, (zones.max() + 1, n_columns))
    x = 3000 + shift[zones] + 300 * rng.normal(size=(len(zones), n_columns)) @ mix
    x[rng.random(x.shape) < 0.05] = 0
    return x.clip(0).astype(np.uint16)


def obvious_likeness(x, weights, pixel):
    """Column by column and pair by pair."""
    n, columns = len(x), range(x.shape[1])
    mean, deviation = [], []
    for c in columns:
        there = [i for i in range(n) if x[i, c]]
        total = sum(weights[i] for i in there)
        mean.append(sum(weights[i] * float(x[i, c]) for i in there) / total)
        deviation.append((sum(weights[i] * (float(x[i, c]) - mean[c]) ** 2 for i in there) / total) ** 0.5)

    def standard(row):
        return [(float(row[c]) - mean[c]) / deviation[c] if row[c] else 0.0 for c in columns]

    rows = [standard(row) for row in x]
    covariance = np.array(
        [[0.9 * sum(w * r[a] * r[b] for w, r in zip(weights, rows, strict=True)) / sum(weights) + 0.1 * (a == b)
          for b in columns] for a in columns]
    )  # fmt: skip
    z = np.array(standard(pixel))
    return 1 / (1 + z @ np.linalg.inv(covariance) @ z / max((pixel > 0).sum(), 1))


def test_the_distance_is_the_obvious_one():
    rng = np.random.default_rng(3)
    x, weights = draw_pixels(np.repeat(np.arange(4), 20), rng), rng.uniform(1, 9, 80)
    likeness = fit_likeness(x, weights)
    for pixel in (*x[:9], np.array([9000, 1, 0, 0, 0, 4000], np.uint16)):
        assert likeness.of(pixel[None])[0] == pytest.approx(obvious_likeness(x, weights, pixel), rel=1e-3)


def test_a_card_keeps_it_and_tiles_are_pixels():
    x = draw_pixels(np.repeat(np.arange(4), 30), np.random.default_rng(1), 6)
    likeness = replace(fit_likeness(x, np.ones(120)), least=0.55)
    kept = recorded_likeness({"likeness": likeness.to_record()})
    np.testing.assert_array_equal(kept.of(x), likeness.of(x))
    tiles = x.reshape(2, 10, 6, 3, 2).transpose(0, 4, 3, 1, 2)  # [N, T, C, H, W] of band-major columns
    np.testing.assert_array_equal(
        kept.is_unlike(tiles), kept.is_unlike(x.reshape(2, 10, 6, 6).reshape(-1, 6)).reshape(2, 10, 6)
    )
    assert recorded_likeness({}) is None
    with pytest.raises(ValueError, match="4 numbers, the model was trained on 6"):
        kept.of(x[:, :4])


def test_what_is_missing_is_no_deviation_unless_all_is():
    x = draw_pixels(np.repeat(np.arange(4), 30), np.random.default_rng(2), 5)
    x[:, 2] = 0  # never seen in training
    likeness = fit_likeness(x, np.ones(120))
    usual = np.where(x == 0, likeness.mean.round(), x).astype(np.uint16)
    assert likeness.of(usual[:5]).min() > 0.2
    usual[:, 2] = 700
    assert likeness.of(usual[:5]).max() < 1e-3
    assert likeness.of(np.zeros((1, 5), np.uint16))[0] == 0


def test_what_goes_together_is_seen_where_each_column_is_usual():
    rng = np.random.default_rng(4)
    one = rng.normal(0, 400, 2000)
    x = np.stack([3000 + one, 3000 + one + rng.normal(0, 40, 2000)], 1).astype(np.uint16)
    likeness = fit_likeness(x, np.ones(2000))
    usual, strange = likeness.of(np.array([[3400, 3400], [3400, 2600]], np.uint16))
    assert strange < 0.3 * usual


def test_new_zones_are_flagged_as_seldom_as_was_asked_for_and_other_ground_is():
    zones = np.repeat(np.arange(30), 60)
    found = replace(drawn(1800, n_zones=30), zones=zones)
    rng = np.random.default_rng(5)
    likeness, worth = learn_likeness(draw_pixels(zones, rng), np.arange(1800), found, 0.1)
    assert 0.02 < worth["share"] < 0.1
    new = draw_pixels(np.repeat(np.arange(200), 20), rng)
    assert 0.03 < likeness.is_unlike(new).mean() < 0.1
    assert likeness.is_unlike((new * 1.6).astype(np.uint16)).mean() > 0.5
    assert worth["flagged"] == pytest.approx(worth["others"], abs=0.2)  # the labels here do not depend on the pixels


def test_what_a_flag_is_worth_is_told_of_folds_that_had_no_part_in_it():
    found = replace(drawn(1200, n_zones=30), zones=np.repeat(np.arange(30), 40))
    x, share = draw_pixels(found.zones, np.random.default_rng(7), spread=400.0), 0.0
    x[found.folds[found.zones] == 1] += 500  # its own rows would call them usual
    of_fold, alike = found.folds[found.zones], np.zeros(1200)
    for fold in range(3):
        alike[of_fold == fold] = fit_likeness(x[of_fold != fold], found.weights[of_fold != fold]).of(x[of_fold == fold])
    for fold in range(3):
        others = of_fold != fold
        least = set_threshold(alike[others], found.zones[others], found.weights[others], 0.8)
        share += (alike[~others] < least).sum() / 1200
    likeness, worth = learn_likeness(x, np.arange(1200), found, 0.2)
    assert worth["share"] == pytest.approx(share)
    assert likeness.least == worth["least"] == set_threshold(alike, found.zones, found.weights, 0.8)


def test_a_flag_that_no_fold_could_promise_is_not_called_wrong():
    found = replace(drawn(1200, n_zones=12), zones=np.repeat(np.arange(12), 100))
    x = draw_pixels(found.zones, np.random.default_rng(9))
    _, worth = learn_likeness(
        x, np.arange(1200), found, 0.1
    )  # promised by twelve zones, but not by the eight of other folds
    record, _ = learn_decision(found, SHARES, DecisionSettings(unlike=0.1))
    (line,) = decision_in_words({**record, "unlike": worth})
    assert worth["least"] > worth["share"] == 0
    assert "none is flagged" in line
    assert "right in" not in line


def test_a_single_fold_flags_nothing():
    found = drawn(300, n_zones=6)
    one = replace(found, folds=np.zeros(6, np.int64))
    likeness, worth = learn_likeness(draw_pixels(found.zones, np.random.default_rng(6)), np.arange(300), one, 0.3)
    assert (likeness.least, worth["share"]) == (0.0, 0.0)
