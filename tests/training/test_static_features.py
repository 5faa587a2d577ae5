"""Features without time in models of pixels: where they stand, and that models learn by them."""

import json

import numpy as np
import pyarrow as pa
import pytest

from cropray.core.cube import CubeSpec, PointCube
from cropray.core.features import FeatureSet
from cropray.core.sensors import Band, known_band
from cropray.training.card import recorded_features
from cropray.training.family import family
from tests.training.pixel_fits import fitted
from tests.training.tree_rows import CLASSES, tree_data

CUBE = PointCube(
    (known_band("B04"), known_band("B08")), "month", 3, (Band("elevation", "m", 1.0, -500.0), Band("soil", "kind", 1.0, 0.0))
)  # fmt: skip
BARE = CubeSpec(CUBE.bands, CUBE.step, CUBE.months)
SMALL = {
    "xgboost": {"max_depth": 3, "learning_rate": 0.5},
    "lightgbm": {"num_leaves": 7, "min_child_samples": 5},
    "forest": {"max_features": 1.0},
}
LISTS = [("bands",), ("ndvi", "quantiles"), ("ndvi", "differences", "bands")]


def rows(seed, n=320):
    """Bands of chance; the class is told by the elevation alone, or by its absence."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, len(CLASSES), n)
    elevation = np.where(kind == 3, 0, 300 + 400 * kind + rng.integers(0, 300, n))
    columns = {name: rng.integers(1, 6000, n) for name in BARE.columns} | {"elevation": elevation}
    columns["soil"] = rng.integers(0, 9, n)
    labels = np.array([crop.id for crop in CLASSES], np.uint8)[kind]
    return pa.table({"label": labels, **{name: values.astype(np.uint16) for name, values in columns.items()}})


def raw(table):
    return np.stack([table[name].to_numpy() for name in CUBE.columns], 1)


@pytest.mark.parametrize("names", LISTS)
def test_they_stand_after_the_list_as_they_are_and_change_nothing_of_it(names):
    x = raw(rows(1))
    with_static, bare = FeatureSet(CUBE, names), FeatureSet(BARE, names)
    assert with_static.columns == (*bare.columns, "elevation", "soil")
    found = with_static.compute(x)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[:, :-2], bare.compute(np.ascontiguousarray(x[:, :6])))
    np.testing.assert_array_equal(found[:, -2:], x[:, -2:])
    assert with_static.beyond(x) == bare.beyond(np.ascontiguousarray(x[:, :6]))
    assert with_static.is_raw == (names == ("bands",))


@pytest.mark.parametrize("names", LISTS[:2])
@pytest.mark.parametrize("name", SMALL)
def test_trees_learn_by_them_and_are_served_by_their_columns(name, names, tmp_path):
    settings, data = family(name).settings(**SMALL[name], features=names), {"train": tree_data(a=rows(1), b=rows(2))}
    (score,), model = fitted(name, settings, tmp_path, (6,), **data, val=tree_data(c=rows(3)), cube=CUBE)
    assert np.trace(score.confusion) > 0.95 * 320
    assert model.columns == CUBE.columns
    assert model.input_shape == (-1, 8)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["features"][-2:] == ["elevation", "soil"]
    assert recorded_features(card).cube == CUBE
    test = rows(4)
    served = __import__(model.loader, fromlist=["_load_pyfunc"])._load_pyfunc(str(tmp_path))
    asked = (
        test.to_pandas().sample(frac=1, axis=1, random_state=1).astype({"soil": float}).replace({"soil": {0.0: np.nan}})
    )
    np.testing.assert_array_equal(served.predict(asked).to_numpy(), model.predict_samples(raw(test)))
    with pytest.raises(ValueError, match=r"lacks the columns \['elevation'\]"):
        served.predict(asked.drop(columns="elevation"))
    with pytest.raises(ValueError, match="column 'elevation', row 2 holds -3"):
        served.predict(asked.assign(elevation=[5, 5, -3, *[5] * 317]))


def test_memory_is_counted_with_them():
    settings = family("forest").settings(features=("ndvi",))
    assert settings.n_features(CUBE) == settings.n_features(BARE) + 2
    assert CUBE.n_features == BARE.n_features + 2 == 8
