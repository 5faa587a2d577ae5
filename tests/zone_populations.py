"""Drawn landscapes of many zones whose scores are known, and samples of them: what intervals must cover."""

from dataclasses import dataclass

import numpy as np

from cropray.core.intervals import bootstrap_difference, bootstrap_intervals


@dataclass(frozen=True)
class Landscape:
    """How zones differ."""

    n_classes: int
    mix: float
    """Small: a zone holds few of the classes."""
    rarity: float
    """Frequency of a class over that of the one before it."""
    zone_spread: float
    """Deviation of zones' log odds of being right."""
    class_spread: float
    """The same of classes within a zone."""


LANDSCAPES = {
    "few classes": Landscape(3, 5, 0.5, 0.5, 0.5),
    "ten classes": Landscape(10, 5, 0.7, 0.5, 0.5),
    "rare classes": Landscape(20, 3, 0.75, 0.5, 0.7),
    "unlike zones": Landscape(20, 3, 0.75, 1.2, 0.7),
    "classes of single zones": Landscape(10, 1, 0.8, 0.5, 0.5),
}


def draw_zones(landscape, n_zones, seed, skill=0.0):
    """Cube [zone, true, predicted]: zones of very unlike size; errors go to what is frequent, here and everywhere."""
    rng, k = np.random.default_rng(seed), landscape.n_classes
    prior = landscape.rarity ** np.arange(k)
    prior /= prior.sum()
    share = rng.dirichlet(landscape.mix * prior, n_zones)
    support = np.floor(share * rng.lognormal(10, 0.8, n_zones)[:, None])
    support[support < 20] = 0
    easy = np.log(1 / (1 / np.linspace(0.9, 0.45, k) - 1)) + skill
    odds = easy + landscape.zone_spread * rng.normal(size=(n_zones, 1))
    odds = odds + landscape.class_spread * rng.normal(size=(n_zones, k))
    hits = np.floor(support / (1 + np.exp(-odds)))
    to = 0.5 * prior + 0.5 * share
    cube = np.rint((support - hits)[:, :, None] * (to / to.sum(1, keepdims=True))[:, None, :]).astype(np.int64)
    cube[:, range(k), range(k)] = 0
    cube[:, range(k), range(k)] = support - cube.sum(2)
    return cube


def macro_scores(matrix, present):
    """Scores over some classes, [true, predicted] of any size; written out."""
    hits, support, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    return {
        "test_accuracy": hits.sum() / support.sum(),
        "test_macro_precision": precision[present].mean(),
        "test_macro_recall": recall[present].mean(),
        "test_macro_f1": f1[present].mean(),
    }


def coverage(landscape, n_zones, n_samples, n_population=4000, seed=3):
    """Score → share of samples of so many zones whose interval holds the score of all zones.

    What is covered are the classes of the sample's labels.
    """
    population = draw_zones(landscape, n_population, seed)
    whole, rng = population.sum(0), np.random.default_rng(seed)
    covered = {}
    for i in range(n_samples):
        cube = population[rng.integers(n_population, size=n_zones)]
        truth = macro_scores(whole, cube.any((0, 2)))
        for key, (low, high) in bootstrap_intervals(cube, i, 300).items():
            covered.setdefault(key, []).append(low <= truth[key] <= high)
    return {key: np.mean(values) for key, values in covered.items()}


def difference_coverage(landscape, n_zones, n_samples, n_population=4000, seed=3):
    """The same of the difference between two models, one of which is better by as much everywhere; zones are hard for both."""
    both = [draw_zones(landscape, n_population, seed, skill) for skill in (0.3, 0.0)]
    rng, covered = np.random.default_rng(seed), {}
    for i in range(n_samples):
        drawn = rng.integers(n_population, size=n_zones)
        present = both[0][drawn].any((0, 2))
        better, worse = (macro_scores(cube.sum(0), present) for cube in both)
        for key, found in bootstrap_difference(*(cube[drawn] for cube in both), i, 300).items():
            covered.setdefault(key, []).append(found.low <= better[key] - worse[key] <= found.high)
    return {key: np.mean(values) for key, values in covered.items()}
