"""The original study's recipe on real points: zone-grouped search, refit, test zones read once, by both engines."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cropray.datasets.manifest import ZoneEntry
from cropray.datasets.points import points_entries, points_legend, read_points, write_points
from cropray.legend import Legend
from cropray.metrics import score
from cropray.training.pixel_blocks import PixelBlock, TreeData
from cropray.training.xgboost import TreeScore, XgboostPoint, XgboostSettings, train_xgboost
from cropray.workspace import Workspace

N_FOLDS = 3
RATES, TREES = (0.01, 0.1), (100, 200)  # the study's grid
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


class Points:
    """Pixel tables of all zones, read once by Ray Data."""

    def __init__(self, path: Path, workspace: Workspace) -> None:
        table = read_points(path)
        self.legend: Legend = points_legend(table)
        write_points(table, workspace, self.legend)
        self.zones: list[ZoneEntry] = points_entries(table, workspace, self.legend, N_FOLDS)
        self.blocks = {zone.zone_id: _block(workspace.pixels(zone.zone_id), zone.n_labelled) for zone in self.zones}

    def data(self, *, split: str, without: int | None = None, fold: int | None = None) -> TreeData:
        """Zones of a split; all but one fold, or one fold only."""
        chosen = [
            zone.zone_id
            for zone in self.zones
            if zone.split == split and zone.fold != (-1 if without is None else without) and fold in (None, zone.fold)
        ]
        return TreeData({zone_id: self.blocks[zone_id] for zone_id in chosen}, self.legend.classes, self.legend.hash())


def _block(folder: Path, n_rows: int) -> PixelBlock:
    import ray.data

    (ref,) = ray.data.read_parquet(str(folder)).repartition(1).to_arrow_refs()
    return PixelBlock(ref, n_rows)


@pytest.fixture(scope="module")
def points(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Points:
    folder = tmp_path_factory.mktemp("arkansas")
    return Points(real_data / "arkansas_points" / "points.parquet", Workspace(folder))


@pytest.fixture(scope="module")
def winner(points: Points, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, int]:
    """(learning rate, trees) with the best mean validation accuracy."""
    means: dict[tuple[float, int], list[float]] = {}
    for rate in RATES:
        for fold in range(N_FOLDS):
            train = points.data(split="train", without=fold)
            val = points.data(split="train", fold=fold)
            assert not train.blocks.keys() & val.blocks.keys()
            settings = XgboostSettings(cpus_per_worker=2)
            fit = train_xgboost(settings, XgboostPoint(rate, TREES), train, val, 0, tmp_path_factory.mktemp("fit"))
            for part in fit.scores:
                means.setdefault((rate, part.n_estimators), []).append(score(part.confusion).accuracy)
    return max(means, key=lambda key: np.mean(means[key]))


def _reaches_the_study(part: TreeScore) -> None:
    scores = score(part.confusion, part.loss_sum)
    assert scores.n_pixels == 2_246
    assert scores.accuracy >= 0.945
    assert scores.macro_f1 >= 0.69


@pytest.mark.parametrize(
    "settings",
    [
        XgboostSettings(cpus_per_worker=2),
        XgboostSettings(engine="ray_train", num_workers=2),
        XgboostSettings(engine="xgboost_ray", num_workers=2),
    ],
    ids=lambda settings: settings.engine if settings.num_workers else "in process",
)
def test_the_recipe_reaches_the_study(
    points: Points, winner: tuple[float, int], settings: XgboostSettings, tmp_path: Path
) -> None:
    rate, trees = winner
    assert winner == (0.1, 200)
    train, test = points.data(split="train"), points.data(split="test")
    assert isinstance(next(iter(train.blocks.values())).rows, pa.Table) is False  # Ray's references, not copies
    fit = train_xgboost(settings, XgboostPoint(rate, (trees,)), train, test, 0, tmp_path)
    _reaches_the_study(fit.scores[0])
