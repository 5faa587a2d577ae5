"""Writes as records: complete in themselves, so that they can be kept in a file and applied later by another process.

Runs are named by their keys, never by the ids of a store. The time is that of the write: a store that is given the
same metric at the same step and time twice keeps one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from cropray.core.fingerprint import fingerprint
from cropray.core.redaction import redact
from cropray.tracking.records import Merit, ModelForm

CURVE_PREFIX: Final = "curve/"  # keeps a curve's last point from hiding the score of the same name
LONGEST_PARAM: Final = 6000  # characters, MLflow REST API
_CUT: Final = " … (cut)"  # ends a text that was longer
_STEP: Final = "step"  # key of a history record that holds its step

Point: TypeAlias = tuple[str, int, float]
"""(metric, step, value)."""


class RefusedError(Exception):
    """The store answers, and will never take this write."""


class _Operation(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    key: str
    """Path of the run in its tree."""
    time_ms: int
    """When it was asked for, since 1970."""

    def digest(self) -> str:
        """Identity of what is written, whenever it is written."""
        return fingerprint(self.model_dump(mode="json", exclude={"time_ms"}))[:16]


class OpenRun(_Operation):
    """Find a run, or create it; params that it lacks are added."""

    kind: Literal["open"] = "open"
    model: str
    parent: str | None
    """Key of the run above it."""
    name: str
    params: dict[str, str]
    tags: dict[str, str]
    search: str | None = None
    """Key of the search whose winner an evaluation tests; the two are linked where it is there."""

    def __str__(self) -> str:
        """What is done, for messages."""
        return f"open '{self.key}'"


class WriteFold(_Operation):
    """Write a finished (configuration, fold) whole."""

    kind: Literal["fold"] = "fold"
    model: str
    parent: str
    name: str
    params: dict[str, str]
    tags: dict[str, str]
    points: list[Point]
    is_running: bool = False
    """Whether these are steps of a fold that is still fitted: its run stays open."""

    def __str__(self) -> str:
        """What is done, for messages."""
        return f"write '{self.key}'"


class FinishRun(_Operation):
    """Write the closing metrics and files of a run, and close it."""

    kind: Literal["finish"] = "finish"
    points: list[Point]
    folder: str | None
    """Within the workspace, or an address of its own; None: no files."""

    def __str__(self) -> str:
        """What is done, for messages."""
        return f"finish '{self.key}'"


class AddFiles(_Operation):
    """Store the files of a folder with a run."""

    kind: Literal["files"] = "files"
    folder: str
    """Within the workspace, or an address of its own."""
    subfolder: str

    def __str__(self) -> str:
        """What is done, for messages."""
        return f"store '{self.subfolder}' of '{self.key}'"


class RegisterModel(_Operation):
    """Register a model, and move the aliases to it if it is better."""

    kind: Literal["register"] = "register"
    name: str
    folder: str
    """Within the workspace, or an address of its own."""
    content: str
    """Hash of the folder's files; other files are another model."""
    form: ModelForm
    merit: Merit

    def __str__(self) -> str:
        """What is done, for messages."""
        return f"register '{self.name}'"


Operation: TypeAlias = OpenRun | WriteFold | FinishRun | AddFiles | RegisterModel
OPERATION: Final = TypeAdapter[Operation](Annotated[Operation, Field(discriminator="kind")])


def flatten(params: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested mappings as one level of dotted keys."""
    flat: dict[str, object] = {}
    for key, value in params.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def as_texts(params: Mapping[str, object]) -> dict[str, str]:
    """Params or tags as a store takes them: flat, without passwords, not too long."""
    return {key: _shortened(redact(str(value))) for key, value in flatten(params).items()}


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_PARAM else f"{text[: LONGEST_PARAM - len(_CUT)]}{_CUT}"


def points_of(metrics: Mapping[str, float]) -> list[Point]:
    """Metrics at step 0; values that are not finite are left out."""
    return [(key, 0, float(value)) for key, value in metrics.items() if math.isfinite(value)]


def curve_of(history: Sequence[Mapping[str, float]]) -> list[Point]:
    """A history as points, one curve per key."""
    return [
        (CURVE_PREFIX + key, int(record.get(_STEP, position)), float(value))
        for position, record in enumerate(history, start=1)
        for key, value in record.items()
        if key != _STEP and math.isfinite(value)
    ]
