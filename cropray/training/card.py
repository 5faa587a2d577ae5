"""The card beside a model of pixels: what it is, for which features and classes, and where it comes from.

Needs numpy only: a registered model carries this module.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cropray.core.cube import recorded_cube
from cropray.core.features import BANDS, FeatureSet
from cropray.errors import MissingArtefactError, SchemaError

CARD_FILE: Final = "card.json"


def read_card(folder: Path, kind: str, version: int, model_file: str) -> dict[str, Any]:
    """The card of a model folder.

    Args:
        folder: what a fit wrote.
        kind: name of the family.
        version: of its files that is read.
        model_file: name of the file with the model itself.

    Raises:
        MissingArtefactError: there is no model.
        SchemaError: the card is damaged, of another kind or version, or for other features.
    """
    path = folder / CARD_FILE
    if not path.exists() or not (folder / model_file).exists():
        raise MissingArtefactError(f"'{folder}' holds no trained {kind}; run `cropray search CONFIG.yaml` first")
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = (card["kind"], card["card_version"], len(card["features"]))
    except (ValueError, KeyError, TypeError) as error:
        raise SchemaError(f"card '{path}' is damaged ({error!r}); train the model again") from None
    if found[:2] != (kind, version) or list(recorded_features(card).columns) != card["features"]:
        raise SchemaError(
            f"card '{path}' describes a model of kind '{found[0]}', version {found[1]}, with {found[2]} features; "
            f"needed is '{kind}', version {version}, with the features of its cube"
        )
    return card


def recorded_features(card: Mapping[str, Any]) -> FeatureSet:
    """What a model reads; the study's cube where a card of an earlier version says nothing."""
    return FeatureSet(recorded_cube(card), tuple(card.get("inputs", (BANDS,))))
