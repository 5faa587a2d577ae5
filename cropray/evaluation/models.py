"""Trained models read back, whichever family they are of."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from cropray.core.closure import Root
from cropray.core.errors import SchemaError
from cropray.io.storage import Location, local_folder
from cropray.training.card import CARD_FILE, load_card
from cropray.training.family import CropModel, Family, families

Load = Callable[[Path, str], CropModel]


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
    load_card(folder)
    with local_folder(folder) as files:
        return load(files, device)


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
