"""The study's network as a family: convolutions over time per pixel, then a U-Net over space."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cropray.core.cube import CubeSpec
from cropray.training.cnn.settings import CnnSettings
from cropray.training.crop_model import CropModel
from cropray.training.deep.settings import FREE, entries
from cropray.training.family import Family, Fit, FitScore


def fit(job: Fit) -> Sequence[FitScore]:
    """Train the network until validation stops it, or for a fixed number of epochs."""
    from cropray.training.cnn.fit import CNN  # noqa: PLC0415 - torch: only where networks are trained
    from cropray.training.deep.fit import fit_scored  # noqa: PLC0415

    return fit_scored(job, CNN)


def load(folder: Path, device: str) -> CropModel:
    """A checkpoint, on its device.

    Raises:
        ConfigError: torch sees no GPU in this process.
    """
    from cropray.training.cnn.model import CnnModel  # noqa: PLC0415
    from cropray.training.deep.device import torch_device  # noqa: PLC0415

    return CnnModel.read(folder, str(torch_device(device, "map.device")))


def operations(settings: CnnSettings, tile_px: int, n_classes: int, cube: CubeSpec) -> float:
    """Of one tile's way through the network."""
    from cropray.nets.operations import tile_operations  # noqa: PLC0415
    from cropray.nets.registry import NETS, net_config  # noqa: PLC0415

    sizes = {"n_classes": n_classes, "n_months": cube.n_steps, "n_bands": cube.n_bands}
    return tile_operations(NETS.entry(settings.net), net_config(settings.net, settings.architecture(), sizes), tile_px)


def model_entries(card: Mapping[str, Any]) -> Sequence[type]:
    """The class of a stored network: nothing else of its recipe predicts."""
    from cropray.training.deep.network_file import net_of  # noqa: PLC0415 - torch

    return (net_of(card),)


FAMILY = Family(
    name="cnn",
    label="CNN",
    step_name="epoch",
    sample="tile",
    settings=CnnSettings,
    fit=fit,
    load=load,
    grid={"learning_rate": (1e-3, 1e-4), "kernel_size": (3, 5)},  # the original study's
    most_steps="epochs",
    batch="batch_size",
    free=FREE,
    operations=operations,
    predicts_on_gpu=True,
    entries=entries,
    model_entries=model_entries,
)
