"""The entry point by which MLflow loads a registered model that sees a part of the season, of whatever family; needs no pickle."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from cropray.core.cube import recorded_cube
from cropray.core.until_step import LOADER, UNTIL, hide_after
from cropray.training.card import load_card
from cropray.training.serving import ServedModel, loader_module


def _load_pyfunc(data_path: str) -> ServedModel:
    """Load a model folder; the name is MLflow's."""
    card = load_card(Path(data_path))
    served: ServedModel = loader_module(card[LOADER])._load_pyfunc(data_path)  # noqa: SLF001 - MLflow's name
    return replace(served, shown=partial(hide_after, cube=recorded_cube(card), step=card[UNTIL]))
