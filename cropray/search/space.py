"""What is searched: fields of a family's settings, and the trials and units of work that they unfold to.

A trial is one set of values; a unit is one fit, which is resumed and tracked as a whole: one trial on one fold. Where a
family's `steps` field is searched, all its values are prefixes of one fit and cost nothing but their scoring.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    create_model,
    model_serializer,
    model_validator,
)

from cropray.core.metrics import METRICS, metric_of
from cropray.core.registry import text_of
from cropray.core.settings import Settings
from cropray.training.choices import ValidationScore
from cropray.training.family import DEFAULT_FAMILIES, Family, FamilySettings, families, family

_MOST_LISTED: Final = 6  # numbers of steps in a title, which is a part of a folder's name
Values = Mapping[str, Any]


class Range(Settings):
    """Numbers from `low` to `high`, for samplers that draw; a `grid` has none."""

    low: float
    """Least value."""
    high: float
    """Greatest value."""
    log: bool = False
    """Draw the logarithm evenly."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"a range needs low < high, and low > 0 where it is logarithmic; got {self.low} and {self.high}"
            )
        return self

    def draw(self, rng: np.random.Generator) -> float:
        """One number."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        number = float(rng.uniform(low, high))
        return math.exp(number) if self.log else number


class Space(Settings):
    """Searched fields of one family: values in a list, or a range. Made by `space_type`."""

    def searched(self) -> dict[str, Any]:
        """Field → values or range."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}

    def ranges(self) -> dict[str, Range]:
        """Fields of which numbers are drawn."""
        return {name: value for name, value in self.searched().items() if isinstance(value, Range)}

    def without(self, names: Sequence[str]) -> Self:
        """The space without some fields."""
        return self.model_copy(update=dict.fromkeys(names))

    @model_serializer(mode="wrap")
    def _brief(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that are not searched are left out, but for those that a family searches by itself."""
        fields = type(self).model_fields
        return {name: v for name, v in handler(self).items() if v is not None or fields[name].default is not None}


@cache
def space_type(name: str, settings: type[FamilySettings], grid: tuple[tuple[str, tuple[Any, ...]], ...]) -> type[Space]:
    """The class of a family's search space: every field that is no resource, with its own type for each value."""
    resources, defaults = settings().resources(), dict(grid)
    ordered = [*defaults, *(field for field in settings.model_fields if field not in defaults)]
    fields: dict[str, Any] = {}
    for field in ordered:
        if field in resources:
            continue
        info = settings.model_fields[field]
        item: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
        values: Any = Annotated[tuple[item, ...], Field(min_length=1), Tag("values")]
        kind: Any = Annotated[
            values | Annotated[Range, Tag("range")] | Annotated[None, Tag("none")], Discriminator(_kind_of)
        ]
        fields[field] = (kind, defaults.get(field))
    return create_model(f"{name.title()}Space", __base__=Space, **fields)


def _kind_of(value: Any) -> str:
    if value is None:
        return "none"
    return "range" if isinstance(value, dict | Range) else "values"


def space_of(found: Family) -> type[Space]:
    """The search space of a family."""
    return space_type(found.name, found.settings, tuple(found.grid.items()))


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of searched values; with `steps`, of one fit whose prefixes are models of their own."""

    values: Values
    """Searched field → value, the steps field aside."""
    steps: tuple[int, ...] = ()
    """Rising values of the family's steps field; empty: it has none."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One fit."""

    model: str
    """Its family."""
    trial: Trial
    fold: int | None
    """Validation fold; None: refit on all training zones, or on those of other regions."""
    n_steps: int | None = None
    """Fixed number of steps of a refit whose steps validation chose."""
    region: str | None = None
    """Region whose training zones are left out of the refit, and scored by it; None: none is."""

    @property
    def title(self) -> str:
        """For people: `learning_rate=0.001 kernel_size=3 fold=0`."""
        fold = "refit" if self.fold is None else f"fold={self.fold}"
        fold = fold if self.region is None else f"without={self.region}"
        steps = self.trial.steps
        listed = "/".join(map(str, steps)) if len(steps) <= _MOST_LISTED else f"{steps[0]}-{steps[-1]}"
        of_steps = f"{family(self.model).steps}={listed}" if steps else ""
        return " ".join(filter(None, (title(self.trial.values), of_steps, fold)))


def title(values: Values) -> str:
    """Name of a configuration: `learning_rate=0.001 kernel_size=3`."""
    return " ".join(f"{name}={value_text(value)}" for name, value in values.items())


def value_text(value: Any) -> str:
    """For people: a number, a name, several of them, or a choice with settings of its own."""
    if isinstance(value, Mapping):
        return text_of(value)
    if isinstance(value, list | tuple):
        return "-".join(map(value_text, value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)


class SearchSettings(Settings):
    """How configurations are compared; below each family's name, what is searched of it."""

    models: tuple[str, ...] = Field(default=DEFAULT_FAMILIES, min_length=1)
    """Families of models, in the order in which they are searched."""
    objective: ValidationScore = "val_macro_f1"
    """The mean of this over the folds chooses the winner: `val_` and the key of a score. `val_loss` leaves out pixels of
    classes that a fold's training zones lack; the others count them as wrong."""
    sampler: Literal["grid", "random", "tpe"] = "grid"
    """`grid` tries all combinations of the listed values, `random` draws `n_trials` of them, and from ranges; `tpe`
    proposes values that did well (tree-structured Parzen estimator of Optuna, `pip install 'cropray[tpe]'`). Numbers of
    steps, like `n_estimators`, are prefixes of one fit in a grid; drawn or proposed, each trial has one."""
    n_trials: int = Field(default=20, ge=1)
    """Trials of each family that are drawn or proposed, of which those with equal values count once; of no meaning for a
    grid."""
    batch: int = Field(default=4, ge=1)
    """Trials that `tpe` proposes together: of fewer it learns more, of more as many run side by side."""
    racing: bool = False
    """Fit trials fold after fold, on the next one only those that are not clearly worse than the best so far: not by 0.01 or
    more of the objective with twice the 95 % interval of the difference below 0, by zones of the folds so far, five at least.
    What is dropped is named. Needs an objective that has intervals, which `val_loss` has not."""
    time_budget_s: float | None = Field(default=None, gt=0)
    """How long units of all families are fitted, refits aside, s; then trials that lack a fold are left out, and named.
    Families that are searched one after the other get even shares of what is left. None: no limit. Run again, the search
    goes on with them, for as long once more."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Units that run at the same time; None: as many as the cluster holds."""
    max_failures: int = Field(default=3, ge=0)
    """How often one unit is started again after it failed or its process was lost, before the search fails."""
    oof_rows: int = Field(default=500, ge=0)
    """Labelled pixels of each class and training zone whose out-of-fold probabilities are kept, of each family's winner;
    0: none."""
    leave_region_out: bool = False
    """Score the winners on new regions, too: for each region and model one more fit, of the winner's configuration on the
    other regions' training zones, scored on this region's. Neighbours across regions are refused or trimmed, as
    dataset.on_overlap says."""

    @model_validator(mode="after")
    def _known_once(self) -> Self:
        for name in self.models:
            family(name)
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"models names a family twice: {list(self.models)}")
        metric = metric_of(self.objective)
        if self.racing and (metric.ratios is None or not metric.higher_is_better):
            able = ", ".join(f"val_{each.key}" for each in METRICS if each.ratios and each.higher_is_better)
            raise ValueError(
                f"racing compares by intervals over zones, which {self.objective} has not: set objective to {able}, or racing to false"
            )
        return self

    def in_turn(self) -> tuple[list[str], list[str]]:
        """(families that are fitted on samples, those that are built from their winners afterwards)."""
        built = [name for name in self.models if family(name).combine is not None]
        return [name for name in self.models if name not in built], built

    def space(self, name: str) -> Space:
        """What is searched of a family."""
        space: Space = getattr(self, name)
        return space


def complete() -> type[SearchSettings]:
    """The settings with a section for each family that is known now."""
    return _complete(tuple((name, space_of(each)) for name, each in families().items()))


@cache
def _complete(spaces: tuple[tuple[str, type[Space]], ...]) -> type[SearchSettings]:
    fields: dict[str, Any] = {name: (space, space()) for name, space in spaces}
    return create_model("SearchSettings", __base__=SearchSettings, __doc__=SearchSettings.__doc__, **fields)
