"""Trained boosted trees in use."""

from functools import partial
from pathlib import Path

from cropray.legend import CropClass
from cropray.training.card import recorded_features
from cropray.training.pixel_model import PixelModel
from cropray.training.xgboost.tree_file import load_booster, predict_proba, read_card


def load_trees(folder: Path) -> PixelModel:
    """The trees of a folder.

    Raises:
        MissingArtefactError: there are none.
        SchemaError: they are damaged.
    """
    card = read_card(folder)
    classes, predict = (
        tuple(CropClass(**record) for record in card["classes"]),
        partial(predict_proba, load_booster(folder)),
    )
    return PixelModel("cropray.training.xgboost.served", predict, classes, recorded_features(card))
