"""Models of other cubes: their cards, what they read, and that they map no composite of another cube."""

import json

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import SchemaError
from cropray.core.features import FeatureSet
from cropray.core.legend import legend_from_names
from cropray.core.sensors import SENTINEL_2, known_band
from cropray.evaluation.models import load_model
from cropray.imagery.composites import write_composite, write_n_obs
from cropray.io.workspace import Workspace
from cropray.maps.preview import natural_colours
from cropray.maps.settings import MapSettings
from cropray.maps.zone import MapJob, map_zone
from cropray.nets.crop_net import CropNet, CropNetConfig
from cropray.stages.results import _layout
from cropray.training.deep.checkpoint import NetworkCheckpoint, save_checkpoint
from cropray.training.deep.tiles import ChannelStats
from cropray.training.pixel_blocks import TreeData
from cropray.training.xgboost.scoring import save_booster
from cropray.training.xgboost.served import _load_pyfunc
from tests.synthetic import zone

LEGEND = legend_from_names(["wheat", "maize"])
CUBE = CubeSpec(tuple(map(known_band, ("B11", "B04", "VV"))), "half-month", 2)


def trees(folder, cube=CUBE):
    rng = np.random.default_rng(0)
    x = rng.integers(1, 4000, (300, cube.n_features)).astype(np.uint16)
    matrix = xgb.DMatrix(x, label=x[:, 5] > 2000, feature_names=list(cube.columns))
    booster = xgb.train({"objective": "multi:softprob", "num_class": 2, "max_depth": 2}, matrix, 2)
    folder.mkdir(parents=True, exist_ok=True)
    save_booster(folder, booster, TreeData({}, LEGEND.classes, LEGEND.hash(), FeatureSet(cube)), {})
    return x, (x[:, 5] > 2000).astype(int)


def network(folder, cube=CUBE):
    config = CropNetConfig(
        n_classes=2, n_months=cube.n_steps, n_bands=cube.n_bands, temporal_channels=4, unet_channels=(4, 4)
    )
    stats = ChannelStats((1000.0,) * cube.n_bands, (500.0,) * cube.n_bands)
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        folder, NetworkCheckpoint(CropNet(config).eval(), stats, LEGEND.classes, LEGEND.hash(), {}, cube, kind="cnn")
    )


@pytest.mark.parametrize(("make", "shape"), [(trees, (-1, 12)), (network, (-1, 4, 3, -1, -1))])
def test_a_card_brings_the_cube_back(tmp_path, make, shape):
    make(tmp_path)
    model = load_model(tmp_path)
    assert model.cube == CUBE
    assert model.input_shape == shape
    assert model.columns == (CUBE.columns if make is trees else ())
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["features"] == list(CUBE.columns)
    assert _layout(model.cube)["columns"] == "<band>_<position of the half-month in the season, 01 to 04>"


@pytest.mark.parametrize("make", [trees, network])
def test_a_card_that_says_nothing_is_of_the_study(tmp_path, make):
    make(tmp_path, STUDY_CUBE)
    card = json.loads((tmp_path / "card.json").read_text())
    del card["cube"]
    (tmp_path / "card.json").write_text(json.dumps(card))
    assert load_model(tmp_path).cube == STUDY_CUBE


def test_served_trees_take_the_columns_of_their_cube(tmp_path):
    x, label = trees(tmp_path)
    asked = pd.DataFrame(x, columns=list(CUBE.columns))[list(reversed(CUBE.columns))]
    names = _load_pyfunc(str(tmp_path)).predict(asked, {"output": "names"})
    assert (names == np.array(["wheat", "maize"])[label]).mean() > 0.95
    with pytest.raises(ValueError, match=r"lacks the columns \['VV_04'\]"):
        _load_pyfunc(str(tmp_path)).predict(asked.drop(columns="VV_04"))


@pytest.mark.parametrize("make", [trees, network])
def test_a_composite_of_another_cube_is_not_mapped(tmp_path, make):
    workspace, place = Workspace(tmp_path / "work"), zone("z-1", size=24)
    make(tmp_path / "model")
    model = load_model(tmp_path / "model")
    job = MapJob("model", LEGEND, MapSettings(), workspace)
    rng = np.random.default_rng(1)
    for cube in (CubeSpec(CUBE.bands, "month", 4), CUBE):
        composite = rng.integers(1, 4000, (*cube.shape, 24, 24)).astype(np.uint16)
        write_composite(workspace.composite("z-1"), composite, place.grid, cube)
        write_n_obs(workspace.n_obs("z-1"), np.ones((4, 24, 24), np.uint8), place.grid, cube)
        if cube == CUBE:
            assert map_zone(model, place, job) == (24, 24)
            assert workspace.map_preview("model", "z-1").exists()
            continue
        with pytest.raises(
            SchemaError, match=r"× 4 months; needed is B11 B04 VV × 4 half-months of 2 months: run `cropray acquire"
        ):
            map_zone(model, place, job)


def test_an_image_is_shown_in_colours_where_there_are_any():
    composite = np.random.default_rng(0).integers(1, 4000, (3, 10, 8, 8)).astype(np.uint16)
    n_obs = np.ones((3, 8, 8), np.uint8)
    ten = CubeSpec(SENTINEL_2.bands, "month", 3)
    best = composite[:, ten.band_ids.index("B08")].mean((1, 2)).argmax()
    shown = natural_colours(composite, n_obs, ten)
    assert shown[..., 0].ravel().argsort().tolist() != shown[..., 2].ravel().argsort().tolist()
    assert np.corrcoef(shown[..., 0].ravel(), composite[best, ten.band_ids.index("B04")].ravel())[0, 1] > 0.99
    grey = natural_colours(composite[:, :3], n_obs, CubeSpec(CUBE.bands, "month", 3))
    assert (grey[..., 0] == grey[..., 2]).all()
