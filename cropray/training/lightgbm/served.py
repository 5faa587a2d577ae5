"""The entry point by which MLflow loads registered trees of LightGBM; needs no pickle."""

from functools import partial
from pathlib import Path

from cropray.bands import FEATURE_COLUMNS
from cropray.training.lightgbm.tree_file import load_booster, predict_proba
from cropray.training.serving import ServedModel, class_names


def _load_pyfunc(data_path: str) -> ServedModel:
    """Load a model folder; the name is MLflow's."""
    booster, _ = load_booster(Path(data_path))
    return ServedModel(class_names(Path(data_path)), FEATURE_COLUMNS, partial(predict_proba, booster))
