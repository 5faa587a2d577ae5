"""The entry point by which MLflow loads a registered forest; needs neither pickle nor scikit-learn."""

from functools import partial
from pathlib import Path

from cropray.bands import FEATURE_COLUMNS
from cropray.training.forest.tree_file import load_forest, predict_proba
from cropray.training.serving import ServedModel, class_names


def _load_pyfunc(data_path: str) -> ServedModel:
    """Load a model folder; the name is MLflow's."""
    forest, _ = load_forest(Path(data_path))
    return ServedModel(class_names(Path(data_path)), FEATURE_COLUMNS, partial(predict_proba, forest))
