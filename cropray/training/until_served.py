"""The entry point by which MLflow loads a registered model that sees a part of the season, of whatever family; needs no pickle."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cropray.core.cube import recorded_cube
from cropray.core.until_step import LOADER, UNTIL, hide_after
from cropray.training.card import load_card
from cropray.training.serving import ServedModel, loader_module


def _load_pyfunc(data_path: str) -> ServedModel:
    """Load a model folder; the name is MLflow's."""
    card = load_card(Path(data_path))
    served: ServedModel = loader_module(card[LOADER])._load_pyfunc(data_path)  # noqa: SLF001 - MLflow's name
    cube, step = recorded_cube(card), card[UNTIL]

    def predict(x: npt.NDArray[np.uint16]) -> Any:
        return served.predict_samples(hide_after(x, cube, step))

    return replace(served, predict_samples=predict)
