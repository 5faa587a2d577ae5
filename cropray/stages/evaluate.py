"""`evaluate`: the test zones are read once, by the refitted winners, and counted in one exact cube per model."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from cropray.cluster.session import ray_session
from cropray.cluster.zone_jobs import ZoneTask, run_zone_tasks, stamped, task_bytes
from cropray.config import JobConfig
from cropray.core.closure import Root, closure
from cropray.core.errors import SchemaError
from cropray.core.fingerprint import fingerprint
from cropray.core.intervals import bootstrap_intervals, why_no_intervals
from cropray.core.keys import key_of
from cropray.core.metrics import METRICS, Counts, Scores, check_cube, region_scores, score, score_study_protocol
from cropray.core.progress import Progress
from cropray.datasets.manifest import BandSums, Manifest, ZoneEntry, load_manifest
from cropray.evaluation.detail import cubes_of, detail
from cropray.evaluation.models import Load, as_its_card_says, entries_of, kept_model, read_model
from cropray.evaluation.zone_counts import CountJob, ZoneCounts, count_points, count_zone_pixels
from cropray.io.artefacts import Stamped
from cropray.io.job_file import dump_yaml
from cropray.io.storage import Location, content_id, copy_file, folder_hash, remove, whole_folder, write_json
from cropray.io.workspace import Workspace, require
from cropray.maps.layout import window_note
from cropray.report.class_pictures import draw_confusion
from cropray.report.detail_pictures import in_words
from cropray.report.score_pictures import draw_curves
from cropray.report.tables import score_table
from cropray.stages.decision import require_decision
from cropray.stages.devices import Device, device_of, gpus_per_task, memory_of, require_devices
from cropray.stages.preflight import Ahead, Check, check_tracking_uri, checks_of_models
from cropray.stages.results import candidate_of, evaluation_note, load_model_result, load_search
from cropray.tracking import Tracker
from cropray.training.card import load_card
from cropray.training.decision import recorded_decision
from cropray.training.family import family

_OF_MAPS: Final = ("map.splits",)  # settings that change no score
_FILES: Final = ("scores.json", "cube.npy", "cubes.npz", "per_class.csv", "confusion.png")
# Beside them curves, where fits have a history.
_COUNTING: Final = (count_points, count_zone_pixels)  # what decides the counts of a zone, beside the family's `load`
_SCORING: Final = (
    *(score, score_study_protocol, region_scores, bootstrap_intervals, why_no_intervals, cubes_of, detail),
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
        require_decision(job, model)
    with ray_session(job.cluster), Tracker(workspace, job.name, job.tracking_uri) as tracker:
        require_devices(job, job.search.models)
        for model in job.search.models:
            _evaluate_model(job, model, manifest, tracker, progress)
    results = [load_model_result(workspace, manifest, model) for model in job.search.models]
    print("", score_table(results), *filter(None, map(in_words, results)), "", sep="\n", flush=True)
    for line in tracker.outcome():
        progress.note(line)


def _evaluate_model(job: JobConfig, model: str, manifest: Manifest, tracker: Tracker, progress: Progress) -> None:
    workspace = job.artefacts
    zone_ids = [zone.zone_id for zone in manifest.of_split("test")]
    progress.stage("evaluate", f"{model} on {len(zone_ids)} test zones")
    scores = _scores_of(job, model, manifest)
    if not scores.is_current(progress, "the table of scores", overwrite=job.overwrite):
        scores.forget()
        counts = _count_zones(job, model, manifest, progress)
        remove(workspace.run(f"evaluate/{model}"))  # what is noted of the files that are replaced
        with whole_folder(workspace.evaluation(model)) as folder:
            _write(folder, job, model, manifest, counts)
        _draw(job, manifest, model)
        scores.mark()
    note = evaluation_note(job, manifest, model, tracker)
    tracker.note(note.model_copy(update={"candidate": candidate_of(job, model)}))


def checks(job: JobConfig, ahead: Ahead) -> Iterator[Check]:
    """Looks at libraries, services, the dataset and models."""
    yield from checks_of_models(job)
    yield partial(check_tracking_uri, job)
    yield from ahead.made("dataset", job.artefacts.manifest)
    yield from ahead.made("search", *map(job.artefacts.model, job.search.models))


def artefacts(job: JobConfig) -> Iterator[Stamped]:
    """What the stage makes.

    Raises:
        MissingArtefactError: there is no dataset, or a model is missing.
        SchemaError: a model was searched on another version of the dataset.
    """
    manifest = load_manifest(job.artefacts.manifest)
    for model in job.search.models:
        _require_model_of(manifest, job.artefacts, model)
        yield _scores_of(job, model, manifest)


def parts(job: JobConfig) -> Iterator[Stamped]:
    """The counts of test zones, from which scores follow."""
    manifest = load_manifest(job.artefacts.manifest)
    for model in job.search.models:
        _require_model_of(manifest, job.artefacts, model)
        tasks = _tasks(job, model, manifest)
        yield from stamped(f"evaluate/{model}", f"evaluate-{model}", tasks, job.artefacts)


def _scores_of(job: JobConfig, model: str, manifest: Manifest) -> Stamped:
    workspace = job.artefacts
    summary = load_search(workspace, model)
    region_out = summary.get("region_out")  # told beside the test; None: not scored
    content = {
        "model": folder_hash(workspace.model(model)),
        "classes": _classes(manifest),
        **{f"zone {zone.zone_id} of the dataset": fingerprint(asdict(zone)) for zone in manifest.zones},
        "parcel tables": fingerprint([_parcel_table(workspace, manifest, zone) for zone in manifest.of_split("test")]),
        "zones' order": fingerprint(manifest.zone_ids),
        "seed": job.seed,
        "configurations of the search": fingerprint([summary.get("units"), summary.get("best")]),  # curves are of all
        "scores on new regions": None if region_out is None else fingerprint(region_out),
    }
    rules = [rule for metric in METRICS for rule in (metric.of, metric.ratios) if rule is not None]
    inputs = key_of(
        closure(*_of_model(workspace, model), *_COUNTING, *_SCORING, *rules), {"map": job.map}, content, apart=_OF_MAPS
    )
    outputs = tuple(workspace.evaluation(model) / name for name in _FILES)
    return Stamped(f"evaluate/{model}", "", workspace, ("evaluate", model), inputs, outputs)


def _of_model(workspace: Workspace, model: str) -> tuple[Root, ...]:
    """What reads a trained model."""
    found = family(model)
    return found.load, as_its_card_says, *entries_of(found, workspace.model(model))


def _classes(manifest: Manifest) -> str:
    """What the numbers in a cube stand for, and how tables are read."""
    return fingerprint([[asdict(crop) for crop in manifest.classes], manifest.schema_version])


def _content_of_counts(model_hash: str, manifest: Manifest, zone: ZoneEntry) -> dict[str, object]:
    """Other zones decide nothing of a zone's counts but which classes there are."""
    return {"model": model_hash, "classes": _classes(manifest), "zone of the dataset": fingerprint(asdict(zone))}


def _parcel_table(workspace: Workspace, manifest: Manifest, zone: ZoneEntry) -> str | None:
    """Identity of the zone's parcel table; None: it has none."""
    return None if manifest.source == "points" else content_id(workspace.parcels(zone.zone_id))


def _require_model_of(manifest: Manifest, workspace: Workspace, model: str) -> None:
    """A model of another dataset may have learnt from today's test zones, and may count classes otherwise."""
    require(workspace.model(model), "search")
    if load_search(workspace, model)["dataset"] != manifest.fingerprint():
        raise SchemaError(
            f"'{workspace.model(model)}' was searched on another version of the dataset than '{workspace.manifest}'; "
            f"run `cropray search CONFIG.yaml` again"
        )


def _tasks(job: JobConfig, model: str, manifest: Manifest, share: float = math.inf) -> list[ZoneTask[None]]:
    """One per test zone; what a task may take of the memory is no part of what counts depend on."""
    load = family(model).load
    workspace, tasks = job.artefacts, []
    code = closure(*_of_model(workspace, model), *_COUNTING)
    count_job = CountJob(workspace, manifest.lookup(), job.map, share)
    trained = (load, folder_hash(workspace.model(model)), device_of(job, model))
    for zone in manifest.of_split("test"):
        sums = None if manifest.source == "points" else zone.sums
        count = partial(_count_zone, zone.zone_id, model, trained, sums, count_job)
        outputs = (workspace.zone_counts(model, zone.zone_id),)
        content = _content_of_counts(trained[1], manifest, zone) | {
            "parcel table": _parcel_table(workspace, manifest, zone)
        }
        inputs = key_of(code, {"map": job.map}, content, apart=_OF_MAPS)
        tasks.append(ZoneTask(zone.zone_id, count, inputs, outputs, gpus_per_task(job, model)))
    return tasks


def _count_zones(job: JobConfig, model: str, manifest: Manifest, progress: Progress) -> list[tuple[str, ZoneCounts]]:
    """(test zone, its counts); zones that an interrupted run counted are not counted again."""
    workspace, share = job.artefacts, task_bytes()
    tasks = _tasks(job, model, manifest, share)
    run_zone_tasks(f"evaluate-{model}", tasks, workspace, progress, overwrite=job.overwrite, wait_s=job.cluster.wait_s)
    found = [(task.zone_id, _read_counts(task.outputs[0])) for task in tasks]
    windows = {zone.window for _, zone in found if zone.window is not None}
    if windows:
        progress.note(window_note(windows, read_model(family(model).load, workspace.model(model)), share))
    if n_blank := sum(zone.n_blank for _, zone in found):
        progress.note(
            f"{n_blank:,} labelled test pixels have no data in any {manifest.cube.noun}"
            f"{'' if job.until_step is None else f' until {job.until_step}'}: they are scored, maps leave them blank"
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
    otherwise = {name: _sparse(found) for name, found in counts.otherwise.items()}
    record = {**asdict(counts), "matrix": counts.matrix.tolist(), "otherwise": otherwise}
    write_json(job.workspace.zone_counts(model, zone_id), record)


def _sparse(counts: Counts) -> dict[str, list[int]]:
    """Most pairs of classes never meet: what is not 0, by its place in the flat array."""
    at = np.flatnonzero(counts)
    return {"shape": [*counts.shape], "at": at.tolist(), "n": counts.ravel()[at].tolist()}


def _dense(found: Mapping[str, list[int]]) -> Counts:
    counts: Counts = np.zeros(math.prod(found["shape"]), np.int64)
    counts[found["at"]] = found["n"]
    return counts.reshape(found["shape"])


def _read_counts(path: Location) -> ZoneCounts:
    raw = json.loads(path.read_text(encoding="utf-8"))
    window = raw["window"] and (raw["window"][0], raw["window"][1])
    otherwise = {name: _dense(found) for name, found in raw["otherwise"].items()}
    return ZoneCounts(np.array(raw["matrix"], np.int64), raw["loss_sum"], raw["n_blank"], window, otherwise)


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
    below = recorded_decision(load_card(job.artefacts.model(model))).group_below
    cubes: dict[str, Any] = cubes_of(zone_ids, cube, [zone.otherwise for _, zone in counts])
    np.save(folder / "cube.npy", cube)
    np.savez_compressed(folder / "cubes.npz", **cubes)
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
            "detail": detail(manifest, zone_ids, cube, cubes, job.seed, below),
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
