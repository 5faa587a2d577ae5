"""The entry point by which MLflow loads a registered network over pixels; needs no pickle."""

from functools import partial
from pathlib import Path

from cropray.core.cube import recorded_cube
from cropray.training.card import class_names
from cropray.training.decision import recorded_decision
from cropray.training.deep.network_file import read_network
from cropray.training.likeness import recorded_likeness
from cropray.training.serving import ServedModel
from cropray.training.temp_cnn.pixel_network import KIND, predict_rows


def _load_pyfunc(data_path: str) -> ServedModel:
    """Load a model folder; the name is MLflow's."""
    model, stats, card = read_network(Path(data_path), KIND)
    cube = recorded_cube(card)
    return ServedModel(
        class_names(card),
        cube.columns,
        partial(predict_rows, model, stats, cube),
        recorded_decision(card),
        recorded_likeness(card),
    )
