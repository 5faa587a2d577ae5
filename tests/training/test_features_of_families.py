"""Features of a job in training, scoring, maps and serving: the same numbers everywhere, by every family of pixels."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from cropray.config import JobConfig
from cropray.core import features as feature_module
from cropray.core.cube import STUDY_CUBE
from cropray.core.features import FeatureSet
from cropray.training.card import recorded_features
from cropray.training.family import family
from cropray.training.pixel_blocks import features
from tests.training.pixel_fits import fitted, require_scores, xy
from tests.training.tree_rows import train_zones, val_zones

NAMES = ("bands", "ndvi", "differences", "quantiles", "phenology")
SMALL = {
    "xgboost": {"max_depth": 3, "learning_rate": 0.3},
    "lightgbm": {"num_leaves": 7, "min_child_samples": 5},
    "forest": {"max_depth": 6},
}


def settings_of(name, **changes):
    return family(name).settings(**SMALL[name], **changes)


@pytest.mark.parametrize("name", SMALL)
def test_a_model_reads_the_cube_and_computes_its_features(name, tmp_path):
    scores, model = fitted(name, settings_of(name, features=NAMES), tmp_path, (4,))
    require_scores(scores, model, (4,))  # counted by another way than the fit's
    assert model.columns == STUDY_CUBE.columns
    assert model.input_shape == (-1, 48)
    card = json.loads((tmp_path / "card.json").read_text())
    assert tuple(card["inputs"]) == NAMES
    assert recorded_features(card).columns == tuple(card["features"])
    x, _ = xy(val_zones())
    served = __import__(model.loader, fromlist=["_load_pyfunc"])._load_pyfunc(str(tmp_path))
    np.testing.assert_array_equal(served.predict_samples(x), model.predict_samples(x))
    tile = x[:35].reshape(1, 5, 7, 4, 12).transpose(0, 4, 3, 1, 2)
    np.testing.assert_array_equal(model.predict_tiles(tile)[0].reshape(4, -1).T, model.predict_samples(x[:35]))


@pytest.mark.parametrize("name", SMALL)
def test_other_features_make_another_model(name, tmp_path):
    models = [
        fitted(name, settings_of(name, features=names), tmp_path / str(i), (4,))[1]
        for i, names in enumerate((("bands",), ("ndvi",)))
    ]
    x, _ = xy(val_zones())
    assert (models[0].predict_samples(x) != models[1].predict_samples(x)).any()
    raw = fitted(name, settings_of(name), tmp_path / "raw", (4,))[1]
    np.testing.assert_array_equal(raw.predict_samples(x), models[0].predict_samples(x))


def test_rows_are_binned_as_features():
    rows = next(iter(train_zones().blocks.values())).rows
    of = FeatureSet(STUDY_CUBE, NAMES)
    whole = features(rows, of=of)
    assert whole.shape == (len(rows), len(of.columns))
    table = np.arange(65_536, dtype=np.uint16)[::-1] * np.ones((len(of.columns), 1), np.uint16)
    np.testing.assert_array_equal(features(rows, table, of), 65_535 - whole)


def test_one_entry_makes_an_index(monkeypatch, tmp_path):
    """As somebody else would add it: no line of a family changes."""
    monkeypatch.setitem(feature_module.INDICES, "blueness", "B02/(B02+B03+B04)")
    scores, model = fitted("xgboost", settings_of("xgboost", features=("blueness", "quantiles")), tmp_path, (3,))
    require_scores(scores, model, (3,))
    assert model.features.columns[:2] == ("blueness_01", "blueness_02")


def test_features_that_a_cube_cannot_give_are_refused_with_the_job():
    job = {"name": "a", "workspace": "/w", "imagery": {"folder": "/s"}, "parcels": {"path": "/p"}}
    with pytest.raises(ValidationError, match=r"'ndmi' needs the bands \['B11'\]"):
        JobConfig.model_validate(job | {"xgboost": {"features": ["bands", "ndmi"]}})
    with pytest.raises(ValidationError, match="'nvdi' is not known"):
        JobConfig.model_validate(job | {"search": {"xgboost": {"features": [["bands"], ["nvdi"]]}}})
    with pytest.raises(ValidationError, match="at least 1 item"):
        JobConfig.model_validate(job | {"xgboost": {"features": []}})
    wide = {"cube": {"bands": ["B04", "B08", "B11"]}, "xgboost": {"features": ["bands", "ndmi"]}}
    assert JobConfig.model_validate(job | wide).xgboost.n_features is not None


@pytest.mark.parametrize("name", SMALL)
def test_a_fit_tells_of_indices_that_leave_their_range(tmp_path, caplog, name):
    settings = settings_of(name, features=["bands", "dark[0,0.1]=B08", "ndvi"])
    fitted(name, settings, tmp_path / "fit", (2,))
    (said,) = [record.getMessage() for record in caplog.records if "features:" in record.getMessage()]
    assert "values of 'dark' leave its range and count as its ends; give it a wider one: dark[low,high]=B08" in said
