"""What stages note of their runs in the workspace, and the runs that follow from it.

A note holds what stands in no other artefact: settings, which units a search consists of, what its closing came to. Folds
and configurations are read from the results of the units, tests from the evaluation's own files.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from cropray.core.fingerprint import fingerprint
from cropray.core.redaction import redact
from cropray.io.storage import Location, content_id
from cropray.tracking.outages import RefusedError

CURVE_PREFIX: Final = "curve/"  # keeps a curve's last point from hiding the score of the same name
LONGEST_PARAM: Final = 6000  # characters, MLflow REST API
_CUT: Final = " … (cut)"  # ends a text that was longer
_STEP: Final = "step"  # key of a history record that holds its step
_NOT_IN_KEYS: Final = re.compile(r"[^\w -]")  # MLflow takes some more, which stand for folders or end a name
_LONGEST_NAME: Final = 200  # characters; MLflow takes 250 of a metric's key

Point: TypeAlias = tuple[str, int, float]
"""(metric, step, value)."""
History: TypeAlias = Sequence[Mapping[str, float]]
"""One record per epoch or boosting round; its step is the key `step`, or the position counted from 1."""


def flatten(params: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested mappings as one level of dotted keys."""
    flat: dict[str, object] = {}
    for key, value in params.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def as_texts(params: Mapping[str, object]) -> dict[str, str]:
    """Params or tags as a store takes them: flat, without passwords, not too long."""
    texts = {key: redact(str(value)) for key, value in flatten(params).items()}
    return {
        key: text if len(text) <= LONGEST_PARAM else f"{text[: LONGEST_PARAM - len(_CUT)]}{_CUT}"
        for key, text in texts.items()
    }


def as_keys(names: Iterable[str]) -> dict[str, str]:
    """Name → how the keys of metrics have it: `-` for what MLflow does not take, and cut where it is too long.

    Of names that would become the same, the one that is written so keeps it; each other one gets a hash of itself.
    """
    plain = {name: _NOT_IN_KEYS.sub("-", name)[:_LONGEST_NAME] for name in names}
    n_alike = Counter(plain.values())
    return {
        name: key if key == name or n_alike[key] == 1 else f"{key} {fingerprint(name)[:8]}"
        for name, key in plain.items()
    }


_Texts: TypeAlias = Annotated[dict[str, Any], BeforeValidator(as_texts)]


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
class Candidate:
    """A tested model that `evaluate` wants to be a version of the experiment's registered model."""

    content: str
    """Hash of the files in `models/<family>`; other files are another model."""
    form: ModelForm
    merit: Merit
    asked_ms: int = 0
    """When, since 1970: aliases are looked at once for each time."""


_AS_WRITTEN: Final = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class _Note(BaseModel):
    model_config = _AS_WRITTEN

    experiment: str
    key: str
    """Path of the run in its tree, unique in the experiment."""
    model: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    """`cnn` or `xgboost`."""
    time_ms: int
    """When it began, since 1970."""
    params: _Texts = {}
    """Nested or flat."""
    tags: _Texts = {}


class RunningFold(BaseModel):
    """Steps of a fold that is still fitted, as far as the driver was told of them."""

    model_config = _AS_WRITTEN

    params: dict[str, Any]
    fold: int
    history: tuple[dict[str, float], ...]


class SearchNote(_Note):
    """Of a search, in `runs/search/<model>/<fingerprint>`; its closing files stand beside it, in `files`."""

    kind: Literal["search"] = "search"
    n_folds: int
    units: tuple[str, ...] = ()
    """Names of the folders in `search/<model>` that belong to it, finished or not."""
    running: dict[str, RunningFold] = {}
    """Unit → its steps so far."""
    metrics: dict[str, float] | None = None
    """Those of the winner; None: the search is not finished."""


class EvaluationNote(_Note):
    """Of the last test of a family's model, in `runs/evaluate/<model>`."""

    kind: Literal["evaluate"] = "evaluate"
    metrics: dict[str, float] = {}
    """`test_loss`, `test_accuracy` …, `test_pixels`."""
    search: str | None = None
    """Key of the search whose winner this is; None: not known."""
    maps: dict[str, str] = {}
    """Zone → identity of its picture in `maps/<model>`, where the tested model drew it."""
    candidate: Candidate | None = None
    """None: it is not to be registered."""


class ResultNote(_Note):
    """Of what a command made of finished tests, in `runs/<command>/<what>`: the next one of the same is noted in its place."""

    kind: Literal["nested", "compare"]
    name: str
    """For people."""
    metrics: dict[str, float]
    files: tuple[str, ...]
    """Paths in the workspace."""


Note: TypeAlias = SearchNote | EvaluationNote | ResultNote
NOTE: Final = TypeAdapter[Note](Annotated[Note, Field(discriminator="kind")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as a store shall hold it."""

    key: str
    model: str
    kind: str
    """`search`, `configuration`, `fold`, `evaluate`, `nested` or `compare`."""
    name: str
    is_finished: bool
    params: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: History = ()
    files: Mapping[str, Location] = field(default_factory=dict)
    """Path within the run → file."""
    below: Callable[[], Iterable["Run"]] = tuple
    """Reads the runs below it; those of a run that is closed are there."""
    time_ms: int | None = None
    search: str | None = None
    folder: Location | None = None
    """The candidate's files."""
    candidate: Candidate | None = None

    @property
    def points(self) -> list[Point]:
        """Curves, and metrics at step 0; values that are not finite are left out."""
        curves = [
            (CURVE_PREFIX + key, int(record.get(_STEP, position)), float(value))
            for position, record in enumerate(self.history, start=1)
            for key, value in record.items()
            if key != _STEP and math.isfinite(value)
        ]
        return curves + [(key, 0, float(value)) for key, value in self.metrics.items() if math.isfinite(value)]

    def content(self) -> str:
        """Identity of what is written, runs below it and the candidate apart."""
        try:
            files = {name: content_id(file) for name, file in self.files.items()}
        except OSError as error:  # of the workspace: no outage of the store
            raise RefusedError(f"{error} (in the workspace)") from None
        return fingerprint([self.is_finished, self.params, self.tags, self.points, files, self.search])[:16]
