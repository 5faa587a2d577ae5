"""What a stage is, and the one list of stages: the command line, `run`, `why`, `plan` and the demo take theirs from it.

A stage of one's own is a module with `run(job, progress)`, and a line in `STAGES`. The module may also have

    artefacts(job)      what it makes, for `cropray why`; parts(job): what only a few will want, and takes longer
    checks(job, ahead)  looks at what it will read, before the first stage starts: functions that raise a CroprayError
"""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cropray.config import JobConfig
    from cropray.core.progress import Progress
    from cropray.io.artefacts import Artefact
    from cropray.io.storage import Location
    from cropray.io.workspace import Workspace
    from cropray.stages.preflight import Ahead, Check


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage; its module loads when it is asked for something: labelling parcels does not wait for torch and MLflow."""

    name: str
    summary: str
    """What it reads and writes."""
    of_sources: bool = False
    """Whether it reads what a user brings: tables, scenes, parcels, points."""
    of_images: bool = False
    """Whether a table of points has nothing for it to do."""
    predicts: Callable[["JobConfig"], bool] = lambda _: False
    """Whether it needs the devices that models predict on."""
    disk: Callable[["Workspace"], Mapping[str, "Sequence[Location]"]] = lambda _: {}
    """Part of the disk that it fills → files and folders."""
    module: str | None = None
    """Where it is; None: the module of this folder that is named as the stage."""

    def run(self, job: "JobConfig", progress: "Progress") -> None:
        """Do the stage's work; a CroprayError says what was wrong."""
        self._has("run")(job, progress)

    def listed(self, what: str, job: "JobConfig") -> "Iterable[Artefact]":
        """What it makes: its `artefacts` or `parts`; a CroprayError says why they cannot be told."""
        made: Iterable[Artefact] = self._has(what)(job)
        return made

    def checks(self, job: "JobConfig", ahead: "Ahead") -> "Iterable[Check]":
        """Looks at what it will read."""
        found: Iterable[Check] = self._has("checks")(job, ahead)
        return found

    def _has(self, name: str) -> Callable[..., Any]:
        module = importlib.import_module(self.module or f"{__package__}.{self.name}")
        function: Callable[..., Any] = getattr(module, name) if name == "run" else getattr(module, name, lambda *_: ())
        return function


STAGES: Final = [
    Stage("zones", "reads the zone table, or a land cover map to choose zones by cropland; writes zones.parquet",
          of_sources=True, of_images=True),
    Stage("acquire", "reads Sentinel-2 scenes; writes gap-filled composites and observation counts",
          of_sources=True, of_images=True, disk=lambda w: {"composites": [w.composite("-").parent]}),
    Stage("labels", "reads parcels; writes class rasters, parcel tables and code reports",
          of_sources=True, of_images=True, disk=lambda w: {"labels": [w.labels("-").parent, w.parcels("-").parent]}),
    Stage("dataset", "reads composites and labels (or labelled points); writes pixel tables, tile shards and folds",
          of_sources=True,
          disk=lambda w: {"dataset": [w.pixels("-").parent, w.tiles("-").parent, w.manifest, w.folds]}),
    Stage("search", "reads the dataset; writes every (configuration, fold), the refitted winners and MLflow runs",
          predicts=lambda job: bool(job.search.oof_rows),
          disk=lambda w: {"search": [w.unit("-", "-").parent.parent, w.model("-").parent]}),
    Stage("evaluate", "reads the winners and the test zones; writes the cube, the scores and MLflow runs",
          predicts=lambda _: True,
          disk=lambda w: {"tracking": [w.mlflow_database, w.mlflow_artifacts] if isinstance(w.root, Path) else []}),
    Stage("map", "reads the winners and composites; writes maps (COG), mapped parcels and previews",
          of_images=True, predicts=lambda _: True, disk=lambda w: {"maps": [w.map("-", "-").parent.parent]}),
    Stage("report", "reads the dataset and what results there are; writes pictures of the data and one HTML page",
          disk=lambda w: {"report": [w.report, w.pictures]}),
]  # fmt: skip


def stages_of(job: "JobConfig") -> list[Stage]:
    """The stages that a job has something to do for, in order."""
    has_work = [stage for stage in STAGES if job.points is None or not stage.of_images]
    return [stage for stage in has_work if not made_elsewhere(stage, job)]


def made_elsewhere(stage: Stage, job: "JobConfig") -> str:
    """The setting that names another job's workspace, where what a stage makes is read; empty: the job makes it."""
    if stage.of_sources and job.dataset_of is not None:
        return "dataset_of"
    return "images_of" if stage.of_sources and stage.of_images and job.images_of is not None else ""
