"""Models of an unfinished season: no later step changes a fit or a prediction, here or where a registered model is served."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cropray.core.closure import closure
from cropray.core.cube import STUDY_CUBE, PointCube
from cropray.core.sensors import SENTINEL_2
from cropray.core.until_step import hide_after
from cropray.datasets.loading import shown_until
from cropray.datasets.manifest import BandSums, statistics
from cropray.datasets.tiles import TrainingTiles
from cropray.evaluation.models import entries_of, load_model, note_until, prefix_of
from cropray.io.storage import write_json
from cropray.maps.zone import map_zone
from cropray.search.likeness import fit_likeness
from cropray.tracking.model_code import model_code
from cropray.training import until_served
from cropray.training.family import FitData, family
from tests.maps.builders import save_blend, save_cnn, save_temp_cnn, save_trees
from tests.maps.registered import REFUSED
from tests.training.pixel_fits import fit_job, fitted, xy
from tests.training.test_served_pixels import SERVE
from tests.training.tree_rows import train_zones, val_zones

STEP = 7
SMALL = {
    "xgboost": {"max_depth": 3, "learning_rate": 0.3},
    "lightgbm": {"num_leaves": 7, "min_child_samples": 5},
    "forest": {"max_depth": 6},
    "temp_cnn": {"epochs": 1, "channels": 4, "hidden": 8},
}


def other_later(x, seed=0):
    """[…, T, C, H, W] or [N, 48]: other numbers in all later steps."""
    drawn = np.random.default_rng(seed).integers(1, 9000, x.shape).astype(np.uint16)
    return np.where(hide_after(np.ones_like(x), STUDY_CUBE, STEP) == 0, drawn, x)


def rows_with_other_later_steps(rows):
    x = np.stack([rows[name].to_numpy() for name in STUDY_CUBE.columns], 1)
    return pa.table({"label": rows["label"], **dict(zip(STUDY_CUBE.columns, other_later(x).T, strict=True))})


def test_later_steps_are_missing_and_static_features_stay():
    cube = PointCube(STUDY_CUBE.bands[:2], "month", 3, (SENTINEL_2.bands[-1],))
    x = np.arange(1, 15, dtype=np.uint16).reshape(2, 7)
    np.testing.assert_array_equal(hide_after(x, cube, 2), [[1, 2, 0, 4, 5, 0, 7], [8, 9, 0, 11, 12, 0, 14]])
    np.testing.assert_array_equal(hide_after(x, cube, 3), x)
    tiles = np.ones((1, 3, 2, 1, 1), np.uint16)
    np.testing.assert_array_equal(hide_after(tiles, cube, 1)[0, :, :, 0, 0], [[1, 1], [0, 0], [0, 0]])
    assert x.all()  # a copy
    assert tiles.all()


@pytest.mark.parametrize("name", SMALL)
def test_no_later_step_enters_a_fit(name, tmp_path):
    settings, answers = family(name).settings(**SMALL[name]), []
    x, _ = xy(val_zones())
    for number, change in enumerate((lambda rows: rows, rows_with_other_later_steps)):
        shown = {z: shown_until(change(b.rows), STUDY_CUBE, STEP) for z, b in train_zones().blocks.items()}
        data = FitData(
            {z: rows for z, (rows, _) in shown.items()}, {z: rows.num_rows for z, (rows, _) in shown.items()}
        )
        parts = [[getattr(sums, part) for _, sums in shown.values()] for part in ("count", "total", "squares")]
        mean, deviation = (
            values.tolist() for values in statistics(BandSums(*(tuple(np.sum(each, 0)) for each in parts)))
        )
        more = {"n_steps": 1} if name == "temp_cnn" else {"steps": (3,)}
        job = fit_job(settings, tmp_path / str(number), val=False, mean=tuple(mean), std=tuple(deviation), **more)
        family(name).fit(replace(job, train=data))
        model = family(name).load(job.folder, "cpu")
        answers.append(model.predict_samples(hide_after(x, STUDY_CUBE, STEP)))
    np.testing.assert_array_equal(answers[0], answers[1])


def test_tiles_are_shown_and_summed_as_rows_are():
    x = np.random.default_rng(0).integers(0, 5, (3, *STUDY_CUBE.shape, 2, 2)).astype(np.uint16)
    tiles, sums = shown_until(TrainingTiles(x, np.zeros((3, 2, 2), np.uint8)), STUDY_CUBE, STEP)
    seen = x[:, :STEP]
    np.testing.assert_array_equal(tiles.x[:, :STEP], seen)
    assert not tiles.x[:, STEP:].any()
    assert sums.count == tuple((seen != 0).sum((0, 1, 3, 4)).tolist())
    assert sums.total == tuple(seen.sum((0, 1, 3, 4), dtype=float).tolist())
    assert sums.squares == tuple((seen.astype(float) ** 2).sum((0, 1, 3, 4)).tolist())
    flat = x.transpose(0, 3, 4, 2, 1).reshape(-1, 48)
    rows = pa.table({"label": np.zeros(12, np.uint8), **dict(zip(STUDY_CUBE.columns, flat.T, strict=True))})
    assert shown_until(rows, STUDY_CUBE, STEP)[1] == sums


@pytest.mark.parametrize("save", [save_trees, save_cnn, save_temp_cnn, save_blend])
def test_no_later_step_enters_a_prediction(save, tmp_path):
    whole = load_model(save(tmp_path))
    note_until(tmp_path, STEP, load_model)
    model = load_model(tmp_path)
    tiles = np.random.default_rng(1).integers(1, 4000, (1, *whole.cube.shape, 8, 8)).astype(np.uint16)
    expected = whole.predict_tiles(hide_after(tiles, whole.cube, STEP))
    np.testing.assert_array_equal(model.predict_tiles(tiles), expected)
    np.testing.assert_array_equal(model.predict_tiles(other_later(tiles)), expected)
    assert (whole.predict_tiles(tiles) != expected).any()
    assert (model.cube, model.classes, model.margin_px) == (whole.cube, whole.classes, whole.margin_px)
    assert model.bytes_per_px > whole.bytes_per_px
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["until_step"] == STEP
    symbols = closure(map_zone, *entries_of(family(card["kind"]), tmp_path)).symbols
    assert "cropray.core.until_step:hide_after" in symbols


def test_a_prefix_sees_as_little(tmp_path):
    _, whole = fitted("forest", family("forest").settings(**SMALL["forest"]), tmp_path, (4,), val=False)
    note_until(tmp_path, STEP, None)
    x, _ = xy(val_zones())
    part = prefix_of(load_model(tmp_path), family("forest").prefix, 2)
    expected = family("forest").prefix(whole, 2).predict_samples(hide_after(x, STUDY_CUBE, STEP))
    np.testing.assert_array_equal(part.predict_samples(other_later(x)), expected)


@pytest.mark.parametrize("save", [save_trees, save_blend])
def test_no_later_step_makes_a_pixel_unlike(save, tmp_path):
    save(tmp_path)
    note_until(tmp_path, STEP, load_model)
    usual = np.random.default_rng(3).integers(900, 1100, (300, 48)).astype(np.uint16)
    likeness = replace(fit_likeness(hide_after(usual, STUDY_CUBE, STEP), np.ones(300)), least=0.2)
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(card | {"likeness": likeness.to_record()}))
    served = until_served._load_pyfunc(str(tmp_path))
    x = other_later(usual)  # up to 9000, where 0 was seen
    x[-5:, 0] = 60_000
    if not served.columns:
        x = x.reshape(1, 10, 30, 4, 12).transpose(0, 4, 3, 1, 2)
    else:
        x = pd.DataFrame(x, columns=list(served.columns))
    unlike = served.predict(x, {"output": "unlike"}).ravel()
    assert unlike[-5:].all()
    assert unlike.sum() == 5


@pytest.mark.parametrize("save", [save_trees, save_blend])
def test_a_registered_model_sees_no_later_step(save, tmp_path):
    save(tmp_path / "model")
    note_until(tmp_path / "model", STEP, load_model)
    model = load_model(tmp_path / "model")
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    code = model_code(model.loader, card["modules"])
    code.write(tmp_path / "code")
    shape = (5, 48) if model.columns else (1, *model.cube.shape, 16, 16)
    x = np.random.default_rng(2).integers(1, 4000, shape).astype(np.uint16)
    np.save(tmp_path / "samples.npy", x)
    script = SERVE.format(
        refused=sorted(REFUSED), code=str(tmp_path / "code"), loader=code.loader, model=str(tmp_path / "model"),
        answer=str(tmp_path / "answer.npy"), samples=str(tmp_path / "samples.npy"),
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = np.load(tmp_path / "answer.npy")
    np.testing.assert_allclose(answer, model.predict_samples(other_later(x)), atol=1e-6)


def test_a_registered_model_tells_no_pixel_apart_by_a_later_step(tmp_path):
    x = np.random.default_rng(3).integers(1, 4000, (60, 48)).astype(np.uint16)
    hidden = hide_after(x, STUDY_CUBE, STEP)
    likeness = fit_likeness(hidden, np.ones(60))
    likeness = replace(likeness, least=float(np.median(likeness.of(hidden))))
    save_trees(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    write_json(tmp_path / "card.json", {**card, "likeness": likeness.to_record()})
    note_until(tmp_path, STEP, load_model)
    served = until_served._load_pyfunc(str(tmp_path))
    for given in (x, hidden, other_later(x)):
        np.testing.assert_array_equal(served.predict(given, {"output": "unlike"}), likeness.is_unlike(hidden))
