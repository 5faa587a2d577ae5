"""`evaluate`: the test zones are read once, by the refitted winners, and counted in one exact cube per model."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cropray.config import JobConfig
from cropray.datasets.manifest import Manifest, load_manifest
from cropray.datasets.storage import read_pixels, read_tiles
from cropray.errors import SchemaError
from cropray.legend import IGNORE
from cropray.maps.models import load_model
from cropray.metrics import (
    Counts,
    Scores,
    bootstrap_intervals,
    check_cube,
    confusion,
    log_loss_sum,
    score,
    score_study_protocol,
)
from cropray.progress import Progress
from cropray.report.class_pictures import draw_confusion
from cropray.report.score_pictures import draw_curves
from cropray.report.tables import score_table
from cropray.search.space import ModelName
from cropray.settings import dump_yaml, fingerprint
from cropray.stages.cluster import ray_session
from cropray.stages.devices import Device, device_of, gpus_per_task, require_devices
from cropray.stages.results import load_model_result, load_search, record_evaluation
from cropray.stages.zone_jobs import ZoneTask, run_zone_tasks
from cropray.storage import copy_file, folder_hash, whole_folder, write_json
from cropray.training.pixel_blocks import class_indices, features
from cropray.workspace import Workspace, code_hash, require

TILES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class ZoneCounts:
    """What one zone adds to the cube."""

    matrix: Counts
    """[true, predicted] int64 over class indices."""
    loss_sum: float
    """Negative log-likelihood summed over the zone's labelled pixels, nats."""


def run(job: JobConfig, progress: Progress) -> None:
    """Write cube, scores and tables of every searched model, and record them in MLflow.

    Raises:
        ConfigError: the cluster has no GPU and `map.device` asks for one.
        MissingArtefactError: there is no dataset or no model.
        SchemaError: a model was searched on another version of the dataset.
        AccountingError: the cube does not hold every labelled pixel of the test zones exactly once.
        StageFailedError: some zones failed.
    """
    workspace = job.artefacts
    manifest = load_manifest(workspace.manifest)
    for model in job.search.models:
        _require_model_of(manifest, workspace, model)
    with ray_session(job.cluster):
        require_devices(job, job.search.models)
        for model in job.search.models:
            _evaluate_model(job, model, manifest, progress)
    results = [load_model_result(workspace, manifest, model) for model in job.search.models]
    print(f"\n{score_table(results)}\n", flush=True)


def _evaluate_model(job: JobConfig, model: ModelName, manifest: Manifest, progress: Progress) -> None:
    workspace = job.artefacts
    zone_ids = [zone.zone_id for zone in manifest.of_split("test")]
    progress.stage("evaluate", f"{model} on {len(zone_ids)} test zones")
    inputs = fingerprint(
        [
            folder_hash(workspace.model(model)),
            manifest.fingerprint(),
            code_hash("metrics", "training", "stages", "maps"),
        ]
    )
    target = workspace.evaluation(model)
    if not job.overwrite and workspace.is_current("evaluate", model, inputs, [target / "scores.json"]):
        progress.note("scores are up to date")
    else:
        workspace.mark_stale("evaluate", model)
        counts = _count_zones(job, model, manifest, inputs, progress)
        with whole_folder(target) as folder:
            _write(folder, job, model, manifest, counts)
        _draw(job, manifest, model)
        workspace.mark_current("evaluate", model, inputs)
    tracker, _ = record_evaluation(job, manifest, model)
    tracker.close()


def _require_model_of(manifest: Manifest, workspace: Workspace, model: ModelName) -> None:
    """A model of another dataset may have learnt from today's test zones, and may count classes otherwise."""
    require(workspace.model(model), "search")
    if load_search(workspace, model)[0]["dataset"] != manifest.fingerprint():
        raise SchemaError(
            f"'{workspace.model(model)}' was searched on another version of the dataset than '{workspace.manifest}'; "
            f"run `cropray search CONFIG.yaml` again"
        )


def _count_zones(
    job: JobConfig, model: ModelName, manifest: Manifest, inputs: str, progress: Progress
) -> list[tuple[str, ZoneCounts]]:
    """(test zone, its counts); zones that an interrupted run counted are not counted again."""
    workspace, tasks = job.artefacts, []
    for zone in manifest.of_split("test"):
        counts = workspace.zone_counts(model, zone.zone_id)
        count = partial(_count_zone, workspace, manifest, model, zone.zone_id, device_of(job, model))
        tasks.append(ZoneTask(zone.zone_id, count, inputs, (counts,), gpus_per_task(job, model)))
    run_zone_tasks(f"evaluate-{model}", tasks, workspace, progress, overwrite=job.overwrite)
    found = []
    for task in tasks:
        raw = json.loads(task.outputs[0].read_text(encoding="utf-8"))
        found.append((task.zone_id, ZoneCounts(np.array(raw["matrix"], np.int64), raw["loss_sum"])))
    return found


def _count_zone(workspace: Workspace, manifest: Manifest, model: ModelName, zone_id: str, device: Device) -> None:
    counts = evaluate_zone(workspace, manifest, model, zone_id, device)
    content = {"matrix": counts.matrix.tolist(), "loss_sum": counts.loss_sum}
    write_json(workspace.zone_counts(model, zone_id), content)


def evaluate_zone(
    workspace: Workspace, manifest: Manifest, model: ModelName, zone_id: str, device: Device = "cpu"
) -> ZoneCounts:
    """Count one zone's labelled pixels by true and predicted class; the CNN predicts on `device`."""
    trained = load_model(workspace.model(model), device)
    lookup = manifest.lookup()
    n_classes = manifest.n_classes
    if model == "xgboost":
        table = read_pixels(workspace, zone_id)
        return _count(trained.predict_samples(features(table)), class_indices(table, lookup), n_classes)
    assert manifest.tile_size is not None
    tiles = read_tiles(workspace, zone_id, manifest.tile_size)
    parts = []
    for start in range(0, len(tiles.row), TILES_AT_ONCE):
        part = slice(start, start + TILES_AT_ONCE)
        labels = lookup[tiles.labels[part]]
        probabilities = trained.predict_tiles(tiles.x[part]).transpose(0, 2, 3, 1)  # [N, H, W, K]
        parts.append(_count(probabilities[labels != IGNORE], labels[labels != IGNORE], n_classes))
    return ZoneCounts(np.sum([part.matrix for part in parts], axis=0), sum(part.loss_sum for part in parts))


def _count(probabilities: npt.NDArray[np.float32], true: npt.NDArray[np.uint8], n_classes: int) -> ZoneCounts:
    """[N, K] probabilities and [N] class indices → counts."""
    return ZoneCounts(confusion(true, probabilities.argmax(1), n_classes), log_loss_sum(probabilities, true))


def _write(
    folder: Path, job: JobConfig, model: ModelName, manifest: Manifest, counts: Sequence[tuple[str, ZoneCounts]]
) -> None:
    zone_ids = [zone_id for zone_id, _ in counts]
    cube = np.stack([zone.matrix for _, zone in counts])
    check_cube(cube, zone_ids, manifest.labelled(zone_ids))
    loss_sum = sum(zone.loss_sum for _, zone in counts)
    scores = score(cube.sum(0), loss_sum)
    np.save(folder / "cube.npy", cube)
    _write_class_table(folder / "per_class.csv", manifest, scores)
    write_json(
        folder / "scores.json",
        {
            "model": folder_hash(job.artefacts.model(model)),
            "zone_ids": zone_ids,
            "loss_sum": loss_sum,
            "metrics": {**scores.as_metrics("test"), "test_pixels": scores.n_pixels},
            "intervals": bootstrap_intervals(cube, job.seed),
            "study_protocol": score_study_protocol(cube.sum(0)).as_metrics("test"),
            "zones": {z: score(zone.matrix, zone.loss_sum).as_metrics("test") for z, zone in counts},
        },
    )
    (folder / "config.yaml").write_text(dump_yaml(job), encoding="utf-8")
    copy_file(job.artefacts.folds, folder / "folds.csv")


def _write_class_table(path: Path, manifest: Manifest, scores: Scores) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["class", "support", "predicted", "precision", "recall", "f1"])
        for row in scores.classes:
            name = manifest.classes[row.class_id].name
            values = [f"{value:.6f}" for value in (row.precision, row.recall, row.f1)]
            writer.writerow([name, row.support, row.predicted, *values])


def _draw(job: JobConfig, manifest: Manifest, model: ModelName) -> None:
    workspace = job.artefacts
    result = load_model_result(workspace, manifest, model)
    draw_confusion(result, manifest, workspace.evaluation(model) / "confusion.png")
    draw_curves(result, workspace.evaluation(model) / "curves.png")
