"""What callers hand to the tracker, and the handle that they get."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cropray.storage import Location


@dataclass(frozen=True, slots=True)
class Run:
    """A handle on a run."""

    key: str
    """Path of the run in its tree, unique in the experiment."""
    model: str
    """`cnn` or `xgboost`."""
    run_id: str | None
    """MLflow's id; None: the store has not answered yet."""
    is_finished: bool
    """Whether the run was complete when it was opened."""


@dataclass(frozen=True, slots=True)
class FoldRecord:
    """All that is known of one finished (configuration, fold)."""

    fold: int
    metrics: Mapping[str, float]
    """`val_loss`, `val_accuracy`, `val_macro_f1` …"""
    history: Sequence[Mapping[str, float]] = ()
    """One record per epoch or boosting round; its step is the key `step`, or the position counted from 1."""
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """The test of a refitted winner."""

    fingerprint: str
    """Identifies model and test data; the same fingerprint is the same run."""
    params: Mapping[str, object]
    metrics: Mapping[str, float]
    """`test_loss`, `test_accuracy` …, `test_pixels`."""
    artifacts: Location
    """Folder whose files are stored with the run."""


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A trained model as the registry needs it."""

    folder: Location
    """Weights and `card.json`."""
    input_shape: tuple[int, ...]
    """Axes of the uint16 input, -1 where any length is accepted."""
    output_shape: tuple[int, ...]
    """Axes of the float32 probabilities."""
    requirements: tuple[str, ...]
    """Distributions that are needed to load it: `torch`, `xgboost`."""
