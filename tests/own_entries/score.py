"""A score of one's own."""

import numpy as np

from cropray.core.metrics import METRICS, Metric


def balance(matrix, _loss):
    """Mean recall beyond what chance would give, of a confusion matrix [true, predicted]."""
    there = matrix.sum(1) > 0
    recall = np.diagonal(matrix)[there] / matrix.sum(1)[there]
    return float(recall.mean() - 1 / there.sum())


BALANCE = Metric("balance", "Recall beyond chance", balance, short="balance")
METRICS.add(BALANCE)
