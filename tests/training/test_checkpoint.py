"""Checkpoints: what was saved predicts the same, and damage is named."""

import json

import numpy as np
import pytest
import torch

from cropray.errors import MissingArtefactError, SchemaError
from cropray.training.cnn.checkpoint import CARD_FILE, WEIGHTS_FILE, CnnCheckpoint, load_checkpoint, save_checkpoint
from tests.training.small_fits import CLASSES, STATS, block, network


@pytest.fixture
def checkpoint():
    return CnnCheckpoint(network().eval(), STATS, CLASSES, "abc", {"seed": 3})


def test_a_saved_model_predicts_the_same(tmp_path, checkpoint):
    save_checkpoint(tmp_path / "unit", checkpoint)
    loaded = load_checkpoint(tmp_path / "unit")
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
    assert np.array_equal(load_checkpoint(tmp_path).predict_proba(block(1).x), checkpoint.predict_proba(block(1).x))


def test_missing_damaged_and_foreign_checkpoints_are_named(tmp_path, checkpoint):
    with pytest.raises(MissingArtefactError, match="cropray search"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, checkpoint)
    weights = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(weights[:100])
    with pytest.raises(SchemaError, match="damaged"):
        load_checkpoint(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(weights)
    card = json.loads((tmp_path / CARD_FILE).read_text())
    (tmp_path / CARD_FILE).write_text(json.dumps({**card, "kind": "xgboost"}))
    with pytest.raises(SchemaError, match=r"\('xgboost', 1\); needed: \('cnn', 1\)"):
        load_checkpoint(tmp_path)
