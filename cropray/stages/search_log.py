"""A search in the tracker: which units it consists of, how far its fits are, and what it came to."""

import time
from collections.abc import Iterable, Mapping

from cropray import __version__
from cropray.config import JobConfig
from cropray.core.fingerprint import fingerprint
from cropray.core.metrics import Scores, headlines, score_columns
from cropray.datasets.manifest import Manifest
from cropray.io.job_file import dump_yaml
from cropray.io.storage import copy_file, whole_folder
from cropray.io.workspace import Workspace
from cropray.search.fit import configuration_of
from cropray.search.results import ConfigurationResult, RegionOut
from cropray.search.run import UnitJob
from cropray.tracking import RunningFold, SearchNote, Tracker
from cropray.training.family import family


class SearchLog:
    """Notes in the workspace what a search is; the tracker makes runs of that and of the units that are finished."""

    def __init__(self, job: JobConfig, manifest: Manifest, model: str, context: str, tracker: Tracker) -> None:
        self.job = job
        self.tracker = tracker
        # Another objective closes with another winner: it is another search, of the same units.
        key = fingerprint([context, job.search.objective])[:16]
        self.search = SearchNote(
            experiment=job.name,
            key=f"search/{model}/{key}",
            model=model,
            time_ms=round(time.time() * 1000),
            params={
                "seed": job.seed,
                "objective": job.search.objective,
                model: job.settings_of(model).model_dump(mode="json"),
            },
            tags={"cropray.version": __version__, "cropray.dataset": manifest.fingerprint()},
            n_folds=manifest.n_folds,
        )

    def plan(self, units: Iterable[UnitJob]) -> None:
        """Note which units there are, finished ones as well."""
        names = tuple(unit.folder.name for unit in units)
        if names != self.search.units:
            self._note(units=names)

    def keep_up(self) -> None:
        """Let units that were finished be seen."""
        self.tracker.keep_up(self.search)

    def follow(self, job: UnitJob, record: Mapping[str, float]) -> None:
        """Note one step of a fold that is being fitted; once it is finished, its results tell all."""
        unit, name = job.unit, job.folder.name
        assert unit.fold is not None
        params = configuration_of(family(unit.model), unit.trial, max(unit.trial.steps, default=0))
        before = self.search.running.get(name, RunningFold(params=dict(params), fold=unit.fold, history=()))
        now = before.model_copy(update={"history": (*before.history, dict(record))})
        self._note(running={**self.search.running, name: now})

    def finish(self, best: ConfigurationResult, workspace: Workspace, region_out: RegionOut | None) -> None:
        """Note the winner's means and its scores on new regions; by that the search is closed."""
        with whole_folder(workspace.run_files(self.search.key)) as folder:
            (folder / "config.yaml").write_text(dump_yaml(self.job), encoding="utf-8")
            for file in (workspace.folds, workspace.search_result(self.search.model)):
                copy_file(file, folder / file.name)
        metrics = best.metrics if region_out is None else {**best.metrics, **region_out.metrics}
        self._note(metrics=metrics, running={})

    def _note(self, **changes: object) -> None:
        self.search = self.search.model_copy(update=changes)
        self.tracker.note(self.search)


def scores_in_words(scores: Scores) -> str:
    """`accuracy 0.9000  macro F1 0.8000`."""
    return "  ".join(f"{metric.called} {scores.known(metric.key):.4f}" for metric in headlines())


def means_in_words(metrics: Mapping[str, float], objective: str) -> str:
    """Means over the folds: the headlines, the loss, and what the winner is chosen by, with its deviation.

    `metrics` are `val_…_mean` and `val_…_std`, `objective` is `search.objective`.
    """
    shown = [
        metric for metric in score_columns() if metric.is_headline or f"val_{metric.key}" in {"val_loss", objective}
    ]
    words = []
    for metric in shown:
        key = f"val_{metric.key}"
        deviation = f" ± {metrics[f'{key}_std']:.4f}" if key == objective else ""
        words.append(f"{metric.called} {metrics[f'{key}_mean']:.4f}{deviation}")
    return "  ".join(words)
