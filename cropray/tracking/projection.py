"""What MLflow shall hold of a workspace: the runs that its notes, units and evaluations tell of."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from cropray.core.errors import SchemaError
from cropray.io.storage import Location, content_id, files_below, relative
from cropray.io.workspace import Workspace
from cropray.search.results import RESULT_FILE, ConfigurationResult, FoldResult, group_by_configuration, load_results
from cropray.search.space import title
from cropray.tracking.outages import RefusedError
from cropray.tracking.records import (
    NOTE,
    EvaluationNote,
    History,
    Note,
    ResultNote,
    Run,
    RunningFold,
    SearchNote,
    as_texts,
)

NOTE_FILE: Final = "run.json"


class Projection:
    """Reads the runs of a workspace.

    Attributes:
        doubts: what could not be read, and what to do about it.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.doubts: list[str] = []
        self._workspace = workspace
        self._results: dict[Location, tuple[FoldResult, ...]] = {}  # finished units do not change

    def notes(self) -> list[Note]:
        """All that stages have noted: searches before the tests that belong to them, older ones first."""
        found = []
        for file in files_below(self._workspace.run("")):
            if file.name == NOTE_FILE:
                try:
                    found.append(NOTE.validate_json(file.read_text(encoding="utf-8")))
                except FileNotFoundError:  # a test is noted anew
                    continue
                except (OSError, ValueError):
                    stage = relative(file, self._workspace.run("")).partition("/")[0]
                    self.doubts.append(
                        f"'{file}' is damaged or of another version of cropray, and its run is left out of MLflow; run "
                        f"`cropray {stage} CONFIG.yaml` again, which makes nothing twice"
                    )
        return sorted(found, key=lambda note: (note.kind != "search", note.time_ms))

    def run(self, note: Note) -> Run:
        """The run of a note, with all that is below it.

        Raises:
            RefusedError: a file of it lies outside of the workspace, or cannot be read.
        """
        try:
            if isinstance(note, ResultNote):
                return self._result(note)
            return self._search(note) if isinstance(note, SearchNote) else self._evaluation(note)
        except OSError as error:  # of the workspace: no outage of the store
            raise RefusedError(f"{error} (in the workspace)") from None

    def _search(self, note: SearchNote) -> Run:
        is_finished = note.metrics is not None
        return Run(
            **_common(note),
            is_finished=is_finished,
            metrics=note.metrics or {},
            files=self._files(self._workspace.run_files(note.key)) if is_finished else {},
            below=lambda: self._configurations(note),
        )

    def _evaluation(self, note: EvaluationNote) -> Run:
        workspace = self._workspace
        pictures = {workspace.map_preview(note.model, zone): drawn for zone, drawn in note.maps.items()}
        maps = {
            f"maps/{file.name}": self._inside(file) for file, drawn in pictures.items() if content_id(file) == drawn
        }
        folder = None if note.candidate is None else workspace.model(note.model)
        if folder is not None:
            self._files(folder)
        return Run(
            **_common(note),
            is_finished=True,
            metrics=note.metrics,
            files={**self._files(workspace.evaluation(note.model)), **maps},
            search=note.search,
            folder=folder,
            candidate=note.candidate,
        )

    def _result(self, note: ResultNote) -> Run:
        files = [self._inside(self._workspace.root / name) for name in note.files]
        return Run(
            **{**_common(note), "name": note.name},
            is_finished=True,
            metrics=note.metrics,
            files={file.name: file for file in files if file.exists()},
        )

    def _configurations(self, note: SearchNote) -> Iterator[Run]:
        folder = self._workspace.unit(note.model, "")
        there = {relative(file.parent, folder) for file in files_below(folder) if file.name == RESULT_FILE}
        results = [result for unit in note.units if unit in there for result in self._read(folder / unit)]
        groups = {title(found.params): found for found in group_by_configuration(results)}
        running: dict[str, list[RunningFold]] = {}
        for unit, steps in note.running.items():
            if unit not in there:
                groups.setdefault(title(steps.params), ConfigurationResult(steps.params, ()))
                running.setdefault(title(steps.params), []).append(steps)
        for name, found in groups.items():
            key, is_whole = f"{note.key}/{name}", len(found.folds) == note.n_folds
            folds = [_fold(key, note.model, each.fold, each.history, _metrics(each)) for each in found.folds]
            folds += [_fold(key, note.model, steps.fold, steps.history) for steps in running.get(name, ())]
            yield Run(
                key=key,
                model=note.model,
                kind="configuration",
                name=name,
                # Means over some folds compare with nobody's.
                is_finished=is_whole,
                params=as_texts(found.params),
                metrics=found.metrics if is_whole else {},
                below=partial(tuple, folds),
            )

    def _read(self, unit: Location) -> tuple[FoldResult, ...]:
        if unit not in self._results:
            try:
                self._results[unit] = load_results(unit / RESULT_FILE)
            except (SchemaError, OSError) as error:
                self.doubts.append(f"a unit is left out of MLflow: {error}")
                return ()
        return self._results[unit]

    def _files(self, folder: Location) -> Mapping[str, Location]:
        for place in folder.rglob("*") if isinstance(folder, Path) else ():  # folders as well: they may be links
            self._inside(place)
        return {relative(file, folder): self._inside(file) for file in files_below(folder)}

    def _inside(self, file: Location) -> Location:
        """Whoever can write the workspace may have put a link, or a name, into it."""
        root = self._workspace.root
        if isinstance(file, Path) and isinstance(root, Path) and not file.resolve().is_relative_to(root.resolve()):
            raise RefusedError(f"'{file}' leads out of the workspace, to '{file.resolve()}'")
        return file


def _common(note: Note) -> dict[str, Any]:
    names = ("key", "model", "kind", "params", "tags", "time_ms")
    return {"name": f"{note.model} {note.kind}", **{name: getattr(note, name) for name in names}}


def _metrics(result: FoldResult) -> dict[str, float]:
    return {**result.scores.as_metrics("val"), "seconds": result.seconds}


def _fold(
    configuration: str, model: str, fold: int, history: History, metrics: Mapping[str, float] | None = None
) -> Run:
    """Args: metrics: None while it is fitted."""
    return Run(
        key=f"{configuration}/fold-{fold}",
        model=model,
        kind="fold",
        name=f"fold {fold}",
        is_finished=metrics is not None,
        params={"fold": str(fold)},
        metrics=metrics or {},
        history=history,
    )
