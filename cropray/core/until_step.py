"""A season that is not over: steps of time after one are missing, wherever numbers enter a fit or a prediction.

Needs numpy only: a registered model carries this module.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cropray.core.cube import CubeSpec
from cropray.core.sensors import NODATA

UNTIL: Final = "until_step"  # in a model's card: the last step that it saw
LOADER: Final = "loader"  # and the module that loads what hides later steps from it


def until_of(model: object) -> int | None:
    """The last step that a model sees (as `evaluation.models.read_model` gives it); None: it sees all."""
    found: int | None = getattr(model, UNTIL, None)
    return found


def shown_to(model: Any, x: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """What a model sees of samples, see `hide_after`; the same array where that is all."""
    step = until_of(model)
    return x if step is None else hide_after(x, model.cube, step)


def hide_after(x: npt.NDArray[np.uint16], cube: CubeSpec, step: int) -> npt.NDArray[np.uint16]:
    """A copy of samples whose later steps are missing; what has no time (static features) stays.

    Args:
        x: [N, T, C, H, W], or [N, columns] in the order of `cube.columns`; 0 = no data.
        cube: what a sample holds.
        step: the last one that is seen, from 1.
    """
    hidden = x.copy()
    if x.ndim > 2:
        hidden[:, step:] = NODATA
    else:
        position = np.arange(len(cube.band_columns))
        hidden[:, position[position % cube.n_steps >= step]] = NODATA
    return hidden
