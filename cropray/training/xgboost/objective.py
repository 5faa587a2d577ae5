"""The softmax loss with a Hessian that does not vanish before its gradient does; needs numpy and xgboost only.

XGBoost takes 2p(1 - p) for the second derivative of a class. Where a rare class was missed, p is near 0: the gradient p - 1
stays, 2p(1 - p) goes, and a leaf of such rows, -G / (H + λ), is bounded by λ alone. |p - y| is at least p(1 - p) for y of 0 and 1,
so that no leaf is larger than the learning rate.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import xgboost as xgb

_LEAST: Final = np.float32(1e-16)  # as XGBoost has it: a Hessian of 0 has no leaf
Rows = npt.NDArray[np.float32]


def bounded(margins: Rows, matrix: xgb.DMatrix) -> tuple[Rows, Rows]:
    """Gradient and Hessian of every row and class.

    Args:
        margins: [N, K], before the softmax; overwritten by the gradient.
        matrix: with the N labels, and weights where rows have such.

    Returns:
        ([N, K] w(p - y), [N, K] w|p - y|).
    """
    gradient = margins
    gradient -= margins.max(1, keepdims=True)
    np.exp(gradient, out=gradient)
    gradient /= gradient.sum(1, keepdims=True)
    gradient[np.arange(len(gradient)), matrix.get_label().astype(np.int64)] -= 1
    if len(weights := matrix.get_weight()):
        gradient *= weights[:, None]
    hessian = np.abs(gradient)
    return gradient, np.maximum(hessian, _LEAST, out=hessian)
