"""Fitting models to folds: a folder per family, and what families share.

Comes in: a `family.Fit`, which is settings, samples and a folder. Goes out: a model with its card, and its scores by
step. May be added: a family, as a folder with a `Family` and its name in `family`; a loss, sampler, optimiser,
schedule or augmentation in `deep`.
"""
