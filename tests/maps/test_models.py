"""Both kinds of model behind one face, from a folder and from MLflow's registry."""

import json

import mlflow
import numpy as np
import pandas as pd
import pytest

from cropray.bands import FEATURE_COLUMNS
from cropray.errors import MissingArtefactError, SchemaError
from cropray.maps.models import load_model
from cropray.tracking import CHAMPION, EvaluationRecord, ModelPackage, Tracker
from cropray.workspace import Workspace
from tests.maps.builders import CLASSES, draw_image, save_cnn, save_trees


@pytest.mark.parametrize("save", [save_cnn, save_trees])
def test_probabilities_sum_to_one(tmp_path, save):
    model = load_model(save(tmp_path))
    composite, _, _ = draw_image(20, 31)
    probabilities = model.predict_tiles(np.stack([composite, composite[..., ::-1]]))
    assert probabilities.shape == (2, len(CLASSES), 20, 31)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert model.classes == CLASSES


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(MissingArtefactError, match="run `cropray search"):
        load_model(tmp_path)


@pytest.mark.parametrize("card", ["{", "[]", '{"kind": "forest"}'])
def test_a_foreign_card_is_refused(tmp_path, card):
    (tmp_path / "card.json").write_text(card)
    with pytest.raises(SchemaError, match=r"damaged|kind 'forest'"):
        load_model(tmp_path)


@pytest.mark.parametrize(("name", "save"), [("cropray-cnn", save_cnn), ("cropray-xgboost", save_trees)])
def test_the_registered_champion_predicts_like_the_folder(tmp_path, monkeypatch, name, save):
    monkeypatch.chdir(tmp_path)
    folder = save(tmp_path / "model")
    model = load_model(folder)
    tracker = Tracker(Workspace(tmp_path), "landscape")
    run = tracker.evaluate_run("any", EvaluationRecord("e", {}, {}, folder))
    package = ModelPackage(folder, model.input_shape, model.output_shape, model.requirements)
    assert tracker.register(name, package, run) == "1"

    mlflow.set_tracking_uri(tracker.uri)
    served = mlflow.pyfunc.load_model(f"models:/{name}@{CHAMPION}")
    samples = (
        draw_image(24, 24)[0][None]
        if name == "cropray-cnn"
        else np.random.default_rng(0).integers(0, 4000, (9, 48)).astype(np.uint16)
    )
    np.testing.assert_array_equal(served.predict(samples), model.predict_samples(samples))


def test_pixels_may_come_as_a_table_in_any_column_order(tmp_path):
    from cropray.maps.serving import _load_pyfunc

    served = _load_pyfunc(str(save_trees(tmp_path)))
    pixels = np.random.default_rng(0).integers(0, 4000, (9, 48)).astype(np.uint16)
    table = pd.DataFrame(pixels, columns=list(FEATURE_COLUMNS))[list(reversed(FEATURE_COLUMNS))]
    np.testing.assert_array_equal(served.predict(table), served.predict(pixels))


def test_the_card_names_the_classes(tmp_path):
    card = json.loads((save_trees(tmp_path) / "card.json").read_text())
    assert [record["name"] for record in card["classes"]] == [crop.name for crop in CLASSES]
