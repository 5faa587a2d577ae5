"""`ablate`: what each change is worth on the way from the study's recipe to the job's, on the training zones alone.

Each row is a search whose winner is scored by what its folds say of the zones that they did not see. Test zones take no part:
a recipe may be chosen by this table. Rows share the job's dataset and its finished fits.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from cropray.cluster.resources import GB, FitSize
from cropray.config import JobConfig
from cropray.core.closure import code_digest
from cropray.core.errors import ConfigError
from cropray.core.fingerprint import fingerprint
from cropray.core.intervals import Difference, bootstrap_difference, bootstrap_intervals
from cropray.core.metrics import PROBABILITY_FLOOR, score
from cropray.core.progress import Progress
from cropray.datasets.manifest import Manifest, load_manifest
from cropray.evaluation.pooled import BETTER, Counted
from cropray.io.job_file import load_settings
from cropray.io.storage import Location, write_json, write_text
from cropray.io.workspace import Workspace
from cropray.search.decision import learnt_elsewhere
from cropray.search.recipe import STUDY, Change, Raw, way_to
from cropray.stages.decision import asked, read_evidence
from cropray.stages.family_search import FamilySearch
from cropray.stages.pipeline import run_stages
from cropray.stages.results import load_configurations, load_search
from cropray.stages.samples import Samples
from cropray.training.abilities import able

_HEADER: Final = ("change", "family", "macro F1", "− first row", "accuracy", "− first row", "s", "GB")


def run_ablate(config: str | Location, overrides: Sequence[str]) -> None:
    """Print the table and write it as `ablation/table.json`. Finished rows are kept: the same command goes on from there.

    Args:
        config: job file, with the `recipe` that the way leads to.
        overrides: of its settings.

    Raises:
        CroprayError: the config or an input cannot be used, or a search failed.
    """
    job, progress = load_settings(JobConfig, config, overrides), Progress()
    if job.recipe == STUDY:
        raise ConfigError(
            "the job's recipe is the study's, where the way begins: set 'recipe' to best, or a file of one's own"
        )
    if job.dataset_of is None:
        run_stages(("dataset",), config, overrides)
    manifest = load_manifest(job.artefacts.manifest)
    found: list[tuple[dict[str, Any], Counted]] = []
    way = _possible(job, way_to(job.recipe, job.search.models), progress)
    for number, (change, settings) in enumerate(way, start=1):
        progress.stage("ablate", f"row {number} of {len(way)}: {change.name} ({change.model})")
        recipe = job.artefacts.ablation / f"{number}.yaml"
        write_text(recipe, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))
        changed = [*overrides, *_changes(job, recipe, change)]
        found.append(_row(change, (config, changed), manifest, progress))
    table = _differences(found, job.seed)
    write_json(job.artefacts.ablation / "table.json", {"recipe": job.recipe, "seed": job.seed, "rows": table})
    print("\n" + "\n".join(_lines(table)), flush=True)
    n, n_drawn = table[0]["metrics"]["val_pixels"], table[0]["drawn"]
    of = f"{n:,}" if n == n_drawn else f"{n:,} (as {n_drawn:,} that were drawn tell, see search.oof_rows)"
    print(
        f"Out of fold: {of} labelled pixels of {len(table[0]['zone_ids'])} training zones; [95 %, paired, over zones]."
    )


def _possible(job: JobConfig, way: Sequence[tuple[Change, Raw]], progress: Progress) -> list[tuple[Change, Raw]]:
    """The rows whose family can be made of the data.

    Raises:
        ConfigError: there is none.
    """
    found = []
    for change, settings in way:
        kept, without = able(change.models, job.cube_spec, job.settings_of, of_points=job.points is not None)
        if without:
            progress.note(f"row '{change.name}': left out of its families: {', '.join(without)}")
        if change.model in kept:
            beside = tuple(name for name in change.beside if name in kept)
            found.append((change.model_copy(update={"beside": beside}), settings))
    if not found:
        raise ConfigError(f"no row of the ablation of '{job.recipe}' is of a family that this data allows")
    return found


def _changes(job: JobConfig, recipe: Location, change: Change) -> list[str]:
    """What a row's job has otherwise."""
    settings: dict[str, Any] = {
        "workspace": str(job.artefacts.ablation),
        "dataset_of": str(job.dataset_of or job.workspace),
        "name": f"{job.name} ablation",  # apart from the job's own runs
        "recipe": str(recipe),
        "search.models": change.models,
        "search.leave_region_out": False,
    }
    if isinstance(job.workspace, Path):
        settings["tracking_uri"] = None
    if not job.search.oof_rows:
        settings["search.oof_rows"] = type(job.search).model_fields["oof_rows"].default
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]


def _row(
    change: Change, how: tuple[str | Location, Sequence[str]], manifest: Manifest, progress: Progress
) -> tuple[dict[str, Any], Counted]:
    """One row, made now or before: its record, and its counts."""
    (config, changed), model = how, change.model
    job = load_settings(JobConfig, config, changed)
    workspace, classes = job.artefacts, [crop.name for crop in manifest.classes]
    samples = Samples(workspace, manifest)
    keys = [
        FamilySearch(job, manifest, name, samples).key.digest for name in change.models
    ]  # a mean changes with its members
    key = fingerprint(
        [keys, job.search.model_dump(mode="json"), asked(job), manifest.fingerprint(), code_digest(_count, _record)]
    )
    file = workspace.root / "rows" / f"{key[:16]}.json"
    if not file.exists() or json.loads(file.read_text(encoding="utf-8"))["left_out"]:
        run_stages(("search",), config, changed)
        write_json(file, _record(job, model, manifest, _count(job, model, manifest)))
    else:
        progress.note("finished before")
    record = json.loads(file.read_text(encoding="utf-8"))
    counted = Counted(tuple(record["zone_ids"]), tuple(classes), np.array(record["cube"], np.int64), record["loss_sum"])
    return {"name": change.name, "model": model, **record}, counted


def _count(job: JobConfig, model: str, manifest: Manifest) -> Counted:
    """What the winner's folds say of the zones that they did not see; rule and temperature were learnt on other folds."""
    found = read_evidence(job.artefacts, manifest, model)
    zone_ids = [zone.zone_id for zone in manifest.of_split("train") if zone.n_labelled]
    elsewhere = learnt_elsewhere(found, job.decision)
    counts = found.counts_of(elsewhere.predicted)
    cube = np.floor(counts + 1e-6).astype(np.int64)
    # Whole pixels, as many as there are: differences need equal labels.
    rest, most = np.rint(counts.sum(2)).astype(np.int64) - cube.sum(2), counts.argmax(2)[..., None]
    np.put_along_axis(cube, most, np.take_along_axis(cube, most, 2) + rest[..., None], 2)
    truth = np.maximum(elsewhere.tempered.of_truth, PROBABILITY_FLOOR)
    names = sorted(zone_id for zone_id in zone_ids if job.artefacts.out_of_fold(model, zone_id).exists())
    return Counted(
        tuple(names),
        tuple(crop.name for crop in manifest.classes),
        cube,
        float(-(np.log(truth) * found.weights).sum()),
    )


def _record(job: JobConfig, model: str, manifest: Manifest, counted: Counted) -> dict[str, Any]:
    workspace, settings = job.artefacts, job.settings_of(model)
    summary = load_search(workspace, model)
    n_rows = sum(zone.n_labelled for zone in manifest.of_split("train"))
    scores = score(counted.cube.sum(0), counted.loss_sum)
    return {
        "best": summary["best"],
        "left_out": [*summary.get("left_out", ()), *["not proposed"] * summary.get("not_proposed", 0)],
        "settings": settings.model_dump(mode="json", exclude=set(settings.resources())),
        "metrics": {**scores.as_metrics("val"), "val_pixels": scores.n_pixels},
        "labelled_pixels": n_rows,
        "drawn": len(read_evidence(workspace, manifest, model).labels),
        "intervals": bootstrap_intervals(counted.cube, job.seed),
        "seconds": sum(_seconds(workspace, name) for name in job.search.models),  # a mean's members took theirs
        "fit_gb": max(filter(None, (_fit_gb(job, name, n_rows, manifest) for name in job.search.models)), default=None),
        "zone_ids": counted.zone_ids,
        "loss_sum": counted.loss_sum,
        "cube": counted.cube.tolist(),
    }


def _seconds(workspace: Workspace, model: str) -> float:
    """Of the winner's folds."""
    summary = load_search(workspace, model)
    every = load_configurations(workspace, model, summary)
    (best,) = (configuration for configuration in every if configuration.params == summary["best"])
    return sum(fold.seconds for fold in best.folds)


def _fit_gb(job: JobConfig, model: str, n_rows: int, manifest: Manifest) -> float | None:
    settings = job.settings_of(model)
    n_bytes = settings.fit_bytes(FitSize(n_rows, manifest.n_classes, settings.n_features(manifest.cube), None))
    return None if n_bytes is None else n_bytes / GB


def _differences(found: Sequence[tuple[dict[str, Any], Counted]], seed: int) -> list[dict[str, Any]]:
    """Records of rows without their cubes, with the differences to the first row and to the one before."""
    table = []
    for i, (record, counted) in enumerate(found):
        table.append({name: value for name, value in record.items() if name != "cube"})
        for called, other in (("to_first", 0), ("to_row_before", i - 1)):
            if i > 0:
                differences = bootstrap_difference(counted.cube, found[other][1].cube, seed)
                table[-1][called] = {key: asdict(differences[f"test_{key}"]) for key in BETTER if differences}
    return table


def _lines(table: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [_HEADER, *(_cells(row) for row in table)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_HEADER))]
    lines = [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return [line.rstrip() for line in lines]


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    scores = [
        text
        for key in BETTER
        for text in (f"{row['metrics'][f'val_{key}']:.4f}", _in_words(row.get("to_first", {}).get(key)))
    ]
    memory = "" if row["fit_gb"] is None else f"{row['fit_gb']:.2f}"
    return (row["name"], row["model"], *scores, f"{row['seconds']:.0f}", memory)


def _in_words(difference: Mapping[str, float] | None) -> str:
    if difference is None:
        return ""
    found = Difference(**difference)
    return f"{found.value:+.4f} [{found.low:+.3f}, {found.high:+.3f}]"
