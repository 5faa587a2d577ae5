"""Small drawn pixel tables for the tests of boosted trees."""

import numpy as np
import pyarrow as pa

from cropray.core.legend import legend_from_names
from cropray.training.pixel_blocks import PixelBlock, TreeData
from tests.study import FEATURE_COLUMNS

LEGEND = legend_from_names(["beet", "fallow", "maize", "rape", "wheat"])
CLASSES = tuple(crop for crop in LEGEND.classes if crop.name != "fallow")  # the dataset lacks one class of the legend


def draw_rows(seed: int, n: int, present: tuple[str, ...] = ("beet", "maize", "rape", "wheat")) -> pa.Table:
    """Pixels whose first class-many features are brighter for their class; 5 % of all values are missing."""
    rng = np.random.default_rng(seed)
    label = rng.choice([LEGEND.names.index(name) for name in present], n)
    features = rng.integers(200, 4000, (n, len(FEATURE_COLUMNS)))
    features[np.arange(n), label] += 2400
    features[rng.random(features.shape) < 0.05] = 0
    columns = dict(zip(FEATURE_COLUMNS, features.T.astype(np.uint16), strict=True))
    return pa.table({"zone_id": ["z"] * n, "label": label.astype(np.uint8), **columns})


def tree_data(**zones: pa.Table) -> TreeData:
    """Zones of given tables."""
    blocks = {zone_id: PixelBlock(rows, rows.num_rows) for zone_id, rows in zones.items()}
    return TreeData(blocks, CLASSES, LEGEND.hash())


def train_zones() -> TreeData:
    """Three zones of unequal size; beet grows only in the last, so that a worker lacks it."""
    few = ("maize", "rape", "wheat")
    return tree_data(a=draw_rows(1, 700, few), b=draw_rows(2, 500, few), c=draw_rows(3, 300))


def val_zones() -> TreeData:
    """Two zones, one without rape."""
    return tree_data(d=draw_rows(4, 400), e=draw_rows(5, 101, ("beet", "wheat")))
