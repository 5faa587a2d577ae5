"""Unit costs: what one zone, one row, one tile takes, as measured on this machine, and what cannot be measured here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

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
MOST_PREVIEWS: Final = 6  # of each model in the report
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
class TreeCosts:
    """Boosted trees: seconds of one fit that runs beside others, as a search runs them."""

    setup_row_s: float
    """Per training row, before the first round: binning, the matrix; and scoring afterwards."""
    round_s: float
    """Per boosting round, whatever the rows."""
    round_row_s: float
    """Per boosting round and training row, the validation rows' part included."""
    predict_row_s: float
    """Per row and boosting round."""
    round_bytes: float
    """Of the model, per boosting round."""
    map_s: float
    """One zone's map without its prediction: reading, preview, parcels, writing."""
    map_bytes: float
    worker_bytes: float
    """Memory of a worker process that has everything imported."""
    row_bytes: float
    """Memory of a fit, per training and validation row."""
    resident_row_bytes: float
    """The same with the bins on disk."""


@dataclass(frozen=True, slots=True)
class CnnCosts:
    """The CNN with one size of kernel."""

    start_s: float
    """Before the first epoch, and after the last."""
    train_tile_s: float
    """One tile in one epoch of training."""
    eval_tile_s: float
    """One tile scored."""
    model_bytes: float
    map_s: float
    map_bytes: float
    peak_bytes: float
    """Most memory of the worker process, at the full batch size."""


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
    trees: TreeCosts | None
    cnn: Mapping[int, CnnCosts]
    """Size of the kernel → costs."""

    def fixed_s(self, what: str) -> float:
        """Seconds of `FIXED_S` on this machine."""
        return FIXED_S[what] * self.worker_start_s / REFERENCE_WORKER_START_S
