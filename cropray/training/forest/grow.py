"""Growing trees by scikit-learn, and packing them."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import ExtraTreesClassifier

from cropray.core.features import as_floats
from cropray.training.forest.settings import ForestSettings
from cropray.training.forest.tree_file import LEAF, Forest

_SEEDS: Final = np.iinfo(np.int32).max  # a forest of scikit-learn draws the seed of each of its trees below this


def grow(  # noqa: PLR0913, PLR0917 - what to grow, on what
    settings: ForestSettings,
    seed: int,
    trees: range,
    x: npt.NDArray[np.uint16],
    labels: npt.NDArray[np.uint8],
    n_classes: int,
    weights: npt.NDArray[np.floating[Any]] | None = None,
) -> Forest:
    """Grow some trees of a forest: those that scikit-learn's forest of the same seed has in their places.

    Args:
        settings: of the forest.
        seed: of the forest.
        trees: which of its trees, a range of numbers from 0.
        x: [N, F] features, 0 = missing.
        labels: [N] class indices.
        n_classes: of the dataset.
        weights: [N] of the rows; None: 1.
    """
    # Of its own: what comes out of Ray's object store is read-only, which scikit-learn does not take.
    floats = as_floats(x)
    of_rows = None if weights is None else weights.astype(np.float64)
    draws = np.random.RandomState(seed)
    draws.randint(_SEEDS, size=trees.start)
    parts = []
    for start in range(trees.start, trees.stop, settings.threads):
        grown = ExtraTreesClassifier(
            n_estimators=min(settings.threads, trees.stop - start),
            max_depth=settings.max_depth,
            min_samples_leaf=settings.min_samples_leaf,
            max_features=settings.max_features,
            n_jobs=settings.threads,
            random_state=draws,  # goes on from the trees before
        ).fit(floats, labels, of_rows)
        parts += [pack(tree.tree_, grown.classes_, n_classes) for tree in grown.estimators_]
    return join(parts)


def pack(tree: Any, classes: Sequence[int], n_classes: int) -> Forest:
    """One tree of scikit-learn.

    Args:
        tree: `tree_` of an estimator.
        classes: class index of each of its outputs; it may lack some.
        n_classes: of the dataset.
    """
    is_leaf = tree.children_left < 0
    inner = np.flatnonzero(~is_leaf)
    if (tree.children_left[inner] != inner + 1).any():
        raise NotImplementedError("scikit-learn's trees are not in depth-first order any more; cropray needs a new way")
    shares = np.zeros((int(is_leaf.sum()), n_classes), np.float32)
    shares[:, classes] = tree.value[is_leaf, 0]
    leaves, leaf = np.unique(shares, axis=0, return_inverse=True)
    threshold = np.clip(np.floor(tree.threshold), 0, 0xFFFF)  # whole numbers are compared with it
    feature, link = np.where(is_leaf, LEAF, tree.feature), tree.children_right.copy()
    link[is_leaf] = leaf
    words = (
        np.where(is_leaf, 0, threshold).astype(np.uint64)
        | feature.astype(np.uint64) << np.uint64(16)
        | tree.missing_go_to_left.astype(np.uint64) << np.uint64(31)
        | link.astype(np.uint64) << np.uint64(32)
    )
    return Forest(words, np.array([0, len(words)]), leaves)


def join(parts: Iterable[Forest]) -> Forest:
    """One forest of several, the same however its trees were parted."""
    parts = list(parts)
    leaves, row = np.unique(np.concatenate([part.leaves for part in parts]), axis=0, return_inverse=True)
    sizes = np.concatenate([np.diff(part.roots) for part in parts])
    low, nodes, first = np.uint64(0xFFFF_FFFF), [], 0
    for part in parts:
        is_leaf = (part.nodes >> np.uint64(16)) & np.uint64(LEAF) == LEAF
        link = (part.nodes >> np.uint64(32)).astype(np.int64)
        link[is_leaf] = row[first + link[is_leaf]]
        nodes.append(part.nodes & low | link.astype(np.uint64) << np.uint64(32))
        first += len(part.leaves)
    return Forest(np.concatenate(nodes), np.concatenate([[0], np.cumsum(sizes)]), leaves)
