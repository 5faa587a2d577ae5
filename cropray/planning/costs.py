"""Unit costs: what one zone, one fit takes, as measured on this machine, and what cannot be measured here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

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
UNIT_S: Final = 0.3  # Tune between two units, and their MLflow runs
WORKER_GROUP_S: Final = 25.0  # a worker group of Ray Train: 14–40 s on 2 cores
READ_BYTES_S: Final = (
    60e6  # by one CPU, of the dataset's shards as they lie in memory; of 0.25 MB each, larger are faster
)

# Files that do not grow with the images, as `cropray run` left them on the drawn landscape of 40 zones.
TRACKING_BYTES: Final = 0.9e6  # MLflow's empty store
TRACKED_MODEL_BYTES: Final = 1.0e6  # pictures and tables of a model's scores
TRACKED_FOLD_BYTES: Final = 20e3
FIT_FILES_BYTES: Final = 17e3  # beside its model: card, results, Tune's state
REPORT_BYTES: Final = 2.4e6  # overviews of the data, pictures of the scores, the page
PREVIEW_BYTES: Final = 63e3
FILMS_SHOWN: Final = 0.3  # share of a zone's films, by size, that the report takes a copy of


@dataclass(frozen=True, slots=True)
class ZoneCosts:
    """One zone, on average over the sample: seconds of one worker, bytes on disk."""

    acquire_s: float
    label_s: float
    count_s: float
    build_s: float
    film_s: float
    """Its films and observation maps in the report."""
    composite_bytes: float
    label_bytes: float
    dataset_bytes: float
    film_bytes: float
    peak_bytes: float
    """Most memory of the worker process."""


@dataclass(frozen=True, slots=True)
class FitCosts:
    """Trials of a family that cost the same: one fit beside others, as a search runs them, and what its model does.

    A sample is what the family trains on: a row of a pixel table, or a tile.
    """

    start_s: float
    """Whatever the samples."""
    sample_s: float
    """Per sample that is trained on or scored, before the first step."""
    step_s: float
    """Per step, whatever the samples."""
    step_sample_s: float
    """Per step and training sample."""
    score_s: float
    """Per scored sample, each time that it is scored."""
    model_bytes: float
    """Whatever the steps."""
    step_bytes: float
    """Of the model, per step."""
    process_bytes: float
    """Memory of a worker that has everything imported."""
    sample_bytes: float
    """Memory of a fit, per sample that it holds."""
    batch: float
    """Most samples that it holds; inf: all."""
    pixel_s: float
    """Prediction of a pixel (of points, a row), whatever the steps."""
    pixel_step_s: float
    """Prediction of a pixel, per step of the model."""
    map_s: float
    """One zone's map without its prediction: reading, preview, parcels, writing."""
    map_bytes: float

    def fit_s(self, steps: int, n_train: float, n_scored: float, n_times: int) -> float:
        """Seconds of a fit in one process.

        Args:
            steps: of the fit.
            n_train: samples that it is trained on.
            n_scored: samples that it is scored on.
            n_times: how often it is scored.
        """
        every_step = self.step_s + n_train * self.step_sample_s
        return (
            self.start_s + (n_train + n_scored) * self.sample_s + steps * every_step + n_times * n_scored * self.score_s
        )

    def predict_s(self, pixels: float, steps: int) -> float:
        """Seconds of predicting so many pixels with a model of so many steps."""
        return pixels * (self.pixel_s + steps * self.pixel_step_s)

    def model_size(self, steps: int) -> float:
        """Bytes of a model of so many steps."""
        return self.model_bytes + steps * self.step_bytes

    def held_bytes(self, n_samples: float) -> float:
        """Memory of the samples that a fit on so many holds."""
        return min(n_samples, self.batch) * self.sample_bytes


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

    def of(self, kind: Kind) -> Sequence[FitCosts]:
        """Costs of a kind of trial; of one that was not measured those of the whole family, the dearest of which counts."""
        own = self.fits.get(kind)
        return [own] if own else [costs for (model, _), costs in self.fits.items() if model == kind[0]]

    def fixed_s(self, what: str) -> float:
        """Seconds of `FIXED_S` on this machine."""
        return FIXED_S[what] * self.worker_start_s / REFERENCE_WORKER_START_S
