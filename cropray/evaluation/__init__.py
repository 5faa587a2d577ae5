"""Scores: the cube of counts from the very windows of the maps, out-of-fold predictions, results of a dataset.

Comes in: the predictor that makes the maps, and the labels of zones. Goes out: counts zone × true × predicted, from
which every score is made. May be added: nothing here; a score is an entry of `core.metrics`.
"""
