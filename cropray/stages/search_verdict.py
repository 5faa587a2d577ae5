"""Whether a search is up to date: no unit is left to fit, and what it chose is what the job asks for."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cropray.config import JobConfig
from cropray.core.keys import Key, differences
from cropray.datasets.manifest import Manifest
from cropray.io.storage import Location
from cropray.io.workspace import EARLIER, MISSING
from cropray.search.decision import DecisionSettings
from cropray.search.run import UnitJob
from cropray.stages.decision import asked


@dataclass(frozen=True, slots=True)
class Searched:
    """The search of one kind of model, an `Artefact` whose stamp is the key in its result."""

    job: JobConfig
    manifest: Manifest
    model: str
    key: Key
    """What every fit is made from, besides its own point and zones."""
    units: Sequence[UnitJob]
    """Of the search; refits apart."""
    is_finished: Callable[[], bool]
    """Whether no unit is left, refits included."""
    members: Sequence[str] = ()
    """Families from whose winners it is built."""

    @property
    def group(self) -> str:
        """The stage and the model."""
        return f"search/{self.model}"

    @property
    def unit(self) -> str:
        """There is one search."""
        return ""

    @property
    def outputs(self) -> tuple[Location, ...]:
        """The result, the winner, and the folder of the units."""
        workspace = self.job.artefacts
        return (
            workspace.search_result(self.model),
            workspace.model(self.model),
            workspace.unit(self.model, "any").parent,
        )

    def why_stale(self) -> list[str]:
        """All reasons, the key's first."""
        if not self.outputs[0].exists():
            n_done = sum(unit.is_finished for unit in self.units)
            return [f"{MISSING}; {n_done} of its {len(self.units)} fits are finished" if n_done else MISSING]
        result = json.loads(self.outputs[0].read_text(encoding="utf-8"))
        if "key" not in result:
            return [EARLIER]
        return list(differences(result["key"], self.key.parts)) or list(self._of_the_choice(result))

    def _of_the_choice(self, result: dict[str, Any]) -> Iterator[str]:
        """What differs though every fit that was made still counts."""
        settings = self.job.search
        if result["objective"] != settings.objective:
            yield f"setting search.objective was {result['objective']}, is {settings.objective}"
        yield from _of_the_decision(result.get("decision"), asked(self.job))
        was = {"leave_region_out": "region_out" in result, "racing": result.get("racing", False)}
        changed = {name: now for name in was if (now := getattr(settings, name)) != was[name]}
        yield from (
            f"setting search.{name} was {str(not now).lower()}, is {str(now).lower()}" for name, now in changed.items()
        )
        if self.members and not self.units:
            yield f"searches of {', '.join(self.members)}, from which it is built, are not finished"
        elif "racing" not in changed and result["units"] != [unit.folder.name for unit in self.units]:
            left = [unit.unit.title for unit in self.units if not unit.is_finished]
            if self._was_cut_off(result, left):
                yield f"its time was up (search.time_budget_s): {len(left)} fits are left to be made"
            elif self.members:
                yield f"winners of {', '.join(self.members)}, from which it is built, changed, or setting search.{self.model}"
            else:
                yield f"setting search.{self.model} changed, or dataset.n_folds: {len(left)} fits are to be made"
        elif not self.is_finished():
            yield "fits of it, or refits of the winner, are not there"
        if result["dataset"] != self.manifest.fingerprint():
            yield "test zones of the dataset changed"
        if not self.outputs[1].exists():
            yield f"'{self.outputs[1]}' is missing"

    def _was_cut_off(self, result: dict[str, Any], left: list[str]) -> bool:
        """Whether what it lacks is what it had no time for; of trials that were not proposed then, nobody knows which."""
        finished = [unit.folder.name for unit in self.units if unit.is_finished]
        left_out = result.get("left_out")
        may_be_dropped = bool(left_out) and self.job.search.racing  # what it lacked then may be out of the race now
        return result["units"] == finished and bool(result.get("not_proposed") or left_out == left or may_be_dropped)


def _of_the_decision(result: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Iterator[str]:
    """What differs of how the winner decides, which fits nothing again."""
    default = DecisionSettings().model_dump(mode="json")
    was = {**default, **({} if result is None else result["asked"])}  # it may know fewer settings than there are
    now = {**default, **(now or {})}
    changed = [name for name in default if was[name] != now[name]]
    yield from (f"setting decision.{name} was {was[name]}, is {now[name]}" for name in changed)
    if not changed and was != now:
        yield "code that learns how the winner decides changed"
