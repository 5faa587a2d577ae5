"""`evaluate`: the test zones are read once, by the refitted winners, and counted in one exact cube per model."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from cropray.config import JobConfig
from cropray.core.closure import code_digest
from cropray.datasets.manifest import BandSums, Manifest, load_manifest
from cropray.errors import SchemaError
from cropray.maps.layout import window_note
from cropray.maps.models import Load, entries_of, kept_model, read_model
from cropray.maps.zone_counts import CountJob, ZoneCounts, count_points, count_zone_pixels
from cropray.metrics import (
    Scores,
    bootstrap_intervals,
    check_cube,
    region_scores,
    score,
    score_study_protocol,
    why_no_intervals,
)
from cropray.progress import Progress
from cropray.report.class_pictures import draw_confusion
from cropray.report.score_pictures import draw_curves
from cropray.report.tables import score_table
from cropray.settings import dump_yaml, fingerprint
from cropray.stages.cluster import ray_session
from cropray.stages.devices import Device, device_of, gpus_per_task, memory_of, require_devices
from cropray.stages.results import evaluation_run, load_model_result, load_search, register_model
from cropray.stages.zone_jobs import ZoneTask, run_zone_tasks, task_bytes
from cropray.storage import Location, copy_file, folder_hash, whole_folder, write_json
from cropray.tracking import Tracker, outcome
from cropray.training.family import family
from cropray.workspace import Workspace, require

_COUNTING: Final = (count_points, count_zone_pixels)  # what decides the counts of a zone, beside the family's `load`
_SCORING: Final = (
    *(score, score_study_protocol, region_scores, bootstrap_intervals, why_no_intervals),
    *(draw_confusion, draw_curves),
)  # and what is made of them


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
        trackers = [_evaluate_model(job, model, manifest, progress) for model in job.search.models]
    results = [load_model_result(workspace, manifest, model) for model in job.search.models]
    print(f"\n{score_table(results)}\n", flush=True)
    for line in outcome(*trackers):
        progress.note(line)


def _evaluate_model(job: JobConfig, model: str, manifest: Manifest, progress: Progress) -> Tracker:
    workspace = job.artefacts
    zone_ids = [zone.zone_id for zone in manifest.of_split("test")]
    progress.stage("evaluate", f"{model} on {len(zone_ids)} test zones")
    inputs = fingerprint(
        [
            folder_hash(workspace.model(model)),
            manifest.fingerprint(),
            job.map.window_px,
            code_digest(family(model).load, *entries_of(family(model), workspace.model(model)), *_COUNTING),
        ]
    )
    target = workspace.evaluation(model)
    region_out = load_search(workspace, model).get("region_out")  # told beside the test; None: not scored
    of_all = fingerprint([inputs, region_out, code_digest(*_SCORING)])
    if not job.overwrite and workspace.is_current("evaluate", model, of_all, [target / "scores.json"]):
        progress.note("scores are up to date")
    else:
        workspace.mark_stale("evaluate", model)
        counts = _count_zones(job, model, manifest, inputs, progress)
        with whole_folder(target) as folder:
            _write(folder, job, model, manifest, counts)
        _draw(job, manifest, model)
        workspace.mark_current("evaluate", model, of_all)
    tracker, run = evaluation_run(job, manifest, model)
    register_model(job, tracker, run)
    tracker.close()
    return tracker


def _require_model_of(manifest: Manifest, workspace: Workspace, model: str) -> None:
    """A model of another dataset may have learnt from today's test zones, and may count classes otherwise."""
    require(workspace.model(model), "search")
    if load_search(workspace, model)["dataset"] != manifest.fingerprint():
        raise SchemaError(
            f"'{workspace.model(model)}' was searched on another version of the dataset than '{workspace.manifest}'; "
            f"run `cropray search CONFIG.yaml` again"
        )


def _count_zones(
    job: JobConfig, model: str, manifest: Manifest, inputs: str, progress: Progress
) -> list[tuple[str, ZoneCounts]]:
    """(test zone, its counts); zones that an interrupted run counted are not counted again."""
    workspace, tasks, share = job.artefacts, [], task_bytes()
    count_job = CountJob(workspace, manifest.lookup(), job.map, share)
    load = family(model).load
    trained = (load, folder_hash(workspace.model(model)), device_of(job, model))
    for zone in manifest.of_split("test"):
        sums = None if manifest.source == "points" else zone.sums
        count = partial(_count_zone, zone.zone_id, model, trained, sums, count_job)
        outputs = (workspace.zone_counts(model, zone.zone_id),)
        tasks.append(ZoneTask(zone.zone_id, count, inputs, outputs, gpus_per_task(job, model)))
    run_zone_tasks(f"evaluate-{model}", tasks, workspace, progress, overwrite=job.overwrite, wait_s=job.cluster.wait_s)
    found = [(task.zone_id, _read_counts(task.outputs[0])) for task in tasks]
    windows = {zone.window for _, zone in found if zone.window is not None}
    if windows:
        progress.note(window_note(windows, read_model(load, workspace.model(model)), share))
    if n_blank := sum(zone.n_blank for _, zone in found):
        progress.note(
            f"{n_blank:,} labelled test pixels have no data in any month: they are scored, maps leave them blank"
        )
    return found


def _count_zone(
    zone_id: str, model: str, trained: tuple[Load, str, Device], sums: BandSums | None, job: CountJob
) -> None:
    """Count one zone with the model that a family's `load` reads, of a content (`folder_hash`), on a device."""
    load, content, device = trained
    predictor = kept_model(load, job.workspace.model(model), content, device)
    job = replace(job, task_bytes=memory_of(job.task_bytes, device))
    counts = count_points(predictor, zone_id, job) if sums is None else count_zone_pixels(predictor, zone_id, sums, job)
    write_json(job.workspace.zone_counts(model, zone_id), {**asdict(counts), "matrix": counts.matrix.tolist()})


def _read_counts(path: Location) -> ZoneCounts:
    raw = json.loads(path.read_text(encoding="utf-8"))
    window = raw["window"] and (raw["window"][0], raw["window"][1])
    return ZoneCounts(np.array(raw["matrix"], np.int64), raw["loss_sum"], raw["n_blank"], window)


def _write(
    folder: Path, job: JobConfig, model: str, manifest: Manifest, counts: Sequence[tuple[str, ZoneCounts]]
) -> None:
    zone_ids = [zone_id for zone_id, _ in counts]
    cube = np.stack([zone.matrix for _, zone in counts])
    check_cube(cube, zone_ids, manifest.labelled(zone_ids))
    loss_sum = sum(zone.loss_sum for _, zone in counts)
    train = [zone.zone_id for zone in manifest.of_split("train")]
    n_untrained = sum(manifest.untrained(train, zone_ids).values())
    # In the loss as well: nothing is chosen by it.
    scores = replace(score(cube.sum(0), loss_sum), n_untrained=n_untrained)
    regions = [zone.region for zone in manifest.of_split("test")]
    np.save(folder / "cube.npy", cube)
    _write_class_table(folder / "per_class.csv", manifest, scores)
    write_json(
        folder / "scores.json",
        {
            "model": folder_hash(job.artefacts.model(model)),
            "zone_ids": zone_ids,
            "loss_sum": loss_sum,
            "metrics": {**scores.as_metrics("test"), "test_pixels": scores.n_pixels},
            "seed": job.seed,
            "intervals": bootstrap_intervals(cube, job.seed) or None,
            "no_intervals": why_no_intervals(cube),
            "study_protocol": score_study_protocol(cube.sum(0)).as_metrics("test"),
            "region_out": load_search(job.artefacts, model).get("region_out"),
            "regions": {name: found.as_metrics("test") for name, found in region_scores(cube, regions).items()},
            "blank_pixels": {zone_id: zone.n_blank for zone_id, zone in counts if zone.n_blank},
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


def _draw(job: JobConfig, manifest: Manifest, model: str) -> None:
    workspace = job.artefacts
    result = load_model_result(workspace, manifest, model)
    draw_confusion(result, manifest, workspace.evaluation(model) / "confusion.png")
    draw_curves(result, workspace.evaluation(model) / "curves.png")
