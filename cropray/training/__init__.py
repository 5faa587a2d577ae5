"""Fitting models to folds."""
