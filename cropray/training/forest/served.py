"""The entry point by which MLflow loads a registered forest; needs neither pickle nor scikit-learn."""

from functools import partial
from pathlib import Path

from cropray.training.forest.tree_file import load_forest, predict_proba
from cropray.training.serving import ServedModel, served_pixels


def _load_pyfunc(data_path: str) -> ServedModel:
    """Load a model folder; the name is MLflow's."""
    forest, card = load_forest(Path(data_path))
    return served_pixels(card, partial(predict_proba, forest))
