"""A search in the tracker while it runs: search → configuration → fold."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from cropray import __version__
from cropray.config import JobConfig
from cropray.core.fingerprint import fingerprint
from cropray.core.metrics import Scores, headlines, score_columns
from cropray.datasets.manifest import Manifest
from cropray.io.job_file import dump_yaml
from cropray.io.storage import copy_file
from cropray.io.workspace import Workspace
from cropray.search.fit import configuration_of
from cropray.search.results import ConfigurationResult, FoldResult, Params, RegionOut, group_by_configuration
from cropray.search.space import Unit, title
from cropray.tracking import FoldRecord, Run, Tracker
from cropray.training.family import family


class SearchLog:
    """Writes a search to the tracker while it runs: search → configuration → fold."""

    def __init__(self, job: JobConfig, manifest: Manifest, model: str, context: str) -> None:
        self.job = job
        self.manifest = manifest
        self.model = model
        self.context = context
        self.tracker = Tracker(self.job.artefacts, self.job.name, self.job.tracking_uri)
        params = {
            "seed": self.job.seed,
            "objective": self.job.search.objective,
            self.model: self.job.settings_of(self.model).model_dump(mode="json"),
        }
        tags = {"cropray.version": __version__, "cropray.dataset": self.manifest.fingerprint()}
        # Another objective closes with another winner: it is another search, of the same units.
        key = fingerprint([self.context, self.job.search.objective])[:16]
        self.search = self.tracker.search_run(self.model, key, params, tags)
        self.configurations: dict[str, tuple[Run, list[FoldResult]]] = {}

    def write(self, results: Iterable[FoldResult]) -> None:
        """Write results of finished units."""
        for result in results:
            run, folds = self._configuration(result.params)
            folds.append(result)
            metrics = {**result.scores.as_metrics("val"), "seconds": result.seconds}
            self.tracker.fold_run(run, FoldRecord(result.fold, metrics, result.history))

    def follow(self, unit: Unit, record: Mapping[str, float]) -> None:
        """Write one step of a fold that is being fitted, if the store is there: it is written whole when it is finished."""
        assert unit.fold is not None
        run, _ = self._configuration(configuration_of(family(unit.model), unit.trial, max(unit.trial.steps, default=0)))
        self.tracker.follow_fold(run, FoldRecord(unit.fold, {}, (record,)))

    def _configuration(self, params: Params) -> tuple[Run, list[FoldResult]]:
        """(run of a configuration, its results so far)."""
        name = title(params)
        if name not in self.configurations:
            self.configurations[name] = self.tracker.configuration_run(self.search, name, params), []
        return self.configurations[name]

    def finish(self, best: ConfigurationResult, workspace: Workspace, region_out: RegionOut | None) -> None:
        """Close the configurations with their means, and the search with the winner's and its scores on new regions.

        It waits a little for a store that is away.
        """
        for run, folds in self.configurations.values():
            if len(folds) < self.manifest.n_folds:
                continue  # its time was up: means over some folds compare with nobody's
            (configuration,) = group_by_configuration(folds)
            self.tracker.finish(run, configuration.metrics)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.yaml").write_text(dump_yaml(self.job), encoding="utf-8")
            for file in (workspace.folds, workspace.search_result(self.model)):
                copy_file(file, Path(folder, file.name))
            metrics = best.metrics if region_out is None else {**best.metrics, **region_out.metrics}
            self.tracker.finish(self.search, metrics, Path(folder))
        self.tracker.close()


def scores_in_words(scores: Scores) -> str:
    """`accuracy 0.9000  macro F1 0.8000`."""
    return "  ".join(f"{metric.called} {scores.known(metric.key):.4f}" for metric in headlines())


def means_in_words(metrics: Mapping[str, float], objective: str) -> str:
    """Means over the folds: the headlines, the loss, and what the winner is chosen by, with its deviation.

    Args:
        metrics: `val_…_mean` and `val_…_std`.
        objective: `search.objective`.
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
