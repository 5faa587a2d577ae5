"""Intervals of scores: of the same quantity as the score, and as wide as zones differ."""

import time

import numpy as np
import pytest

from cropray.core.intervals import MIN_ZONES, bootstrap_difference, bootstrap_f1, bootstrap_intervals, why_no_intervals
from cropray.core.metrics import score
from tests.zone_populations import LANDSCAPES, coverage, difference_coverage, draw_zones, macro_scores

KEYS = ["test_accuracy", "test_macro_precision", "test_macro_recall", "test_macro_f1"]


def obvious_deviations(cube, key):
    """n · score − (n − 1) · score without a zone, less the score; class by class, written out."""
    present = np.flatnonzero(cube.sum((0, 2)))

    def scores(matrix, instead):
        values = []
        for c in present:
            hits, support, predicted = matrix[c, c], matrix[c].sum(), matrix[:, c].sum()
            over, under = {
                "test_macro_precision": (hits, predicted),
                "test_macro_recall": (hits, support),
                "test_macro_f1": (2 * hits, support + predicted),
            }[key]
            values.append(over / under if under else instead[len(values)])
        return values

    whole = scores(cube.sum(0), [0.0] * len(present))
    n = len(cube)
    parts = [scores(np.delete(cube, z, 0).sum(0), whole) for z in range(n)]
    return [n * np.mean(whole) - (n - 1) * np.mean(part) - np.mean(whole) for part in parts]


@pytest.mark.parametrize("key", KEYS[1:])
def test_the_interval_is_the_one_of_the_slow_version(key):
    cube = draw_zones(LANDSCAPES["rare classes"], 7, seed=11)
    value = macro_scores(cube.sum(0), cube.any((0, 2)))[key]
    deviations = np.array(obvious_deviations(cube, key))
    weights = np.random.default_rng(4).dirichlet(np.ones(7), 500)
    draws = [sum(w * (d - deviations.mean()) for w, d in zip(row, deviations, strict=True)) for row in weights]
    t, normal = 2.4469, 1.95996  # of 6 degrees of freedom
    half = np.sqrt(8 / 6) * t / normal * max(-np.quantile(draws, 0.025), np.quantile(draws, 0.975))
    down, up = half + max(-deviations.mean(), 0), half + max(deviations.mean(), 0)
    odds, slope = np.log(value / (1 - value)), 1 / (value * (1 - value))
    low, high = (1 / (1 + np.exp(-(odds + step))) for step in (-slope * down, slope * up))
    # The classes' own pixels, thousands of them, add little.
    assert bootstrap_intervals(cube, 4, 500)[key] == pytest.approx((low, high), abs=2e-3)


def test_an_interval_is_of_the_score_itself():
    """Each zone has a rare class of its own: a draw without the zone would average over fewer classes."""
    cube = np.zeros((12, 13, 13), int)
    for zone in range(12):
        cube[zone, 0, 0], cube[zone, zone + 1, 0], cube[zone, zone + 1, zone + 1] = 60 + 5 * zone, 12, zone % 2
    for key, (low, high) in bootstrap_intervals(cube, 5).items():
        value = score(cube.sum(0)).as_metrics("test")[key]
        assert low < value < high
        assert min(value - low, high - value) > 0.05 * (high - low)


def test_it_depends_on_seed_and_zones_not_on_their_order_or_empty_ones():
    cube = draw_zones(LANDSCAPES["ten classes"], 9, seed=1)
    intervals = bootstrap_intervals(cube, seed=1)
    assert list(intervals) == KEYS
    assert intervals == bootstrap_intervals(cube, seed=1)
    assert intervals != bootstrap_intervals(cube, seed=2)
    assert intervals == bootstrap_intervals(np.concatenate([cube, 0 * cube[:1]]), seed=1)
    for key, ends in bootstrap_intervals(cube[::-1], seed=1).items():
        assert ends == pytest.approx(intervals[key], abs=0.05)
    for key, ends in bootstrap_intervals(100 * cube, seed=1).items():
        assert ends == pytest.approx(intervals[key], abs=0.01)  # zones are what is drawn, however many pixels they hold


def test_scores_at_the_ends_of_the_scale():
    perfect = np.tile(np.diag([300, 200]), (6, 1, 1))
    for low, high in bootstrap_intervals(perfect, 0).values():
        assert 0.98 < low < high == 1.0
    for low, high in bootstrap_intervals(perfect[:, ::-1], 0).values():
        assert 0.0 == low < high < 0.02


@pytest.mark.parametrize("n_zones", range(MIN_ZONES))
def test_too_few_zones_have_no_interval_and_say_so(n_zones):
    cube = draw_zones(LANDSCAPES["few classes"], 8, seed=2)
    cube[n_zones:] = 0
    assert bootstrap_intervals(cube, 0) == bootstrap_difference(cube, cube, 0) == {}
    assert why_no_intervals(cube) == f"{n_zones} test zone{'s' * (n_zones != 1)}, an interval needs 5 or more"
    assert why_no_intervals(draw_zones(LANDSCAPES["few classes"], MIN_ZONES, seed=2)) == ""


def test_the_f1_of_each_class_has_an_interval_of_its_own_zones():
    rng = np.random.default_rng(4)
    cube = np.zeros((12, 4, 4), np.int64)
    cube[:, :2, :2] = rng.integers(5, 60, (12, 2, 2))
    cube[:4, 2, 2] = 30  # of a class that too few zones hold; the last one has no label
    found = bootstrap_f1(cube, 0)
    assert set(found) == {0, 1}
    f1 = {row.class_id: row.f1 for row in score(cube.sum(0)).classes}
    assert all(found[k][0] < f1[k] < found[k][1] for k in found)
    # Where all classes are one and its mirror, both F1 are the accuracy, and so are their intervals but for the halved pixels.
    mirrored = np.stack([np.array([[n, 40 - n], [40 - n, n]]) for n in rng.integers(20, 40, 9)])
    low, high = bootstrap_intervals(mirrored, 0)["test_accuracy"]
    np.testing.assert_allclose(bootstrap_f1(mirrored, 0)[0], (low, high), atol=0.01)
    more = np.concatenate([mirrored, np.zeros((3, 2, 2), np.int64)])
    assert bootstrap_f1(more, 0) == bootstrap_f1(mirrored, 0)


def test_a_difference_is_of_pairs():
    """One model is a little better in every zone, while zones differ much."""
    landscape = LANDSCAPES["unlike zones"]
    worse, better = (draw_zones(landscape, 12, seed=5, skill=skill) for skill in (0.0, 0.3))
    found = bootstrap_difference(better, worse, seed=6)
    a, b, alone = score(better.sum(0)), score(worse.sum(0)), bootstrap_intervals(better, 6)
    for key, difference in found.items():
        value = getattr(a, key.removeprefix("test_")) - getattr(b, key.removeprefix("test_"))
        assert difference.value == pytest.approx(value)
        assert 0 < difference.low < difference.value < difference.high
        assert difference.high - difference.low < 0.5 * (alone[key][1] - alone[key][0])
        turned = bootstrap_difference(worse, better, seed=6)[key]
        assert (turned.low, turned.high) == pytest.approx((-difference.high, -difference.low))


def test_a_model_does_not_differ_from_itself():
    cube = draw_zones(LANDSCAPES["ten classes"], 6, seed=3)
    assert {(d.low, d.value, d.high) for d in bootstrap_difference(cube, cube, 0).values()} == {(0.0, 0.0, 0.0)}


def test_models_of_other_labels_are_not_compared():
    cube = draw_zones(LANDSCAPES["ten classes"], 6, seed=3)
    with pytest.raises(ValueError, match="same zones and labels"):
        bootstrap_difference(cube, cube[::-1], 0)
    with pytest.raises(ValueError, match="same zones and labels"):
        bootstrap_difference(cube, cube[1:], 0)


def test_a_thousand_draws_take_no_time():
    cube = np.random.default_rng(0).integers(0, 500, (40, 50, 50))
    started = time.process_time()
    bootstrap_intervals(cube, 0)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(("name", "least"), [("few classes", 0.9), ("rare classes", 0.82)])
def test_intervals_cover(name, least):
    for key, share in coverage(LANDSCAPES[name], 20, 100, n_population=2000).items():
        assert share >= least, key


@pytest.mark.nightly
@pytest.mark.parametrize("name", LANDSCAPES)
@pytest.mark.parametrize(
    ("n_zones", "least", "least_mean"), [(5, 0.8, 0.9), (8, 0.8, 0.9), (20, 0.84, 0.9), (40, 0.84, 0.9)]
)
def test_intervals_cover_everywhere(name, n_zones, least, least_mean):
    shares = coverage(LANDSCAPES[name], n_zones, 400)
    assert min(shares.values()) >= least
    assert np.mean(list(shares.values())) >= least_mean - 0.04 * (name == "classes of single zones")


@pytest.mark.nightly
@pytest.mark.parametrize("name", LANDSCAPES)
@pytest.mark.parametrize("n_zones", [8, 20, 40])
def test_differences_cover_everywhere(name, n_zones):
    """95 % are promised, and 4 standard deviations of 300 repeats allowed; macro scores of classes in few zones cover less."""
    shares = difference_coverage(LANDSCAPES[name], n_zones, 300, n_population=2000)
    assert shares["test_accuracy"] >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 300)
    assert min(shares.values()) >= 0.88 - 4 * np.sqrt(0.88 * 0.12 / 300)
    assert np.mean(list(shares.values())) >= 0.9
