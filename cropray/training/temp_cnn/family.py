"""A network over single pixels as a family: convolutions over time, no surroundings; for pixel tables and points."""

from collections.abc import Sequence
from pathlib import Path

from cropray.training.cnn.family import model_entries
from cropray.training.crop_model import CropModel
from cropray.training.deep.settings import FREE, entries
from cropray.training.family import Family, Fit, FitScore
from cropray.training.temp_cnn.settings import TempCnnSettings


def fit(job: Fit) -> Sequence[FitScore]:
    """Train the network until validation stops it, or for a fixed number of epochs."""
    from cropray.training.deep.fit import fit_scored  # noqa: PLC0415 - torch: only where networks are trained
    from cropray.training.temp_cnn.fit import TEMP_CNN, scaled  # noqa: PLC0415

    return fit_scored(scaled(job), TEMP_CNN)


def load(folder: Path, device: str) -> CropModel:
    """A checkpoint, on its device.

    Raises:
        ConfigError: torch sees no GPU in this process.
    """
    from cropray.training.deep.device import torch_device  # noqa: PLC0415
    from cropray.training.temp_cnn.model import PixelNetworkModel  # noqa: PLC0415

    return PixelNetworkModel.read(folder, str(torch_device(device, "map.device")))


FAMILY = Family(
    name="temp_cnn",
    label="TempCNN",
    step_name="epoch",
    sample="pixel",
    settings=TempCnnSettings,
    fit=fit,
    load=load,
    weighs_rows=True,
    grid={"learning_rate": (2e-3, 5e-4)},
    most_steps="epochs",
    free=FREE,
    predicts_on_gpu=True,
    entries=entries,
    model_entries=model_entries,
)
