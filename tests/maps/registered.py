"""Models in a registry as `evaluate` leaves them there, and processes that know nothing of cropray."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from cropray.evaluation.models import load_model
from cropray.io.storage import folder_hash
from cropray.tracking import Candidate, Merit, ModelForm, Tracker
from tests.maps.builders import draw_image, save_blend, save_cnn, save_ltae, save_temp_cnn, save_trees
from tests.study import FEATURE_COLUMNS
from tests.tracking_history import evaluation_note

NAME = "two rivers"
SAVE = {"cnn": save_cnn, "xgboost": save_trees, "temp_cnn": save_temp_cnn, "ltae": save_ltae, "blend": save_blend}
# What a registered model may not need; `cropray` itself is refused as well.
REFUSED = ["cropray", "ray", "rasterio", "geopandas", "shapely", "pydantic_settings", "upath", "pyogrio", "ee", "numba"]
PREDICT = """
import importlib.abc, json, sys
from pathlib import Path

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused!r}:
            raise ModuleNotFoundError(f"refused: {{name}}", name=name)

sys.meta_path.insert(0, Refuse())
import mlflow, numpy as np, pandas as pd
mlflow.set_tracking_uri({uri!r})
model = mlflow.pyfunc.load_model({model!r})
given = np.load({samples!r})
given = pd.DataFrame(given, columns=json.loads({columns!r})) if given.ndim == 2 else given
np.save({answer!r}, np.asarray(model.predict(given)))
"""


def register(workspace, family, value=0.7):
    """Save and register a model; returns (its tracker, the trained model)."""
    folder = SAVE[family](workspace.root / "models" / family)
    model = load_model(folder)
    tracker = Tracker(workspace, NAME)
    form = ModelForm(
        model.loader,
        model.columns,
        model.input_shape,
        model.output_shape,
        tuple(c.name for c in model.classes),
        {"k": 1},
    )
    merit = Merit(family, "d1", "val_accuracy", value, greater_is_better=True)
    asked = Candidate(folder_hash(folder), form, merit)
    tracker.note(evaluation_note(NAME, key=f"evaluate/{family}/e", model=family, candidate=asked))
    assert tracker.sync() == 0, tracker.trouble()
    return tracker, model


def samples(family):
    """Pixels [N, 48] or tiles [1, T, C, H, W], uint16, some of them 0."""
    if family in ("cnn", "blend"):
        return draw_image(24, 20)[0][None]
    pixels = np.random.default_rng(3).integers(0, 4000, (40, 48)).astype(np.uint16)
    pixels[::7, ::5] = 0
    return pixels


def table(pixels):
    """Pixels as a table of the default integers of pandas."""
    return pd.DataFrame(pixels.astype(np.int64), columns=list(FEATURE_COLUMNS))


def predict_elsewhere(python, uri, family, folder: Path, refused=(), model=f"models:/{NAME}@champion"):
    """Predictions by another interpreter, which starts in an empty folder and cannot import cropray."""
    np.save(folder / "samples.npy", samples(family))
    script = PREDICT.format(
        refused=set(refused),
        uri=uri,
        model=model,
        samples=str(folder / "samples.npy"),
        columns=json.dumps(list(FEATURE_COLUMNS)),
        answer=str(folder / "answer.npy"),
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [python, "-I", "-c", script], capture_output=True, text=True, cwd=folder, env=kept, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(folder / "answer.npy")


def this_python():
    return sys.executable
