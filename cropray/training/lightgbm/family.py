"""LightGBM as a family."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cropray.training.crop_model import CropModel
from cropray.training.family import Family, Fit, FitScore
from cropray.training.lightgbm.settings import LightgbmSettings
from cropray.training.pixel_model import first_steps, from_card


def fit(job: Fit) -> Sequence[FitScore]:
    """Grow trees; every number of rounds that is asked for is scored."""
    from cropray.training.lightgbm.fit import train_lightgbm  # noqa: PLC0415 - lightgbm may not be installed

    return train_lightgbm(job)


def load(folder: Path, device: str) -> CropModel:
    """Trees from a folder; they predict on the CPU."""
    from cropray.training.lightgbm.tree_file import load_booster, predict_proba  # noqa: PLC0415

    del device
    booster, card = load_booster(folder)
    return from_card(folder, card, "cropray.training.lightgbm.served", partial(predict_proba, booster))


FAMILY = Family(
    name="lightgbm",
    label="LightGBM",
    step_name="boosting round",
    sample="pixel",
    settings=LightgbmSettings,
    fit=fit,
    load=load,
    weighs_rows=True,
    grid={"n_estimators": (100, 200), "learning_rate": (0.05, 0.1)},
    steps="n_estimators",
    prefix=first_steps,
    free=frozenset({"learning_rate", "reg_lambda", "min_child_samples"}),
    packages={"lightgbm": "cropray[lightgbm]"},
)
