"""Trained boosted trees in use."""

from functools import partial
from pathlib import Path

from cropray.legend import CropClass
from cropray.training.pixel_model import PixelModel
from cropray.training.xgboost.tree_file import load_booster, predict_proba, read_card


def load_trees(folder: Path) -> PixelModel:
    """The trees of a folder.

    Raises:
        MissingArtefactError: there are none.
        SchemaError: they are damaged.
    """
    classes = tuple(CropClass(**record) for record in read_card(folder)["classes"])
    return PixelModel("cropray.training.xgboost.served", partial(predict_proba, load_booster(folder)), classes)
