"""The entry point by which MLflow loads a registered CNN; needs no pickle."""

from functools import partial
from pathlib import Path

from cropray.training.card import class_names
from cropray.training.decision import recorded_decision
from cropray.training.deep.device import predict_tiles
from cropray.training.deep.network_file import read_network
from cropray.training.likeness import recorded_likeness
from cropray.training.serving import ServedModel


def _load_pyfunc(data_path: str) -> ServedModel:
    """Load a model folder; the name is MLflow's."""
    model, stats, card = read_network(Path(data_path), "cnn")
    return ServedModel(
        class_names(card), (), partial(predict_tiles, model, stats), recorded_decision(card), recorded_likeness(card)
    )
