"""What callers hand to the tracker, and the handle that they get."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cropray.io.storage import Location


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
    search: str | None = None
    """Key of the search whose winner this is; None: not known."""


@dataclass(frozen=True, slots=True)
class ModelForm:
    """How a trained model is loaded and asked."""

    loader: str
    """Module with MLflow's `_load_pyfunc`; the registered model carries it and what it imports."""
    columns: tuple[str, ...]
    """Of a table of pixels; empty: the model takes tiles."""
    input_shape: tuple[int, ...]
    """Axes of the uint16 input, -1 where any length is accepted."""
    output_shape: tuple[int, ...]
    """Axes of the float32 probabilities."""
    classes: tuple[str, ...]
    """Name of each output, in order."""
    layout: dict[str, Any] = field(default_factory=dict)
    """JSON-able: what the input's axes hold; becomes metadata of the model."""


@dataclass(frozen=True, slots=True)
class Merit:
    """What makes one model better than another on the same dataset."""

    family: str
    """`cnn` or `xgboost`; also an alias of its best version."""
    dataset: str
    """Fingerprint of the dataset."""
    objective: str
    """What the search chose by, `val_loss` …"""
    value: float
    """Mean of the objective over the folds."""
    greater_is_better: bool


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A trained model as the registry needs it."""

    folder: Location
    """Weights and `card.json`."""
    form: ModelForm
    merit: Merit
