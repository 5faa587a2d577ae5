"""The entry point by which MLflow loads registered trees; needs no pickle."""

from functools import partial
from pathlib import Path

from cropray.training.serving import ServedModel, class_names
from cropray.training.xgboost.tree_file import load_booster, predict_proba, read_card


def _load_pyfunc(data_path: str) -> ServedModel:
    """Load a model folder; the name is MLflow's."""
    booster = load_booster(Path(data_path))
    columns = tuple(read_card(Path(data_path))["features"])
    return ServedModel(class_names(Path(data_path)), columns, partial(predict_proba, booster))
