"""The entry point by which MLflow loads a registered model; needs no pickle."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cropray.bands import FEATURE_COLUMNS
from cropray.maps.models import CropModel, Probabilities, load_model


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What `mlflow.pyfunc.load_model` wraps."""

    model: CropModel

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Probabilities:
        """Class probabilities.

        Args:
            model_input: tiles [N, T, C, H, W] (CNN) or pixels [N, 48] (trees), digital numbers, 0 = no data; pixels
                may come as a table with the columns `B02_01` … `B08_12` in any order.
            params: unused; part of MLflow's protocol.

        Returns:
            [N, K, H, W] or [N, K] float32.
        """
        del params
        samples = model_input[list(FEATURE_COLUMNS)].to_numpy() if hasattr(model_input, "columns") else model_input
        return self.model.predict_samples(np.asarray(samples, np.uint16))


def _load_pyfunc(data_path: str) -> ServedModel:
    """Load a model folder; the name is MLflow's."""
    return ServedModel(load_model(Path(data_path)))
