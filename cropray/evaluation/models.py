"""Trained models read back, whichever family they are of."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

from cropray.core.closure import Root
from cropray.core.errors import SchemaError
from cropray.io.storage import Location, local_folder
from cropray.training.card import CARD_FILE, load_card, naming_damage
from cropray.training.decision import LIKELIEST, Decision, recorded_decision
from cropray.training.family import CropModel, Family, Probabilities, Samples, families

Load = Callable[[Path, str], CropModel]
_COPIES_BYTES: Final = 2 * 4  # of each class's float32 probability


def load_model(folder: Location, device: str = "cpu") -> CropModel:
    """Read a model folder of any family.

    Args:
        folder: what a fit wrote.
        device: `cpu` or `cuda`, for families that predict on either.

    Raises:
        ConfigError: torch sees no GPU in this process.
        MissingArtefactError: there is no model.
        SchemaError: it is damaged, or of an unknown family.
    """
    kind, known = str(load_card(folder).get("kind")), families()
    if kind not in known:
        raise SchemaError(
            f"the model in '{folder}' is of kind {kind!r}, this cropray knows {sorted(known)}; use the cropray version "
            f"or install the plug-in that trained it, or train it again"
        )
    return read_model(known[kind].load, folder, device)


def read_model(load: Load, folder: Location, device: str = "cpu") -> CropModel:
    """Read a model folder of a family whose `load` is given; raises as `load_model`."""
    card = load_card(folder)
    with local_folder(folder) as files:
        model = load(files, device)
    with naming_damage(folder / CARD_FILE):
        return decided(model, recorded_decision(card))


def decided(model: CropModel, decision: Decision) -> CropModel:
    """A model that says its probabilities and decides as its card tells; itself where that tells nothing."""
    return model if decision == LIKELIEST else cast("CropModel", _DecidedModel(model, decision))


class _DecidedModel:
    """All that a model is, with its probabilities tempered."""

    def __init__(self, model: CropModel, decision: Decision) -> None:
        self._model = model
        self.decision = decision

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @property
    def bytes_per_px(self) -> int:
        """Beside the model's, what is compared and what is tempered."""
        return self._model.bytes_per_px + _COPIES_BYTES * len(self._model.classes)

    def predict_tiles(self, x: Samples) -> Probabilities:
        """[N, T, C, H, W] uint16 → [N, K, H, W] float32."""
        return self.decision.tempered(self._model.predict_tiles(x), 1)

    def predict_samples(self, x: Samples) -> Probabilities:
        """The same of samples in the model's own form."""
        return self.decision.tempered(self._model.predict_samples(x), 1)


def entries_of(found: Family, folder: Location) -> Sequence[Root]:
    """What a stored model looks up by name, see `Family.model_entries`; none where there is no model.

    Raises:
        ConfigError: one is not known here.
        SchemaError: the card is damaged.
    """
    return found.model_entries(load_card(folder)) if (folder / CARD_FILE).exists() else ()


@lru_cache(maxsize=1)
def kept_model(load: Load, folder: Location, content: str, device: str = "cpu") -> CropModel:
    """`read_model`, once for the many zones that a worker process predicts.

    Args:
        load: of the model's family.
        folder: what a fit wrote.
        content: `folder_hash(folder)`; a model that has changed is read again.
        device: where it predicts.
    """
    del content
    return read_model(load, folder, device)
