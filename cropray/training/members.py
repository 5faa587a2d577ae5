"""A finished fit of a family, as families see it that are built from others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cropray.io.storage import Location, local_folder
from cropray.training.crop_model import CropModel

OutOfFold = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.str_]]


@dataclass(frozen=True, slots=True)
class Member:
    """The winner of a family's search, fitted on the same zones as what is built from it."""

    name: str
    """Its family."""
    load: Callable[[Path, str], CropModel]
    """See `Family.load`."""
    prefix: Callable[[CropModel, int], CropModel] | None
    """See `Family.prefix`."""
    folder: Location
    """What the fit wrote."""
    step: int
    """The prefix of the fit that won; of no meaning where the family has none."""
    untrained: tuple[int, ...]
    """Indices of the classes that the training zones lack."""

    out_of_fold: Mapping[str, Callable[[], OutOfFold]] = field(default_factory=dict)
    """Training zone of this fit → what the winner's folds that did not see the zone say of some of its rows: reads ([N] class
    indices, [N, K] probabilities, [N] zone)."""

    unlearnt: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Training zone → indices of the classes that the fold which did not see it could not learn."""

    def model(self) -> CropModel:
        """The trained model, on the CPU; raises as `Family.load`."""
        with local_folder(self.folder) as files:
            model = self.load(files, "cpu")
        return model if self.prefix is None else self.prefix(model, self.step)
