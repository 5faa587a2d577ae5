"""Unit costs: what one zone, one fit takes, as measured on this machine, and what cannot be measured here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

Kind = tuple[str, str]
"""(family, values of the fields that change the cost of its fits)."""

# What every run spends on starting and ending things, whatever its size. Measured on the drawn landscape of 40 zones
# with 2 cores, where a worker took REFERENCE_WORKER_START_S from its start until all libraries were imported; on
# another machine they are scaled by that time.
REFERENCE_WORKER_START_S: Final = 6.0
FIXED_S: Final[Mapping[str, float]] = {
    "zones": 0.1,  # the zone table
    "acquire": 2.5,  # workers begin: they import a part of what is imported later
    "labels": 0.5,
    "dataset": 3.5,  # Ray Data's first pipeline
    "search": 14.0,  # MLflow's store, the dataset read by Ray Data, Tune
    "refit": 11.0,  # a second Tune run, the models registered
    "evaluate": 3.5,  # per model: pictures of its scores, MLflow
    "map": 1.0,  # per model
    "report": 5.0,  # overviews and page
}


@dataclass(frozen=True, slots=True)
class ZoneCosts:
    """One zone, on average over the sample."""

    seconds: Mapping[str, float]
    """`acquire`, `label`, `count`, `build`, and `film` (its films and observation maps in the report) → seconds of one
    worker."""
    bytes: Mapping[str, float]
    """`composites`, `labels`, `dataset`, and `report` (its films and observation maps) → bytes on disk."""
    peak_bytes: float
    """Most memory of the worker process."""


class Straight(NamedTuple):
    """A quantity that grows in a straight line with an amount."""

    base: float
    per: float

    @classmethod
    def through(cls, less: tuple[float, float], more: tuple[float, float]) -> Self:
        """By two measurements (amount, quantity); it does not fall, and has no slope where the amounts are the same."""
        per = max(more[1] - less[1], 0.0) / (more[0] - less[0]) if more[0] > less[0] else 0.0
        return cls(more[1] - more[0] * per, per)

    def at(self, amount: float) -> float:
        """The quantity."""
        return self.base + amount * self.per


class FitTerms(NamedTuple):
    """What the time of a fit in one process is the sum of: seconds of each, or how often each is spent.

    A sample is what the family trains on: a row of a pixel table, or a tile.
    """

    start: float
    sample: float
    """Before the first step, of each sample that is trained on or scored."""
    step: float
    step_sample: float
    """In each step, of each training sample."""
    score: float
    """Of each scored sample, each time that it is scored."""

    @classmethod
    def of(cls, steps: int, n_train: float, n_scored: float, n_times: int) -> Self:
        """How often each is spent in a fit of so many steps that is scored so many times."""
        return cls(1, n_train + n_scored, steps, steps * n_train, n_times * n_scored)

    def total(self, other: "FitTerms") -> float:
        """Seconds, of seconds and how often they are spent."""
        return sum(a * b for a, b in zip(self, other, strict=True))


class FitCosts(NamedTuple):
    """Trials of a family that cost the same: one fit beside others, as a search runs them, and what its model does."""

    seconds: FitTerms
    model_bytes: Straight
    """By the model's steps."""
    worker_bytes: Straight
    """Memory of a worker that has everything imported, by the samples that it holds."""
    batch: float
    """Most samples that a worker holds; inf: all."""
    pixel_s: Straight
    """Prediction of a pixel (of points, a row), by the model's steps."""
    map_s: float
    """One zone's map without its prediction: reading, preview, parcels, writing."""
    map_bytes: float
    operations: float
    """Floating-point operations of one sample's prediction; 0: not known."""


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """Everything that was measured."""

    ray_start_s: float
    worker_start_s: float
    """From the start of a worker until all libraries are imported."""
    find_s: float
    """Finding the scenes of all zones."""
    zone: ZoneCosts | None
    """None: the job reads points."""
    fits: Mapping[Kind, FitCosts]

    def dearest(self, kind: Kind, cost: Callable[[FitCosts], float]) -> float:
        """A cost of a kind of trial; of one that was not measured the highest of its family."""
        own = self.fits.get(kind)
        return cost(own) if own else max(cost(of) for (model, _), of in self.fits.items() if model == kind[0])

    def fixed_s(self, what: str) -> float:
        """Seconds of `FIXED_S` on this machine."""
        return FIXED_S[what] * self.worker_start_s / REFERENCE_WORKER_START_S
