"""Registered models as others load and ask them: by MLflow alone."""

import importlib
import json
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from cropray.evaluation.models import load_model
from cropray.io.storage import write_json
from cropray.io.workspace import Workspace
from cropray.search.likeness import fit_likeness
from cropray.tracking.model_code import model_code
from tests.maps import registered
from tests.maps.builders import CLASSES, RULE, ruled
from tests.maps.registered import NAME, REFUSED, predict_elsewhere, register, samples, table
from tests.study import FEATURE_COLUMNS

NAMES = [crop.name for crop in CLASSES]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A workspace whose store holds a model of each family, its tracker and the trained models."""
    workspace = Workspace(tmp_path_factory.mktemp("registered"))
    trained = {}
    for family in ("xgboost", "cnn", "temp_cnn", "ltae", "blend"):
        tracker, trained[family] = register(workspace, family)
    return tracker, trained


@pytest.fixture
def served(store):
    """How MLflow loads a family's best version."""
    mlflow.set_tracking_uri(store[0].uri)
    return lambda family: mlflow.pyfunc.load_model(f"models:/{NAME}@{family}")


@pytest.fixture
def expected(store):
    return store[1]["xgboost"].predict_samples(samples("xgboost"))


def shuffled(pixels, seed):
    return table(pixels).sample(frac=1, axis=1, random_state=seed)


@pytest.mark.parametrize(
    "given",
    [
        table,
        lambda pixels: table(pixels).astype(np.float32),
        lambda pixels: table(pixels).astype("uint16"),
        lambda pixels: shuffled(pixels, 5).astype("Int64"),
        lambda pixels: shuffled(pixels, 6).astype(np.float64).replace(0.0, np.nan),
        lambda pixels: shuffled(pixels, 7).assign(parcel="p1", B01_01=7),
        lambda pixels: table(pixels).set_axis([f"id-{i}" for i in range(len(pixels))]),
    ],
    ids=["int64", "float32", "uint16", "nullable", "null", "extra columns", "index"],
)
def test_a_table_is_read_by_name_whatever_its_types(served, expected, given):
    asked = given(samples("xgboost"))
    answer = served("xgboost").predict(asked)
    assert list(answer.columns) == NAMES
    assert answer.index.equals(asked.index)
    np.testing.assert_array_equal(answer.to_numpy(), expected)


def test_some_rows_of_a_table(served, expected):
    np.testing.assert_array_equal(served("xgboost").predict(table(samples("xgboost"))[11:23:3]), expected[11:23:3])
    assert served("xgboost").predict(table(samples("xgboost"))[:0]).shape == (0, len(NAMES))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=["B03_07", "B08_01"]), r"missing inputs \['B03_07', 'B08_01'\]"),
        (lambda t: t / 10_000, "as reflectances and indices do; needed are whole digital numbers"),
        (lambda t: t.assign(B04_02=-3), "column 'B04_02', row 0 holds -3"),
        (lambda t: t.assign(B04_03=70_000.0), "column 'B04_03', row 0 holds 70000"),
        (lambda t: t.assign(B02_05="bare soil"), r"columns \['B02_05'\] hold values that are no numbers"),
        (lambda t: t.rename(columns={"B02_01": "b02_01"}), r"missing inputs \['B02_01'\]"),
    ],
)
def test_a_table_that_would_be_misread_is_refused(served, change, message):
    with pytest.raises((MlflowException, ValueError), match=message):
        served("xgboost").predict(change(table(samples("xgboost")).clip(1)))


def test_names_instead_of_probabilities(served, store, expected):
    names = served("xgboost").predict(table(samples("xgboost")), params={"output": "names"})
    assert list(names) == [NAMES[i] for i in expected.argmax(1)]
    tiles = samples("cnn")
    of_pixels = served("cnn").predict(tiles, params={"output": "names"})
    wanted = np.array(NAMES)[store[1]["cnn"].predict_samples(tiles).argmax(1)]
    np.testing.assert_array_equal(of_pixels.astype(str), wanted)
    with pytest.raises((MlflowException, ValueError), match="'probabilities' or 'names'"):
        served("xgboost").predict(table(samples("xgboost")), params={"output": "labels"})


def test_tiles_are_given_by_axes(served, store):
    tiles = samples("cnn")
    np.testing.assert_array_equal(served("cnn").predict(tiles), store[1]["cnn"].predict_samples(tiles))
    with pytest.raises(MlflowException, match="does not match expected"):
        served("cnn").predict(tiles[:, :, :3])


def test_a_version_says_how_it_is_asked(served):
    for family, names in (("xgboost", list(FEATURE_COLUMNS)), ("temp_cnn", list(FEATURE_COLUMNS)), ("cnn", [0])):
        model = served(family)
        assert model.metadata.signature.inputs.input_names() == names
        assert model.metadata.metadata == {"classes": NAMES, "k": 1}
        assert model.metadata.signature.params.params[0].name == "output"
        answer = model.predict(model.input_example)
        assert answer.shape[:2] == (1, len(NAMES))


@pytest.mark.parametrize("family", ["xgboost", "cnn", "temp_cnn", "ltae", "blend"])
def test_a_version_needs_nothing_of_cropray(store, tmp_path, family):
    tracker, trained = store
    of_others = {"xgboost": ["torch", "safetensors"], "blend": []}
    refused = [*REFUSED, *of_others.get(family, ["xgboost"])]
    python, model = registered.this_python(), f"models:/{NAME}@{family}"
    answer = predict_elsewhere(python, tracker.uri, family, tmp_path, refused, model)
    # A network adds the pixels of a table in another order than those of tiles.
    np.testing.assert_allclose(
        answer, trained[family].predict_samples(samples(family)), rtol=1e-5 * (family == "blend")
    )


def test_requirements_are_what_the_model_imports(store):
    mlflow.set_tracking_uri(store[0].uri)
    wanted = {
        "xgboost": {"mlflow", "numpy", "pandas", "xgboost"},
        "cnn": {"mlflow", "numpy", "pandas", "safetensors", "torch"},
        "blend": {"mlflow", "numpy", "pandas", "safetensors", "torch", "xgboost"},
    }
    for family, names in wanted.items():
        lines = Path(mlflow.pyfunc.get_model_dependencies(f"models:/{NAME}@{family}")).read_text().split()
        assert {line.partition("==")[0] for line in lines} == names
        assert all(line.partition("==")[2] and "+" not in line for line in lines)


def test_loading_a_model_hides_no_installed_package(served):
    import cropray

    served("xgboost")
    import cropray.stages.results

    assert cropray.stages.results.__file__.startswith(cropray.__path__[0])


@pytest.mark.parametrize("family", ["xgboost", "cnn", "temp_cnn"])
def test_a_version_decides_as_maps_do(tmp_path, family):
    """The carried code reads the card by itself."""
    folder = ruled(registered.SAVE[family](tmp_path / "model"), RULE)
    model, x = load_model(folder), samples(family)
    served = importlib.import_module(model.loader)._load_pyfunc(str(folder))
    given = table(x) if family == "xgboost" else x
    np.testing.assert_array_equal(np.asarray(served.predict(given)), model.predict_samples(x))
    names, of_model = served.predict(given, {"output": "names"}), model.decision.decide(model.predict_samples(x), 1)
    np.testing.assert_array_equal(names, np.array(NAMES, object)[of_model])
    assert family == "temp_cnn" or (names != np.array(NAMES)[model.predict_samples(x).argmax(1)]).any()
    is_in = np.asarray(served.predict(given, {"output": "sets"}))
    np.testing.assert_array_equal(is_in, model.predict_samples(x) >= RULE["set_threshold"])
    assert is_in.any()
    plain = importlib.import_module(model.loader)._load_pyfunc(str(registered.SAVE[family](tmp_path / "plain")))
    with pytest.raises(ValueError, match=r"no sets of classes.*decision\.coverage"):
        plain.predict(given, {"output": "sets"})
    assert "training/decision.py" in model_code(model.loader).files


@pytest.mark.parametrize("family", ["xgboost", "cnn", "temp_cnn", "blend"])
def test_a_version_flags_pixels_that_are_unlike_the_training_zones(tmp_path, family):
    """Of whatever family: it looks at the pixel alone."""
    folder, x = registered.SAVE[family](tmp_path / "model"), samples(family)
    pixels = x if x.ndim == 2 else x.transpose(0, 3, 4, 2, 1).reshape(-1, 48)
    likeness = fit_likeness(pixels, np.ones(len(pixels)))
    least = float(np.median(likeness.of(pixels)))
    card = json.loads((folder / "card.json").read_text())
    write_json(folder / "card.json", {**card, "likeness": replace(likeness, least=least).to_record()})
    served = importlib.import_module(load_model(folder).loader)._load_pyfunc(str(folder))
    told = served.predict(table(x) if family in ("xgboost", "temp_cnn") else x, {"output": "unlike"})
    assert told.shape == (x.shape[:1] if x.ndim == 2 else (x.shape[0], *x.shape[3:]))
    np.testing.assert_array_equal(told.reshape(-1), likeness.of(pixels) < least)
    assert 0.4 < told.mean() < 0.6
    plain = importlib.import_module(load_model(folder).loader)._load_pyfunc(
        str(registered.SAVE[family](tmp_path / "plain"))
    )
    with pytest.raises(ValueError, match=r"flags no pixels.*decision\.unlike"):
        plain.predict(x, {"output": "unlike"})
    assert "training/likeness.py" in model_code(load_model(folder).loader).files


def ask(url, **body):
    request = urllib.request.Request(
        f"{url}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        return error.read().decode()


@pytest.mark.slow
def test_a_model_server_reads_tables_by_name(store, expected, tmp_path):
    from tests.servers.model import ModelServer

    asked = shuffled(samples("xgboost"), 8).assign(parcel="p2")
    with ModelServer(tmp_path, store[0].uri, f"models:/{NAME}@xgboost") as server:
        for body in (
            {"dataframe_split": json.loads(asked.to_json(orient="split"))},
            {"dataframe_records": json.loads(asked.astype({"B02_01": float}).to_json(orient="records"))},
            {"inputs": asked.to_dict(orient="list")},
        ):
            answer = pd.DataFrame(ask(server.url, **body))
            np.testing.assert_allclose(answer[NAMES].to_numpy(), expected, rtol=1e-6)
        split = json.loads(asked.to_json(orient="split"))
        names = ask(server.url, dataframe_split=split, params={"output": "names"})
        assert names == [NAMES[i] for i in expected.argmax(1)]
        lacking = json.loads(asked.drop(columns="B03_11").to_json(orient="split"))
        assert "B03_11" in ask(server.url, dataframe_split=lacking)
