"""Checkpoints: what was saved predicts the same, and damage is named."""

import json

import numpy as np
import pytest
import torch

from cropray.core.errors import ConfigError, MissingArtefactError, SchemaError
from cropray.evaluation.models import load_model
from cropray.training.card import CARD_FILE, recorded_features
from cropray.training.deep.checkpoint import WEIGHTS_FILE, NetworkCheckpoint, load_checkpoint, save_checkpoint
from tests.maps.builders import save_trees
from tests.training.small_fits import CLASSES, STATS, block, network


@pytest.fixture
def checkpoint():
    return NetworkCheckpoint(network().eval(), STATS, CLASSES, "abc", {"seed": 3}, kind="cnn")


def test_a_saved_model_predicts_the_same(tmp_path, checkpoint):
    save_checkpoint(tmp_path / "unit", checkpoint)
    loaded = load_checkpoint(tmp_path / "unit", "cnn")
    x = block(1).x
    probabilities = loaded.predict_proba(x)
    assert np.array_equal(probabilities, checkpoint.predict_proba(x))
    assert probabilities.shape == (len(x), len(CLASSES), *x.shape[3:])
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert (loaded.stats, loaded.classes, loaded.legend_hash, loaded.provenance) == (STATS, CLASSES, "abc", {"seed": 3})
    assert {file.name for file in (tmp_path / "unit").iterdir()} == {CARD_FILE, WEIGHTS_FILE}


def test_running_moments_are_saved(tmp_path, checkpoint):
    checkpoint.model.train()(torch.randn(2, 12, 4, 8, 8))
    checkpoint.model.eval()
    save_checkpoint(tmp_path, checkpoint)
    assert np.array_equal(
        load_checkpoint(tmp_path, "cnn").predict_proba(block(1).x), checkpoint.predict_proba(block(1).x)
    )


def test_missing_damaged_and_foreign_checkpoints_are_named(tmp_path, checkpoint):
    with pytest.raises(MissingArtefactError, match="cropray search"):
        load_checkpoint(tmp_path, "cnn")
    save_checkpoint(tmp_path, checkpoint)
    weights = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(weights[:100])
    with pytest.raises(SchemaError, match="damaged"):
        load_checkpoint(tmp_path, "cnn")
    (tmp_path / WEIGHTS_FILE).write_bytes(weights)
    card = json.loads((tmp_path / CARD_FILE).read_text())
    (tmp_path / CARD_FILE).write_text(json.dumps({**card, "kind": "xgboost"}))
    with pytest.raises(SchemaError, match=r"\('xgboost', 1\); needed: \('cnn', 1\)"):
        load_checkpoint(tmp_path, "cnn")


@pytest.mark.parametrize(
    "damage",
    [
        {"config": None},
        {"config": {"n_classes": 4, "n_months": 12, "n_bands": 4, "widths": 3}},
        {"config": {"n_classes": 4, "n_months": 12, "n_bands": 4, "temporal_channels": 16}},
        {"stats": {"mean": [1.0]}},
        {"classes": "many"},
        {"classes": [{"name": "crop"}] * 4},
        {"classes": []},
        {"cube": {"bands": [], "step": "month"}},
        {"cube": {"bands": [{"id": "B02", "unit": "reflectance", "scale": 1.0, "offset": 0.0}], "step": "month", "months": 5}},
        {"legend_hash": ...},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_card_is_named_whatever_is_wrong(tmp_path, checkpoint, damage):
    save_checkpoint(tmp_path, checkpoint)
    card = {**json.loads((tmp_path / CARD_FILE).read_text()), **damage}
    kept = {name: value for name, value in card.items() if value is not ...}
    (tmp_path / CARD_FILE).write_text(json.dumps(kept))
    with pytest.raises(SchemaError, match=f"'{tmp_path}/.* is damaged, or of another version"):
        load_checkpoint(tmp_path, "cnn")


def test_why_a_network_of_ones_own_is_not_known_is_said(tmp_path, checkpoint):
    save_checkpoint(tmp_path, checkpoint)
    card = json.loads((tmp_path / CARD_FILE).read_text())
    (tmp_path / CARD_FILE).write_text(json.dumps({**card, "net": "lost_net", "modules": ["nobody.knows"]}))
    with pytest.raises(ConfigError, match=r"'lost_net' is no network.*module 'nobody.knows' cannot be imported"):
        load_checkpoint(tmp_path, "cnn")


@pytest.mark.parametrize(
    "damage", [{"inputs": ["nvdi"]}, {"inputs": 3}, {"classes": [{"id": 1}]}, {"cube": 5}, {"kind": ["a"]}], ids=str
)
def test_a_damaged_card_of_trees_is_named(tmp_path, damage):
    folder = save_trees(tmp_path / "trees")
    card = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps({**card, **damage}))
    with pytest.raises(SchemaError, match=r"trees.* is damaged, or of another version|of kind \"\['a'\]\""):
        load_model(folder)


def test_a_feature_whose_module_is_away_is_named_with_it():
    with pytest.raises(ConfigError, match=r"'theirs' is not known.*module 'no_such_package.theirs' cannot be imported"):
        recorded_features({"inputs": ["bands", "theirs"], "modules": ["no_such_package.theirs"]})
