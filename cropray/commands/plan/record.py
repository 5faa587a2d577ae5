"""A plan as it is kept, and what the stages then took."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cropray.config import JobConfig
from cropray.io.storage import size_of
from cropray.io.workspace import Workspace
from cropray.planning.table import Amounts, Line
from cropray.planning.work import JobWork
from cropray.stages.stage import STAGES
from cropray.stages.timings import RAY_START, read_timings, seconds_of


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, as it is kept."""

    made: str
    """Time, UTC."""
    job: str
    """Fingerprint of what was planned."""
    lines: tuple[Line, ...]
    units: Mapping[str, tuple[str, int]]
    """Stage → what it makes, and how many."""
    notes: tuple[str, ...]


def read_plan(workspace: Workspace, key: str) -> Planned | None:
    """The plan of this job that something has run since; None where it must be made (again)."""
    try:
        raw = json.loads(workspace.plan.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    ended = [
        timing["ended"]
        for stage in (RAY_START, *(stage.name for stage in STAGES))
        for timing in read_timings(workspace, stage)
    ]
    if raw["job"] != key or not any(when >= raw["made"] for when in ended):
        return None
    units = {stage: (noun, int(n)) for stage, (noun, n) in raw["units"].items()}
    return Planned(raw["made"], key, tuple(Line(**line) for line in raw["lines"]), units, tuple(raw["notes"]))


def units_of(work: JobWork) -> dict[str, tuple[str, int]]:
    """Stage → what its progress counts, and how many."""
    job, zones, n_models = work.job, work.zones, len(work.placements)
    units = {RAY_START: ("ray", 1), "search": ("units", len(work.fits))}
    units |= {"evaluate": ("zones", zones.n_test * n_models), "report": ("zones", zones.n_zones)}
    if job.imagery is None:
        return units
    acquire = job.imagery.counted(zones.n_zones, job.cube_spec)
    made = {"labels": zones.n_zones, "dataset": zones.n_zones, "map": zones.n_mapped * n_models}
    return units | {"acquire": acquire} | {stage: ("zones", n) for stage, n in made.items()}


def actual(job: JobConfig, planned: Planned) -> Amounts:
    """What was really taken, for stages that made all of their units."""
    workspace = job.artefacts
    seconds = {stage: seconds_of(workspace, stage, *planned.units[stage]) for stage in planned.units}
    taken = {("time", stage): value for stage, value in seconds.items() if value is not None}
    made = {stage.name for stage in STAGES if seconds.get(stage.name) is not None}
    taken |= {("disk", part): size for part, size in sizes(workspace, made).items()}
    if "acquire" in made and job.imagery is not None:
        taken |= {("source", name): n for name, n in job.imagery.asked(workspace).items()}
    return taken


def sizes(workspace: Workspace, stages: Collection[str] | None = None) -> dict[str, int]:
    """Part of a workspace → bytes; of what some stages make, or all."""
    of = [stage.disk(workspace) for stage in STAGES if stages is None or stage.name in stages]
    return {part: sum(map(size_of, paths)) for parts in of for part, paths in parts.items()}
