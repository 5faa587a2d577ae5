"""A plan as it is kept, and what the stages then took."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cropray.imagery.sources.earth_engine.ledger import read_runs
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings
from cropray.io.storage import Location, size_of
from cropray.io.workspace import Workspace
from cropray.planning.table import Amounts, Line
from cropray.planning.work import JobWork
from cropray.stages.pipeline import PIPELINE
from cropray.stages.timings import RAY_START, read_timings, seconds_of

_MADE_BY: Final = {  # part of the disk → the stage that fills it
    "composites": "acquire", "labels": "labels", "dataset": "dataset", "search": "search", "tracking": "evaluate",
    "maps": "map", "report": "report",
}  # fmt: skip


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
    ended = [timing["ended"] for stage in (RAY_START, *PIPELINE) for timing in read_timings(workspace, stage)]
    if raw["job"] != key or not any(when >= raw["made"] for when in ended):
        return None
    units = {stage: (noun, int(n)) for stage, (noun, n) in raw["units"].items()}
    return Planned(raw["made"], key, tuple(Line(**line) for line in raw["lines"]), units, tuple(raw["notes"]))


def units_of(work: JobWork) -> dict[str, tuple[str, int]]:
    """Stage → what its progress counts, and how many."""
    job, zones, n_models = work.job, work.zones, len(work.placements)
    units = {RAY_START: ("ray", 1), "search": ("units", len(work.fits))}
    units |= {"evaluate": ("zones", zones.n_test * n_models), "report": ("zones", zones.n_zones)}
    if job.points is not None:
        return units
    steps = (f"{job.cube_spec.noun}s", zones.n_zones * job.cube_spec.n_steps)
    acquire = steps if isinstance(job.imagery, EarthEngineSettings) else ("zones", zones.n_zones)
    made = {"labels": zones.n_zones, "dataset": zones.n_zones, "map": zones.n_mapped * n_models}
    return units | {"acquire": acquire} | {stage: ("zones", n) for stage, n in made.items()}


def actual(workspace: Workspace, planned: Planned) -> Amounts:
    """What was really taken, for stages that made all of their units."""
    seconds = {stage: seconds_of(workspace, stage, *planned.units[stage]) for stage in planned.units}
    taken = {("time", stage): value for stage, value in seconds.items() if value is not None}
    made = {part: size for part, size in sizes(workspace).items() if seconds.get(_MADE_BY[part]) is not None}
    taken |= {("disk", part): size for part, size in made.items()}
    runs = [run for run in read_runs(workspace) if run.get("source") == "earth_engine"]
    if seconds.get("acquire") is not None and runs:
        taken["source", "requests"] = sum(run["requests"] for run in runs)
        taken["source", "download"] = sum(run["bytes"] for run in runs)
    return taken


def sizes(workspace: Workspace) -> dict[str, int]:
    """Part of a workspace → bytes."""
    parts: dict[str, list[Location]] = {
        "composites": [workspace.composite("-").parent],
        "labels": [workspace.labels("-").parent, workspace.parcels("-").parent],
        "dataset": [workspace.pixels("-").parent, workspace.tiles("-").parent, workspace.manifest, workspace.folds],
        "search": [workspace.unit("-", "-").parent.parent, workspace.model("-").parent],
        "tracking": [workspace.mlflow_database, workspace.mlflow_artifacts] if isinstance(workspace.root, Path) else [],
        "maps": [workspace.map("-", "-").parent.parent],
        "report": [workspace.report, workspace.pictures],
    }
    return {part: sum(map(size_of, paths)) for part, paths in parts.items()}
