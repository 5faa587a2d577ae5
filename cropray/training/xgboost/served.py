"""The entry point by which MLflow loads registered trees; needs no pickle."""

from functools import partial
from pathlib import Path

from cropray.training.serving import ServedModel, served_pixels
from cropray.training.xgboost.tree_file import load_booster, predict_proba


def _load_pyfunc(data_path: str) -> ServedModel:
    """Load a model folder; the name is MLflow's."""
    booster, card = load_booster(Path(data_path))
    return served_pixels(card, partial(predict_proba, booster))
