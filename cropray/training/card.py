"""The card beside a model: what it is, for which features and classes, and where it comes from.

Needs numpy only: a registered model carries this module.
"""

import contextlib
import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cropray.core.cube import recorded_cube
from cropray.core.errors import ConfigError, MissingArtefactError, SchemaError
from cropray.core.features import BANDS, FeatureSet

if TYPE_CHECKING:
    from cropray.io.storage import Location

CARD_FILE: Final = "card.json"


def load_card(folder: "Location") -> dict[str, Any]:
    """The card of a model folder, of whatever family.

    Raises:
        MissingArtefactError: there is no model.
        SchemaError: the card is damaged.
    """
    path = folder / CARD_FILE
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingArtefactError(
            f"'{folder}' holds no model ({CARD_FILE} is missing); run `cropray search CONFIG.yaml` first"
        ) from None
    except ValueError as error:
        raise SchemaError(f"'{path}' is damaged ({error}); remove the folder and train again") from None
    if not isinstance(card, dict):
        raise SchemaError(f"'{path}' is damaged (it is no record); remove the folder and train again")
    return card


def read_card(folder: Path, kind: str, version: int, model_file: str) -> dict[str, Any]:
    """The card of a model of pixels.

    Args:
        folder: what a fit wrote.
        kind: name of the family.
        version: of its files that is read.
        model_file: name of the file with the model itself.

    Raises:
        MissingArtefactError: there is no model.
        SchemaError: the card is damaged, of another kind or version, or for other features.
    """
    if not (folder / CARD_FILE).exists() or not (folder / model_file).exists():
        raise MissingArtefactError(f"'{folder}' holds no trained {kind}; run `cropray search CONFIG.yaml` first")
    card = load_card(folder)
    with naming_damage(folder / CARD_FILE):
        class_names(card)
        found = (card["kind"], card["card_version"], len(card["features"]))
        is_wanted = found[:2] == (kind, version) and list(recorded_features(card).columns) == card["features"]
    if not is_wanted:
        raise SchemaError(
            f"card '{folder / CARD_FILE}' describes a model of kind '{found[0]}', version {found[1]}, with {found[2]} "
            f"features; needed is '{kind}', version {version}, with the features of its cube"
        )
    return card


@contextlib.contextmanager
def naming_damage(path: "Location") -> Iterator[None]:
    """Name the file whose content something in the block cannot use.

    Raises:
        SchemaError: it cannot be used.
    """
    try:
        yield
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        what = str(error) if isinstance(error, ConfigError) else repr(error)
        raise SchemaError(f"'{path}' is damaged, or of another version ({what}); train the model again") from None


def recorded_features(card: Mapping[str, Any]) -> FeatureSet:
    """What a model reads; the study's cube where a card of an earlier version says nothing."""
    why = import_own(card)
    try:
        return FeatureSet(recorded_cube(card), tuple(card.get("inputs", (BANDS,))))
    except ConfigError as error:
        raise ConfigError("; ".join([str(error), *why])) from None


def class_names(card: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a model's outputs."""
    return tuple(record["name"] for record in card["classes"])


def import_own(card: Mapping[str, Any]) -> list[str]:
    """Read the modules of one's own that a card names, which register what the model looks up.

    Returns:
        Why some cannot be read: what they register may be known already.
    """
    package, why = __name__.partition(".")[0], []
    for module in card.get("modules", ()):
        for name in (module, f"{package}.plugin.{module}"):  # as it is installed, and as a registered model carries it
            try:
                importlib.import_module(name)
            except ImportError as error:
                why.append(f"module '{name}' cannot be imported ({error})")
    return why
