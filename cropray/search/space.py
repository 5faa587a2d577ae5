"""What is searched: the spaces, and the units of work they unfold to.

A unit is one fit that is resumed and tracked as a whole: one CNN configuration on one fold, or, for trees, one
learning rate on one fold, whose prefixes are all the numbers of trees (a prefix of one fit costs nothing).
"""

import itertools
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from cropray.settings import Settings
from cropray.training.choices import ValidationScore
from cropray.training.settings import CnnPoint, XgboostPoint

_MOST_LISTED: Final = 6  # numbers of trees in a title, which is a part of a folder's name
ModelName = Literal["cnn", "xgboost"]
PositiveFloat = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]


class CnnSpace(Settings):
    """Grid of the CNN; the defaults are the original study's."""

    learning_rate: tuple[PositiveFloat, ...] = Field(default=(1e-3, 1e-4), min_length=1)
    kernel_size: tuple[Literal[3, 5], ...] = Field(default=(3, 5), min_length=1)


class XgboostSpace(Settings):
    """Grid of the trees; the defaults are the original study's."""

    n_estimators: tuple[PositiveInt, ...] = Field(default=(100, 200), min_length=1)
    learning_rate: tuple[PositiveFloat, ...] = Field(default=(0.01, 0.1), min_length=1)


class SearchSettings(Settings):
    """How configurations are compared."""

    models: tuple[ModelName, ...] = Field(default=("xgboost", "cnn"), min_length=1)
    objective: ValidationScore = "val_macro_f1"
    """The mean of this over the folds chooses the winner: `val_` and the key of a score. `val_loss` leaves out pixels of
    classes that a fold's training zones lack; the others count them as wrong."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Units that run at the same time; None: as many as the cluster holds."""
    max_failures: int = Field(default=3, ge=0)
    """How often one unit is started again after it failed or its process was lost, before the search fails."""
    leave_region_out: bool = False
    """Score the winners on new regions, too: for each region and model one more fit, of the winner's configuration on the
    other regions' training zones, scored on this region's. Neighbours across regions are refused or trimmed, as
    dataset.on_overlap says."""
    cnn: CnnSpace = CnnSpace()
    xgboost: XgboostSpace = XgboostSpace()


@dataclass(frozen=True, slots=True)
class Unit:
    """One fit."""

    model: ModelName
    point: CnnPoint | XgboostPoint
    fold: int | None
    """Validation fold; None: refit on all training zones, or on those of other regions."""
    n_epochs: int | None = None
    """Fixed number of epochs of a CNN's refit."""
    region: str | None = None
    """Region whose training zones are left out of the refit, and scored by it; None: none is."""

    @property
    def title(self) -> str:
        """For people: `lr=0.001 kernel=3 fold=0`."""
        rate = f"lr={self.point.learning_rate:.12g}"
        fold = "refit" if self.fold is None else f"fold={self.fold}"
        fold = fold if self.region is None else f"without={self.region}"
        if isinstance(self.point, CnnPoint):
            return f"{rate} kernel={self.point.kernel_size} {fold}"
        trees = self.point.n_estimators
        listed = "/".join(map(str, trees)) if len(trees) <= _MOST_LISTED else f"{trees[0]}-{trees[-1]}"
        return f"{rate} trees={listed} {fold}"


def search_units(settings: SearchSettings, model: ModelName, n_folds: int) -> tuple[Unit, ...]:
    """All units of one model's search, configuration by configuration; a value that is given twice is searched once."""
    points: list[CnnPoint | XgboostPoint]
    if model == "cnn":
        grid = itertools.product(dict.fromkeys(settings.cnn.learning_rate), dict.fromkeys(settings.cnn.kernel_size))
        points = [CnnPoint(learning_rate=rate, kernel_size=size) for rate, size in grid]
    else:
        trees = tuple(sorted(set(settings.xgboost.n_estimators)))
        points = [
            XgboostPoint(learning_rate=rate, n_estimators=trees)
            for rate in dict.fromkeys(settings.xgboost.learning_rate)
        ]
    return tuple(Unit(model, point, fold) for point in points for fold in range(n_folds))
