"""Trained models read back, whichever family they are of."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

from cropray.core.closure import Root
from cropray.core.errors import SchemaError
from cropray.core.until_step import LOADER, UNTIL, shown_to
from cropray.io.storage import Location, local_folder, write_json
from cropray.training.card import CARD_FILE, load_card, naming_damage
from cropray.training.crop_model import CropModel, Probabilities, Samples
from cropray.training.decision import LIKELIEST, Decision, recorded_decision
from cropray.training.family import Family, Prefix, families
from cropray.training.likeness import Likeness, recorded_likeness

Load = Callable[[Path, str], CropModel]
_LOADER_UNTIL: Final = "cropray.training.until_served"
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
        return as_its_card_says(model, card)


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
    if isinstance(model, _CardModel):
        return cast(
            "CropModel", _CardModel(prefix(model.model, step), model.until_step, model.decision, model.likeness)
        )
    return prefix(model, step)


def as_its_card_says(model: CropModel, card: Mapping[str, Any]) -> CropModel:
    """A model that sees, says and decides as its card tells; itself where that tells nothing.

    Raises:
        KeyError: the card is damaged.
        ValueError: the same.
    """
    told = card.get(UNTIL), recorded_decision(card), recorded_likeness(card)
    return model if told == (None, LIKELIEST, None) else cast("CropModel", _CardModel(model, *told))


class _CardModel:
    """All that a model is, but that it sees no step of time after one, its probabilities are tempered, and what it flags."""

    def __init__(self, model: CropModel, until_step: int | None, decision: Decision, likeness: Likeness | None) -> None:
        self.model = model
        self.until_step = until_step
        self.decision = decision
        self.likeness = likeness
        self.loader = model.loader if until_step is None else _LOADER_UNTIL

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    @property
    def bytes_per_px(self) -> int:
        """Beside the model's, a copy of the numbers, and what is compared and what is tempered."""
        shown = 0 if self.until_step is None else _NUMBER_BYTES * self.model.cube.n_features
        said = 0 if self.decision == LIKELIEST else _COPIES_BYTES * len(self.model.classes)
        return self.model.bytes_per_px + shown + said

    def predict_tiles(self, x: Samples) -> Probabilities:
        """[N, T, C, H, W] uint16 → [N, K, H, W] float32."""
        return self.decision.tempered(self.model.predict_tiles(shown_to(self, x)), 1)

    def predict_samples(self, x: Samples) -> Probabilities:
        """The same of samples in the model's own form."""
        return self.decision.tempered(self.model.predict_samples(shown_to(self, x)), 1)


def entries_of(found: Family, folder: Location) -> Sequence[Root]:
    """What a stored model looks up by name, see `Family.model_entries`; none where there is no model.

    Raises:
        ConfigError: one is not known here.
        SchemaError: the card is damaged.
    """
    if not (folder / CARD_FILE).exists():
        return ()
    card = load_card(folder)
    return *found.model_entries(card), *((_CardModel,) if UNTIL in card else ())


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
