"""What a stage makes, each with the verdict whether it is up to date: asked by the stage itself, and by `cropray why`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cropray.core.keys import Key
from cropray.core.progress import Progress
from cropray.io.storage import Location
from cropray.io.workspace import MISSING, Workspace


class Artefact(Protocol):
    """One thing that a stage makes whole."""

    @property
    def group(self) -> str:
        """The stage, and what of it where it makes several things: `acquire`, `map/cnn`."""

    @property
    def unit(self) -> str:
        """The zone; empty where there is one for all."""

    @property
    def outputs(self) -> Sequence[Location]:
        """Its files and folders."""

    def why_stale(self) -> Sequence[str]:
        """All reasons why it is not up to date, in words; none where it is."""


@dataclass(frozen=True, slots=True)
class Stamped:
    """An `Artefact` with a stamp."""

    group: str
    unit: str
    workspace: Workspace
    stamp: tuple[str, str]
    """Stage and unit of `Workspace.stamp`."""
    inputs: Key
    outputs: tuple[Location, ...]
    earlier: str | None = None
    """See `Workspace.why_stale`."""

    def why_stale(self) -> list[str]:
        """As its stamp says."""
        return self.workspace.why_stale(*self.stamp, self.inputs, self.outputs, self.earlier)

    def is_current(self, progress: Progress, what: str, *, overwrite: bool) -> bool:
        """The verdict as a stage tells it (`what`: the artefact, for people); False wherever it is to `overwrite`."""
        if overwrite:
            return False
        why = self.why_stale()
        if not why:
            progress.note(f"{what} is up to date")
        elif why[0] != MISSING:
            progress.note(f"{what} is made again: {first_of(why)}")
        return not why

    def mark(self) -> None:
        """It is finished."""
        self.workspace.mark_current(*self.stamp, self.inputs)

    def forget(self) -> None:
        """It will be made again; a failure may replace a part of it."""
        self.workspace.mark_stale(*self.stamp)


def first_of(why: Sequence[str]) -> str:
    """The first reason, and how many more there are."""
    return why[0] if len(why) == 1 else f"{why[0]}, and {len(why) - 1} more"


def describe_stale(stale: Mapping[str, str], n_units: int) -> str:
    """One line on those of a stage's zones that are not up to date: how many of all, and the first reason of the first."""
    unit, reason = next(iter(stale.items()))
    where = "" if len(set(stale.values())) == 1 else f"{unit}: "
    return f"{len(stale)} of {n_units} zones: {where}{reason}"


def describe_again(stale: Mapping[str, str], n_units: int) -> str:
    """Why what was made before is made again, in one line; empty where nothing is. What is missing says so itself."""
    again = {unit: reason for unit, reason in stale.items() if reason != MISSING}
    return f"made again: {describe_stale(again, n_units)}" if again else ""
