"""`search`: every configuration on every fold, the winner, its refit on all training zones, and their runs in MLflow."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import ray

from cropray import __version__
from cropray.config import JobConfig
from cropray.datasets.loading import load_pixels, load_tiles
from cropray.datasets.manifest import Manifest, load_manifest
from cropray.errors import ConfigError
from cropray.progress import Progress
from cropray.search.fit import SearchData, fit_unit
from cropray.search.results import ConfigurationResult, FoldResult, Params, group_by_configuration, winner
from cropray.search.run import Placement, UnitJob, place_units, run_units
from cropray.search.space import ModelName, Unit, search_units
from cropray.settings import dump_yaml, fingerprint
from cropray.stages.cluster import ray_session
from cropray.tracking import FoldRecord, Run, Tracker
from cropray.training.cnn import CnnPoint, CnnSettings
from cropray.training.xgboost import XgboostPoint, XgboostSettings
from cropray.workspace import Workspace, code_hash, whole_folder, write_json


def run(job: JobConfig, progress: Progress) -> None:
    """Search, refit and record the models of `search.models`.

    Raises:
        MissingArtefactError: there is no dataset.
        ConfigError: a model cannot be trained on this dataset or on this cluster.
        StageFailedError: some units failed.
    """
    manifest = load_manifest(job.artefacts.manifest)
    if "cnn" in job.search.models and manifest.source == "points":
        raise ConfigError("a dataset of points has no tiles for the CNN: set search.models to [xgboost]")
    empty = [fold for fold in range(manifest.n_folds) if not manifest.fold_zones(fold)[1]]
    if empty:
        raise ConfigError(f"folds {empty} have no zone; run `cropray dataset` with fewer dataset.n_folds")
    with ray_session(job.cluster, needs_dashboard=job.uses_worker_groups):
        for model in job.search.models:
            _ModelSearch(job, manifest, model, progress).run()


class _ModelSearch:
    """The search of one kind of model."""

    def __init__(self, job: JobConfig, manifest: Manifest, model: ModelName, progress: Progress) -> None:
        self.job = job
        self.manifest = manifest
        self.model: ModelName = model
        self.progress = progress
        self.workspace: Workspace = job.artefacts
        self.settings: CnnSettings | XgboostSettings = job.cnn if model == "cnn" else job.xgboost
        # What a fit depends on besides its own point and fold.
        self.context = fingerprint(
            [manifest.fingerprint(), self.settings.fingerprint(), job.seed, code_hash("models", "training")]
        )
        self.blocks: Mapping[str, ray.ObjectRef] = {}

    def run(self) -> None:
        units = search_units(self.job.search, self.model, self.manifest.n_folds)
        jobs = [self._job(unit) for unit in units]
        n_finished = sum(job.is_finished for job in jobs)
        already = f", {n_finished} finished before" if n_finished else ""
        placement = self._placement()
        at_once = f"{placement.max_concurrent} at a time"
        self.progress.stage("search", f"{self.model}: {len(jobs)} units of (configuration, fold), {at_once}{already}")
        log = _SearchLog(self.job, self.manifest, self.model, self.context)
        for job in jobs:
            if job.is_finished:
                log.write(job.results())
        self._run_units(jobs, placement, log)
        configurations = group_by_configuration(result for job in jobs for result in job.results())
        best = winner(configurations, self.job.search.objective)
        self._describe(configurations, best)
        refit = self._job(self._refit_unit(best))
        if not refit.is_finished:
            self.progress.note(f"refit on all {len(self.manifest.of_split('train'))} training zones")
        self._run_units([refit], placement, log)
        self._publish(refit, configurations, best)
        log.finish(best, self.workspace)

    def _run_units(self, jobs: Sequence[UnitJob], placement: Placement, log: "_SearchLog") -> None:
        pending = [job for job in jobs if not job.is_finished]
        if not pending:
            return
        if not self.blocks:
            train = [zone.zone_id for zone in self.manifest.of_split("train")]
            self.blocks = (load_tiles if self.model == "cnn" else load_pixels)(self.workspace, train)
        self.progress.restart()
        done = 0

        def on_finished(job: UnitJob) -> None:
            nonlocal done
            done += 1
            log.write(job.results())
            self.progress.step(done, len(pending), job.unit.title, "units")

        data = SearchData(self.manifest, self.settings, self.blocks, self.job.seed)
        storage = self.workspace.root / "search" / ".tune"
        run_units(jobs, partial(fit_unit, data=data), placement, storage, on_finished)

    def _placement(self) -> Placement:
        gpus = 1.0 if isinstance(self.settings, CnnSettings) and self.settings.use_gpu else 0.0
        return place_units(
            ray.cluster_resources(),
            self.settings.num_workers,
            self.settings.cpus_per_worker,
            gpus,
            self.job.search.max_concurrent,
        )

    def _job(self, unit: Unit) -> UnitJob:
        point = unit.point.model_dump() if isinstance(unit.point, CnnPoint) else asdict(unit.point)
        key = fingerprint([self.context, point, unit.fold, unit.n_epochs])[:10]
        name = unit.title.replace(" ", "_").replace("/", "-")
        return UnitJob(unit, self.workspace.unit(self.model, f"{name}-{key}"))

    def _refit_unit(self, best: ConfigurationResult) -> Unit:
        if self.model == "cnn":
            point = CnnPoint.model_validate(dict(best.params))
            return Unit("cnn", point, None, best.refit_steps)
        trees = XgboostPoint(float(best.params["learning_rate"]), (int(best.params["n_estimators"]),))
        return Unit("xgboost", trees, None)

    def _describe(self, configurations: Sequence[ConfigurationResult], best: ConfigurationResult) -> None:
        for configuration in configurations:
            m = configuration.metrics
            mark = "  ← best" if configuration is best else ""
            self.progress.note(
                f"{_title(configuration.params):<42} accuracy {m['val_accuracy_mean']:.4f}  "
                f"macro F1 {m['val_macro_f1_mean']:.4f} ± {m['val_macro_f1_std']:.4f}  "
                f"loss {m['val_loss_mean']:.4f}{mark}"
            )

    def _publish(
        self, refit: UnitJob, configurations: Sequence[ConfigurationResult], best: ConfigurationResult
    ) -> None:
        with whole_folder(self.workspace.model(self.model)) as folder:
            shutil.copytree(refit.folder, folder, dirs_exist_ok=True)
        units = [
            job.folder.name for job in map(self._job, search_units(self.job.search, self.model, self.manifest.n_folds))
        ]
        summary = {
            "model": self.model,
            "dataset": self.manifest.fingerprint(),
            "objective": self.job.search.objective,
            "best": dict(best.params),
            "refit_steps": best.refit_steps,
            "units": units,
            "configurations": [{"params": dict(c.params), **c.metrics} for c in configurations],
        }
        write_json(self.workspace.search_result(self.model), summary)


class _SearchLog:
    """Writes a search to the tracker while it runs: search → configuration → fold."""

    def __init__(self, job: JobConfig, manifest: Manifest, model: ModelName, context: str) -> None:
        self.job = job
        self.manifest = manifest
        self.model = model
        self.context = context
        self.tracker = Tracker(self.job.artefacts, self.job.name, self.job.tracking_uri)
        params = {
            "seed": self.job.seed,
            "objective": self.job.search.objective,
            self.model: (self.job.cnn if self.model == "cnn" else self.job.xgboost).model_dump(mode="json"),
        }
        tags = {"cropray.version": __version__, "cropray.dataset": self.manifest.fingerprint()}
        self.search = self.tracker.search_run(self.model, self.context[:16], params, tags)
        self.configurations: dict[str, tuple[Run, list[FoldResult]]] = {}

    def write(self, results: Sequence[FoldResult]) -> None:
        """Write the results of one unit."""
        for result in results:
            name = _title(result.params)
            run, folds = self.configurations.get(name) or (
                self.tracker.configuration_run(self.search, name, result.params),
                [],
            )
            folds.append(result)
            self.configurations[name] = (run, folds)
            metrics = {**result.scores.as_metrics("val"), "seconds": result.seconds}
            self.tracker.fold_run(run, FoldRecord(result.fold, metrics, result.history))

    def finish(self, best: ConfigurationResult, workspace: Workspace) -> None:
        """Close the configurations with their means, and the search with the winner's."""
        for run, folds in self.configurations.values():
            (configuration,) = group_by_configuration(folds)
            self.tracker.finish(run, configuration.metrics)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.yaml").write_text(dump_yaml(self.job), encoding="utf-8")
            shutil.copy(workspace.folds, folder)
            shutil.copy(workspace.search_result(self.model), folder)
            self.tracker.finish(self.search, best.metrics, Path(folder))


def _title(params: Params) -> str:
    return " ".join(f"{name}={value:g}" for name, value in params.items())
