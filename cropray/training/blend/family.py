"""The mean of the other families' winners as a family: built, scored, mapped, registered and served as one model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cropray.core.closure import Root
from cropray.training.blend.mean import KIND, combine
from cropray.training.blend.settings import BlendSettings
from cropray.training.crop_model import CropModel
from cropray.training.family import Family, Fit, FitScore, family


def fit(job: Fit) -> Sequence[FitScore]:
    """Score the mean of the members, or keep them where nothing is scored."""
    from cropray.training.blend.fit import build  # noqa: PLC0415 - pyarrow and Ray: only where samples are scored

    return build(job)


def load(folder: Path, device: str) -> CropModel:
    """The members, each on the device if it can."""
    from cropray.training.blend.model import read  # noqa: PLC0415

    return read(folder, device)


def model_entries(card: Mapping[str, Any]) -> Sequence[Root]:
    """What reads the members, and what these look up by name."""
    members = [(family(member["name"]), member["card"]) for member in card["members"]]
    return tuple(root for found, own in members for root in (found.load, *found.model_entries(own)))


FAMILY = Family(
    name=KIND,
    label="Blend",
    step_name="step",
    sample="pixel",
    settings=BlendSettings,
    fit=fit,
    load=load,
    weighs_rows=True,
    grid={"mean": ("arithmetic",)},
    predicts_on_gpu=True,
    combine=combine,
    model_entries=model_entries,
)
