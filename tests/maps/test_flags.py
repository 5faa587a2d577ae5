"""What a map says beside the class: the group of an unsure pixel, a pixel unlike those of training, and what nobody saw."""

import importlib
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import rasterio

from cropray.core.cube import STUDY_CUBE
from cropray.core.grid import Grid
from cropray.core.until_step import hide_after
from cropray.evaluation.models import load_model, note_until
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.maps.cog import BANDS
from cropray.maps.predict import predict_zone
from cropray.maps.settings import MapSettings
from cropray.maps.zone import MapJob, map_zone
from cropray.search.likeness import fit_likeness
from tests.maps.builders import CLASSES, LEGEND, RULE, draw_image, ruled, save_cnn, save_trees, write_zone

GRID = Grid(32631, 500_040.0, 5_400_000.0, 50, 61)
ZONE = Zone("beauce-1", "beauce", "test", GRID)
WHOLE, STEP = (512, 512), 7
GROUPS, NAMES = [0, 1, 0, 2, 2], ["cereals", "rape", "permanent"]
FALL_BACK = {"below_percent": 70, "groups": GROUPS, "names": NAMES}


def noted(folder, **more):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **more}))
    return folder


def as_rows(composite):
    return composite.transpose(2, 3, 1, 0).reshape(-1, 48)


def usual(composite, step=None):
    """What is like the pixels of a composite, as far as a model sees them."""
    rows = as_rows(composite if step is None else hide_after(composite[None], STUDY_CUBE, step)[0])
    rows = rows[rows.any(1)]
    likeness = fit_likeness(rows, np.ones(len(rows)))
    return replace(likeness, least=float(likeness.of(rows).min()))


def served(folder, composite):
    """Answers and flags [H, W] of a served model, of pixels or of tiles."""
    model = importlib.import_module(load_model(folder).loader)._load_pyfunc(str(folder))
    x = pd.DataFrame(as_rows(composite), columns=list(model.columns)) if model.columns else composite[None]
    return lambda output: model.predict(x, {"output": output}).reshape(composite.shape[-2:])


@pytest.mark.parametrize("save", [save_trees, save_cnn])
@pytest.mark.parametrize("rule", [{}, RULE], ids=["likeliest", "rule"])
def test_unsure_pixels_are_answered_by_the_group_of_most(tmp_path, save, rule):
    composite, n_obs, _ = draw_image()
    plain = load_model(ruled(save(tmp_path / "plain"), rule))
    probabilities = plain.predict_tiles(composite[None])[0]
    plain_map = predict_zone(plain, composite, n_obs, WHOLE)
    below = int(np.median(plain_map.confidence)) + 1
    folder = ruled(save(tmp_path / "m"), {**rule, "fall_back": {**FALL_BACK, "below_percent": below}})
    found = predict_zone(load_model(folder), composite, n_obs, WHOLE)
    favoured = probabilities * np.array(rule.get("multipliers", [1.0] * 5), np.float32)[:, None, None]
    of_group = np.stack([favoured[[0, 2]].sum(0), favoured[1], favoured[[3, 4]].sum(0)]).argmax(0)
    is_unsure = plain_map.confidence < below
    expected = np.where(is_unsure, 1 + of_group, 0)
    expected[0, 0] = 255
    np.testing.assert_array_equal(found.group, expected)
    assert is_unsure.mean() > 0.4
    for name in ("class_id", "confidence", "second_id", "n_clear"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain_map, name))
    if save is save_trees:  # convolutions of another size round otherwise
        tiled = predict_zone(load_model(folder), composite, n_obs, (45, 45))
        np.testing.assert_array_equal(tiled.group, found.group)
    names, answers = served(folder, composite)("names"), served(folder, composite)("answers")
    told = np.array(["", *NAMES], object)[np.where(expected == 255, 0, expected)]
    seen = expected != 255
    np.testing.assert_array_equal(answers[seen], np.where(expected > 0, told, names)[seen])
    with pytest.raises(ValueError, match=r"its job asked for none \(decision\.fall_back\)"):
        served(tmp_path / "plain", composite)("answers")


@pytest.mark.parametrize("save", [save_trees, save_cnn])
@pytest.mark.parametrize("until", [None, STEP])
def test_a_planted_strange_field_is_unlike(tmp_path, save, until):
    composite, n_obs, _ = draw_image()
    folder = noted(save(tmp_path / "m"), likeness=usual(composite, until).to_record())
    if until is not None:
        note_until(folder, until, load_model)
    strange = composite.copy()
    strange[:, 0, 10:20, 30:45] += 12_000
    strange[STEP:, :, 30:40, :20] = 60_000  # in later steps alone
    found = predict_zone(load_model(folder), strange, n_obs, (50, 40))
    expected = np.zeros((50, 61), np.uint8)
    expected[10:20, 30:45] = 1
    expected[30:40, :20] = until is None
    expected[0, 0] = 255
    np.testing.assert_array_equal(found.unlike, expected)
    flags = served(folder, strange)("unlike")
    np.testing.assert_array_equal(flags[expected != 255], (expected == 1)[expected != 255])


def test_the_file_has_the_bands_that_were_asked_for_and_says_what_groups_are(tmp_path):
    composite, n_obs, _ = draw_image()
    job = MapJob("xgboost", LEGEND, MapSettings(), Workspace(tmp_path))
    write_zone(job.workspace, ZONE, composite, n_obs)
    flags = {"group": {"decision": {"fall_back": FALL_BACK}}, "unlike": {"likeness": usual(composite).to_record()}}
    for asked in ((), ("group",), ("unlike",), ("group", "unlike")):
        more = {key: value for name in asked for key, value in flags[name].items()}
        model = load_model(noted(save_trees(tmp_path / "-".join(("m", *asked))), **more))
        map_zone(model, ZONE, job)
        expected = predict_zone(model, composite, n_obs, WHOLE)
        with rasterio.open(job.workspace.map("xgboost", "beauce-1")) as dataset:
            assert dataset.descriptions == (*BANDS, *asked)
            assert (dataset.nodata, set(dataset.dtypes)) == (255, {"uint8"})
            for name in asked:
                np.testing.assert_array_equal(
                    dataset.read(dataset.descriptions.index(name) + 1), getattr(expected, name)
                )
            tags = dataset.tags()
            assert ("CROPRAY_GROUPS" in tags) == ("group" in asked)
            if "group" in asked:
                assert json.loads(tags["CROPRAY_GROUPS"]) == {"1": "cereals", "2": "rape", "3": "permanent"}
                assert tags["CROPRAY_GROUP_BELOW"] == "70"


@pytest.mark.parametrize("save", [save_trees, save_cnn])
def test_a_pixel_that_was_seen_too_late_is_left_blank(tmp_path, save):
    composite, n_obs, _ = draw_image()
    for late in (composite[:STEP], n_obs[:STEP]):
        late[..., 5:9, 50:] = 0  # seen, but in later steps alone
    whole = load_model(save(tmp_path / "m"))
    note_until(tmp_path / "m", STEP, load_model)
    found = predict_zone(load_model(tmp_path / "m"), composite, n_obs, WHOLE)
    is_blank = np.zeros((50, 61), bool)
    is_blank[0, 0] = is_blank[5:9, 50:] = True
    for layer in (found.class_id, found.confidence, found.second_id):
        np.testing.assert_array_equal(layer == 255, is_blank)
    np.testing.assert_array_equal(found.n_clear, (n_obs[:STEP] > 0).sum(0))
    assert (predict_zone(whole, composite, n_obs, WHOLE).class_id == 255).sum() == 1
    assert {crop.id for crop in CLASSES} >= set(found.class_id[~is_blank].tolist())
