"""`nested`: every zone is tested exactly once, by the whole procedure repeated without it.

The zones, test and training ones alike, are dealt to outer folds, balanced by region, classes and size. For each of them the
dataset is divided anew, the search runs on the zones of the others with its own inner folds, and what it chose and refitted
is tested on the fold: nothing that is chosen has seen what is tested. The counts of all folds are one cube, with as many
zones as there are, where a single test has a handful.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from cropray.config import JobConfig
from cropray.core.errors import AccountingError
from cropray.core.fingerprint import fingerprint
from cropray.core.folds import make_folds
from cropray.core.intervals import bootstrap_intervals, why_no_intervals
from cropray.core.metrics import region_scores, score
from cropray.core.progress import Progress
from cropray.datasets.doubts import some
from cropray.datasets.manifest import Manifest, load_manifest
from cropray.evaluation.pooled import Counted, pool, read_counted
from cropray.evaluation.results import ModelResult
from cropray.io.job_file import load_settings
from cropray.io.storage import Location, relative, remove, whole_folder, write_json
from cropray.report.tables import score_table
from cropray.stages.pipeline import run_stages
from cropray.stages.results import interval_metrics
from cropray.tracking import ResultNote, beside_stages
from cropray.training.family import family

_STAGES: Final = ("dataset", "search", "evaluate")


def run_nested(config: str | Location, overrides: Sequence[str], n_folds: int) -> None:
    """Test every zone once and write `nested/<family>`: cube, scores with intervals, of all zones; MLflow gets them as well.

    Finished folds, and finished units of others, are kept in `nested/<fold>-of-<n>`: the same command goes on from there.

    Args:
        config: job file.
        overrides: of its settings.
        n_folds: outer folds.

    Raises:
        CroprayError: the config or an input cannot be used, or a stage failed.
    """
    run_stages(("dataset",), config, overrides)
    job, progress = load_settings(JobConfig, config, overrides), Progress()
    manifest = load_manifest(job.artefacts.manifest)
    outer = outer_folds(manifest, n_folds)
    parts: dict[str, list[Counted]] = {model: [] for model in job.search.models}
    for number, test_zones in enumerate(outer, start=1):
        progress.stage("nested", f"fold {number} of {n_folds}: {len(test_zones)} zones are tested ({some(test_zones)})")
        changes = _changes(job, (number, n_folds), test_zones)
        run_stages(_STAGES, config, [*overrides, *changes])
        workspace = load_settings(JobConfig, config, [*overrides, *changes]).artefacts
        classes = [crop.name for crop in load_manifest(workspace.manifest).classes]
        for model, tested in parts.items():
            tested.append(read_counted(workspace.evaluation(model), classes))
    results = [_write(job, model, pool(tested), manifest, outer) for model, tested in parts.items()]
    notes = [_note(job, model, manifest) for model in parts]
    print(
        f"\nEvery one of {len(manifest.zones)} zones tested once, in {n_folds} folds:\n{score_table(results)}\n",
        flush=True,
    )
    for line in beside_stages(job.artefacts, job.name, job.tracking_uri, notes).outcome():
        progress.note(line)


def outer_folds(manifest: Manifest, n_folds: int) -> list[list[str]]:
    """The zones that each outer fold tests, balanced by region, classes and labelled pixels.

    Raises:
        ConfigError: there are fewer zones than folds.
    """
    counts = {zone.zone_id: zone.counts for zone in manifest.zones}
    fold_of = make_folds(counts, {zone.zone_id: zone.region for zone in manifest.zones}, n_folds)
    return [[zone_id for zone_id in manifest.zone_ids if fold_of[zone_id] == fold] for fold in range(n_folds)]


def _changes(job: JobConfig, number: tuple[int, int], test_zones: Sequence[str]) -> list[str]:
    """What an outer fold's job has otherwise: its test, and a place of its own for what is trained and tracked."""
    settings: dict[str, Any] = {
        "workspace": str(job.artefacts.nested / "{}-of-{}".format(*number)),
        "test_zones": list(test_zones),
        "name": "{} nested {} of {}".format(job.name, *number),  # apart from the job's own runs and registered model
        "search.leave_region_out": False,  # every zone is tested anyway, in a known region
    }
    if job.points is None:
        settings["images_of"] = str(job.images_of or job.workspace)
    if isinstance(job.workspace, Path):
        settings["tracking_uri"] = None
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]


def _write(
    job: JobConfig, model: str, tested: Counted, manifest: Manifest, outer: Sequence[Sequence[str]]
) -> ModelResult:
    if sorted(tested.zone_ids) != sorted(manifest.zone_ids):
        raise AccountingError(
            f"{len(tested.zone_ids)} zones were tested, the dataset has {len(manifest.zone_ids)}: it has changed meanwhile; "
            f"run `cropray nested CONFIG.yaml` again"
        )
    cube, region_of = tested.cube, {zone.zone_id: zone.region for zone in manifest.zones}
    scores, intervals = score(cube.sum(0), tested.loss_sum), bootstrap_intervals(cube, job.seed)
    regions = region_scores(cube, [region_of[zone_id] for zone_id in tested.zone_ids])
    record = {
        "classes": tested.classes,
        "zone_ids": tested.zone_ids,
        "folds": outer,
        "seed": job.seed,
        "recipe": job.recipe,
        "loss_sum": tested.loss_sum,
        "metrics": {**scores.as_metrics("test"), "test_pixels": scores.n_pixels},
        "intervals": intervals or None,
        "no_intervals": why_no_intervals(cube),
        "regions": {name: found.as_metrics("test") for name, found in regions.items()},
        "class_f1": {tested.classes[row.class_id]: row.f1 for row in scores.classes if row.support},
    }
    remove(job.artefacts.run(f"nested/{model}"))  # what is noted of the files that are replaced
    with whole_folder(job.artefacts.nested / model) as folder:
        np.save(folder / "cube.npy", cube)
        write_json(folder / "scores.json", record)
    return ModelResult(
        name=model, label=family(model).label, configurations=(), best={}, zone_ids=tested.zone_ids, cube=cube,
        loss_sum=tested.loss_sum, intervals=intervals, no_intervals=why_no_intervals(cube), seed=job.seed,
    )  # fmt: skip


def _note(job: JobConfig, model: str, manifest: Manifest) -> ResultNote:
    """The scores of all zones as a run beside those of the job's own test; those of the folds are in experiments of theirs."""
    folder = job.artefacts.nested / model
    record = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return ResultNote(
        experiment=job.name, key=f"nested/{model}/{fingerprint(record)[:16]}", model=model, kind="nested",
        name=f"{model} nested", time_ms=round(time.time() * 1000),
        params={"recipe": job.recipe, "outer_folds": len(record["folds"]), "seed": job.seed},
        tags={"cropray.dataset": manifest.fingerprint()},
        metrics={**record["metrics"], **interval_metrics(record)},
        files=tuple(relative(folder / name, job.artefacts.root) for name in ("scores.json", "cube.npy")),
    )  # fmt: skip
