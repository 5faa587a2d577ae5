"""Scores: the cube of counts from the very windows of the maps, out-of-fold predictions, results of a dataset."""
