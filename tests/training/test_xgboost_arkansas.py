"""The study's recipe on real points, by both engines on Ray.

That the search arrives at learning rate 0.1 and 200 trees is tested with the whole job in `tests/test_real_jobs.py`; here
the winner is fitted on all training zones by either engine, and the test zones are read once.
"""

import pyarrow as pa
import pytest

from cropray.core.metrics import score
from cropray.datasets.loading import load_pixels
from cropray.datasets.points import points_entries, points_folds, points_legend, read_points, write_points
from cropray.io.workspace import Workspace
from cropray.training.pixel_blocks import PixelBlock, TreeData
from cropray.training.xgboost.fit import XgboostSettings, train_xgboost

WINNER = (200,)
pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


@pytest.fixture(scope="module")
def points(real_data, ray_local, tmp_path_factory):
    """Split → labelled points of its zones, in Ray's object store."""
    table = read_points(real_data / "arkansas_points" / "points.parquet")
    legend, workspace = points_legend(table), Workspace(tmp_path_factory.mktemp("arkansas"))
    write_points(table, workspace, legend)
    zones = points_entries(table, workspace, points_folds(table, 3), {})
    blocks = load_pixels(workspace, [zone.zone_id for zone in zones])
    return {
        split: TreeData(
            {z.zone_id: PixelBlock(blocks[z.zone_id], z.n_labelled) for z in zones if z.split == split},
            legend.classes,
            legend.hash(),
        )
        for split in ("train", "test")
    }


@pytest.mark.parametrize("engine", ["ray_train", "xgboost_ray"])
def test_both_engines_reach_the_score_of_the_plain_recipe(points, engine, tmp_path):
    assert not isinstance(next(iter(points["train"].blocks.values())).rows, pa.Table)  # Ray's references, not copies
    settings = XgboostSettings(engine=engine, num_workers=2)
    (part,) = train_xgboost(settings, WINNER, points["train"], points["test"], 0, tmp_path).scores
    scores = score(part.confusion, part.loss_sum)
    assert scores.n_pixels == 2_246
    assert scores.accuracy >= 0.945
    assert scores.macro_f1 >= 0.69
