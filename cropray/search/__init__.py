"""The search: configurations × folds on Ray Tune, and the choice of the winner.

Comes in: families, the values to try of their settings, and a dataset. Goes out: the result of every (trial, fold), and
the winner of each family. May be added: a sampler of trials (`sampling`).
"""
