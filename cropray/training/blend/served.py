"""The entry point by which MLflow loads a registered mean of models: each member is loaded by its own; needs no pickle."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cropray.training.blend.mean import FOLDER, combine
from cropray.training.card import class_names, load_card
from cropray.training.decision import recorded_decision
from cropray.training.likeness import recorded_likeness
from cropray.training.serving import ServedModel, loader_module


def _load_pyfunc(data_path: str) -> ServedModel:
    """Load a model folder; the name is MLflow's."""
    folder = Path(data_path)
    card = load_card(folder)
    members = [_load(member["loader"], folder / FOLDER / member["name"]) for member in card["members"]]
    columns = () if any(not member.columns for member in members) else members[0].columns
    return ServedModel(
        class_names(card), columns, partial(_predict, card, members), recorded_decision(card), recorded_likeness(card)
    )


def _predict(card: dict[str, Any], members: Sequence[ServedModel], x: npt.NDArray[np.uint16]) -> Any:
    return combine(card, [_of_tiles(m, x) if m.columns and x.ndim > 2 else m.predict_samples(x) for m in members])


def _of_tiles(member: ServedModel, x: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """[N, T, C, H, W] by a model of pixels → [N, K, H, W]; columns are band-major."""
    n, steps, bands, height, width = x.shape
    found = member.predict_samples(x.transpose(0, 3, 4, 2, 1).reshape(-1, bands * steps))
    return np.ascontiguousarray(found.reshape(n, height, width, -1).transpose(0, 3, 1, 2))


def _load(loader: str, folder: Path) -> ServedModel:
    served: ServedModel = loader_module(loader)._load_pyfunc(str(folder))  # noqa: SLF001 - MLflow's name
    return served
