"""Trained models read back, whichever family they are of."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

from cropray.core.closure import Root
from cropray.core.errors import SchemaError
from cropray.core.until_step import LOADER, UNTIL, hide_after
from cropray.io.storage import Location, local_folder, write_json
from cropray.training.card import CARD_FILE, load_card, naming_damage
from cropray.training.crop_model import CropModel, Probabilities, Samples
from cropray.training.decision import LIKELIEST, Decision, recorded_decision
from cropray.training.family import Family, Prefix, families

Load = Callable[[Path, str], CropModel]
_NUMBER_BYTES: Final = 2
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
        return decided(_seen_by(model, card), recorded_decision(card))


def note_until(folder: Path, step: int, load: Load | None) -> None:
    """Write into the card of a new fit that it saw no later step of time.

    Args:
        folder: of the fit.
        step: the last one that it saw.
        load: of the family, for a whole model, whose card says what loads it below the loader that hides later steps; None:
            a fold's, which is not served.
    """
    card = {**load_card(folder), UNTIL: step}
    if load is not None:
        loader = load(folder, "cpu").loader
        card |= {LOADER: loader, "modules": sorted({*card.get("modules", ()), loader})}
    write_json(folder / CARD_FILE, card)


def prefix_of(model: CropModel, prefix: Prefix, step: int) -> CropModel:
    """`Family.prefix` of what `read_model` gave."""
    if isinstance(model, _BlindModel):
        return cast("CropModel", _BlindModel(prefix(model.model, step), model.until_step))
    return prefix(model, step)


def _seen_by(model: CropModel, card: Mapping[str, Any]) -> CropModel:
    return cast("CropModel", _BlindModel(model, card[UNTIL])) if UNTIL in card else model


class _BlindModel:
    """All that a model is, but that it sees no step of time after one."""

    loader = "cropray.training.until_served"

    def __init__(self, model: CropModel, until_step: int) -> None:
        self.model = model
        self.until_step = until_step

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    @property
    def bytes_per_px(self) -> int:
        """Beside the model's, a copy of the numbers."""
        return self.model.bytes_per_px + _NUMBER_BYTES * self.model.cube.n_features

    def predict_tiles(self, x: Samples) -> Probabilities:
        """[N, T, C, H, W] uint16 → [N, K, H, W] float32."""
        return self.model.predict_tiles(hide_after(x, self.model.cube, self.until_step))

    def predict_samples(self, x: Samples) -> Probabilities:
        """The same of samples in the model's own form."""
        return self.model.predict_samples(hide_after(x, self.model.cube, self.until_step))


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
    if not (folder / CARD_FILE).exists():
        return ()
    card = load_card(folder)
    return *found.model_entries(card), *((_BlindModel,) if UNTIL in card else ())


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
