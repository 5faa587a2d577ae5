"""Out-of-fold predictions of models that nobody trained: their likeliest class is right as often as such a model's is."""

import numpy as np

from cropray.search.decision import OutOfFold

SHARES = np.array([0.62, 0.25, 0.08, 0.035, 0.015])


def drawn(n_rows=2000, n_zones=12, shares=SHARES, noise=1.0, sureness=1.0, pull=0.0, *, seed=0, regions=()):
    """Posteriors of Gaussian classes under the true shares.

    Args:
        n_rows: predictions.
        n_zones: their zones, in three folds.
        shares: of the classes.
        noise: how hard they are to tell apart.
        sureness: power that the probabilities are taken to; 1: a pixel of confidence 80 % is right 80 times of 100.
        pull: power of the shares by which frequent classes are favoured, as models do in zones that are new to them.
        seed: of everything.
        regions: their names, which zones take in turn.
    """
    rng, n_classes = np.random.default_rng(seed), len(shares)
    zones, labels = np.sort(rng.integers(0, n_zones, n_rows)), rng.choice(n_classes, n_rows, p=shares)
    centres = 2 * np.eye(n_classes)
    x = centres[labels] + rng.normal(0, noise, (n_rows, n_classes))
    logits = -((x[:, None] - centres) ** 2).sum(2) / (2 * noise**2) + np.log(shares)
    logits = logits + pull * np.log(shares)
    powers = np.exp(sureness * (logits - logits.max(1, keepdims=True)))
    return OutOfFold(
        labels=labels.astype(np.uint8),
        probabilities=(powers / powers.sum(1, keepdims=True)).astype(np.float32),
        zones=zones,
        weights=np.ones(n_rows),
        frequencies=np.tile(shares, (n_zones, 1)),
        folds=np.arange(n_zones) % 3,
        regions=tuple(regions[zone % len(regions)] for zone in range(n_zones)) if regions else (),
    )
