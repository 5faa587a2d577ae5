"""Trees of a forest read back and in use: a folder with `trees.safetensors` and `card.json`.

Each node is one 64-bit word, so that a step down a tree reads the memory once. Nodes of a tree stand in depth-first order:
the left child of a node follows it.

    bits  0–15  threshold: the largest digital number that goes left
    bits 16–30  feature; LEAF for a leaf
    bit  31     whether a missing value goes left
    bits 32–63  right child, counted from the tree's root; of a leaf, its row in `leaves`

Needs numpy, numba and safetensors only: a registered model carries this module, and asks for no scikit-learn.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from cropray.core.errors import SchemaError
from cropray.training.card import read_card

KIND: Final = "forest"
CARD_VERSION: Final = 1
MODEL_FILE: Final = "trees.safetensors"
LEAF: Final = 0x7FFF
_BATCH_ROWS: Final = 1 << 12  # pixels that go down one tree after the other: their votes stay in the cache
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees, in the order in which they are counted."""

    nodes: npt.NDArray[np.uint64]
    """Of all trees, one after the other; see the module."""
    roots: npt.NDArray[np.int64]
    """[T + 1] first node of each tree; last, the number of nodes."""
    leaves: npt.NDArray[np.float32]
    """[L, K] shares of the classes; each row stands once, whatever the number of leaves that have it."""

    @property
    def n_trees(self) -> int:
        """T."""
        return len(self.roots) - 1

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """As they are saved."""
        return {"nodes": self.nodes, "roots": self.roots, "leaves": self.leaves}


def _compiled(function: FunctionT) -> FunctionT:
    """The function as machine code, kept on disk where there is a place for it: a model server may have none."""
    try:
        return cast("FunctionT", numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast("FunctionT", numba.njit(nogil=True)(function))


@_compiled
def _vote(
    x: npt.NDArray[np.uint16],
    nodes: npt.NDArray[np.uint64],
    roots: npt.NDArray[np.int64],
    leaves: npt.NDArray[np.float32],
    votes: npt.NDArray[np.float64],
) -> None:
    """Add the leaves of each row [N, 48] to its votes [N, K], tree by tree."""
    for tree in range(len(roots) - 1):
        root = roots[tree]
        for row in range(len(x)):
            at = root
            word = nodes[at]
            feature = (word >> np.uint64(16)) & np.uint64(0x7FFF)
            while feature != np.uint64(LEAF):
                value = np.uint64(x[row, feature])
                if value == np.uint64(0):
                    is_left = (word >> np.uint64(31)) & np.uint64(1) == np.uint64(1)
                else:
                    is_left = value <= word & np.uint64(0xFFFF)
                at = at + 1 if is_left else root + np.int64(word >> np.uint64(32))
                word = nodes[at]
                feature = (word >> np.uint64(16)) & np.uint64(0x7FFF)
            leaf = np.int64(word >> np.uint64(32))
            for k in range(votes.shape[1]):
                votes[row, k] += leaves[leaf, k]


def predict_proba(
    forest: Forest, features: npt.NDArray[np.uint16], n_estimators: int | None = None, n_threads: int = 1
) -> npt.NDArray[np.float32]:
    """Class probabilities of each pixel: the mean of its leaves.

    Args:
        forest: the trees.
        features: [N, F] features in the order of the card's, 0 = missing.
        n_estimators: use the first so many trees; None: all.
        n_threads: that predict at the same time.

    Returns:
        [N, K] float32, sums to 1 over K.
    """
    n_trees = forest.n_trees if n_estimators is None else n_estimators
    if not 1 <= n_trees <= forest.n_trees:
        raise ValueError(f"n_estimators is {n_trees}, the model has {forest.n_trees} trees")
    probabilities = np.empty((len(features), forest.leaves.shape[1]), np.float32)

    def predict(start: int) -> None:
        x = features[start : start + _BATCH_ROWS]
        votes = np.zeros((len(x), forest.leaves.shape[1]))
        _vote(x, forest.nodes, forest.roots[: n_trees + 1], forest.leaves, votes)
        probabilities[start : start + _BATCH_ROWS] = votes / n_trees

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(predict, range(0, len(features), _BATCH_ROWS)))  # raises what a thread raised
    return probabilities


def load_forest(folder: Path) -> tuple[Forest, dict[str, Any]]:
    """(trees, their card).

    Raises:
        MissingArtefactError: there are none.
        SchemaError: they are damaged or do not belong to the card.
    """
    card = read_card(folder, KIND, CARD_VERSION, MODEL_FILE)
    try:
        forest = Forest(**load_file(folder / MODEL_FILE))
        _require_sound(forest, card)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise SchemaError(f"model '{folder / MODEL_FILE}' cannot be used ({error}); train it again") from None
    return forest, card


def _require_sound(forest: Forest, card: dict[str, Any]) -> None:
    """The compiled walk looks at no bound: see that every step of it stays in its tree, and goes on towards its end."""
    wanted, found = (card["n_estimators"], len(card["classes"])), (forest.n_trees, forest.leaves.shape[1])
    if found != wanted:
        raise ValueError(f"it has {found} trees and classes, its card says {wanted}")
    sizes = np.diff(forest.roots)
    if forest.roots[0] != 0 or forest.roots[-1] != len(forest.nodes) or (sizes < 1).any():
        raise ValueError("its trees do not fill its nodes")
    feature, link = (forest.nodes >> np.uint64(16)) & np.uint64(LEAF), forest.nodes >> np.uint64(32)
    is_leaf = feature == LEAF
    place = np.arange(len(forest.nodes)) - np.repeat(forest.roots[:-1], sizes)
    inner = ~is_leaf
    if not (
        (link[is_leaf] < len(forest.leaves)).all()
        and (feature[inner] < len(card["features"])).all()
        and (link[inner] > place[inner]).all()
        and (link[inner] < np.repeat(sizes, sizes)[inner]).all()
        and is_leaf[forest.roots[1:] - 1].all()
    ):
        raise ValueError("a node leads out of its tree")
