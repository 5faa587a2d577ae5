"""Both kinds of model behind one face."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cropray.core.closure import closure
from cropray.core.errors import MissingArtefactError, SchemaError
from cropray.evaluation.models import entries_of, load_model
from cropray.training.decision import Decision
from cropray.training.family import family
from tests.maps.builders import CLASSES, RULE, draw_image, ruled, save_cnn, save_ltae, save_temp_cnn, save_trees

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.parametrize("card", ["{", "[]", '{"kind": "moss"}'])
def test_a_foreign_card_is_refused(tmp_path, card):
    (tmp_path / "card.json").write_text(card)
    with pytest.raises(SchemaError, match=r"damaged|kind 'moss'"):
        load_model(tmp_path)


def test_trees_do_not_wait_for_torch(tmp_path):
    save_trees(tmp_path)
    code = "import sys; from pathlib import Path; from cropray.evaluation.models import load_model; load_model(Path(sys.argv[1]))"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_the_card_names_the_classes(tmp_path):
    card = json.loads((save_trees(tmp_path) / "card.json").read_text())
    assert [record["name"] for record in card["classes"]] == [crop.name for crop in CLASSES]


@pytest.mark.parametrize(
    ("name", "save", "net"),
    [("cnn", save_cnn, "CropNet"), ("temp_cnn", save_temp_cnn, "TempCnn"), ("temp_cnn", save_ltae, "Ltae")],
)
def test_what_predicts_decides_maps_and_no_recipe(tmp_path, name, save, net):
    """The card may be of a later version, whose training has settings that are not known here."""
    card = json.loads((save(tmp_path) / "card.json").read_text())
    card["provenance"]["settings"] = {"loss": {"name": "focal", "gamma": 3}, "sampler": "by_area", "momentum": 0.5}
    (tmp_path / "card.json").write_text(json.dumps(card))
    found = entries_of(family(name), tmp_path)
    assert [entry.__name__ for entry in found] == [net]
    used = closure(family(name).load, *found).symbols
    assert not [symbol for symbol in used if "deep.losses:" in symbol or "deep.optim:" in symbol or ":train_" in symbol]


def test_trees_look_nothing_up_to_predict(tmp_path):
    assert entries_of(family("xgboost"), save_trees(tmp_path)) == ()
    assert entries_of(family("cnn"), tmp_path / "none") == ()


@pytest.mark.parametrize("save", [save_cnn, save_trees, save_temp_cnn])
def test_what_was_learnt_out_of_fold_is_a_part_of_the_model(tmp_path, save):
    plain, x = load_model(save(tmp_path / "plain")), draw_image(20, 24)[0][None]
    model = load_model(ruled(save(tmp_path / "ruled"), RULE))
    wanted = Decision(tuple(RULE["multipliers"]), RULE["temperature"], RULE["set_threshold"])
    assert model.decision == wanted
    np.testing.assert_array_equal(model.predict_tiles(x), wanted.tempered(plain.predict_tiles(x), 1))
    assert (model.margin_px, model.columns, model.loader) == (plain.margin_px, plain.columns, plain.loader)
    assert model.bytes_per_px > plain.bytes_per_px
    assert type(load_model(ruled(tmp_path / "plain", {}))) is type(plain)


def test_a_rule_that_does_not_fit_its_model_is_damage(tmp_path):
    with pytest.raises(SchemaError, match=r"card\.json.*3 multipliers for 5 classes"):
        load_model(ruled(save_trees(tmp_path), {"multipliers": [1.0, 2.0, 3.0]}))
