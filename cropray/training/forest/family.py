"""Extremely randomised trees as a family."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cropray.training.crop_model import CropModel
from cropray.training.family import Family, Fit, FitScore
from cropray.training.forest.settings import ForestSettings
from cropray.training.pixel_model import first_steps, from_card


def fit(job: Fit) -> Sequence[FitScore]:
    """Grow trees; every number of trees that is asked for is scored."""
    from cropray.training.forest.fit import train_forest  # noqa: PLC0415 - scikit-learn: only where trees are grown

    return train_forest(job)


def load(folder: Path, device: str) -> CropModel:
    """Trees from a folder; they predict on the CPU."""
    from cropray.training.forest.tree_file import load_forest, predict_proba  # noqa: PLC0415

    del device
    forest, card = load_forest(folder)
    return from_card(folder, card, "cropray.training.forest.served", partial(predict_proba, forest))


FAMILY = Family(
    name="forest",
    label="Extra trees",
    step_name="tree",
    sample="pixel",
    settings=ForestSettings,
    fit=fit,
    load=load,
    weighs_rows=True,
    grid={"n_estimators": (200, 400)},
    steps="n_estimators",
    prefix=first_steps,
)
