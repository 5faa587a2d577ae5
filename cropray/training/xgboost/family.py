"""XGBoost as a family."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cropray.training.crop_model import CropModel
from cropray.training.family import Family, Fit, FitScore
from cropray.training.pixel_model import first_steps, from_card
from cropray.training.xgboost.settings import XgboostSettings


def fit(job: Fit) -> Sequence[FitScore]:
    """Grow trees; every number of rounds that is asked for is scored."""
    from cropray.training.pixel_blocks import tree_data  # noqa: PLC0415 - xgboost: only where trees are grown
    from cropray.training.xgboost.fit import train_xgboost  # noqa: PLC0415

    result = train_xgboost(
        job.settings,
        job.steps,
        tree_data(job.train, job),
        None if job.val is None else tree_data(job.val, job),
        job.seed,
        job.folder,
        progress=job.progress,
        memory_bytes=job.memory_bytes,
        on_round=job.on_step,
    )
    return result.scores


def load(folder: Path, device: str) -> CropModel:
    """Trees from a folder; they predict on the CPU: one pass over a zone takes seconds."""
    from cropray.training.xgboost.tree_file import load_booster, predict_proba  # noqa: PLC0415

    del device
    booster, card = load_booster(folder)
    return from_card(folder, card, "cropray.training.xgboost.served", partial(predict_proba, booster))


FAMILY = Family(
    name="xgboost",
    label="XGBoost",
    step_name="boosting round",
    sample="pixel",
    settings=XgboostSettings,
    fit=fit,
    load=load,
    weighs_rows=True,
    grid={"n_estimators": (100, 200), "learning_rate": (0.01, 0.1)},  # the original study's
    steps="n_estimators",
    prefix=first_steps,
    free=frozenset({"learning_rate", "min_child_weight", "reg_lambda"}),
)
