"""`report`: the data in pictures, and everything a reader needs to judge the scores, on one HTML page."""

import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from cropray import __version__
from cropray.config import JobConfig
from cropray.datasets.manifest import Manifest, load_manifest
from cropray.parcels.tables import read_label_report
from cropray.progress import Progress
from cropray.report.page import write_report
from cropray.report.results import Preview, ReportInputs, ZoneQuality
from cropray.report.summary import Observations
from cropray.search.space import ModelName
from cropray.stages.pictures import make_pictures
from cropray.stages.results import LABELS, load_model_result, load_scores, load_search
from cropray.storage import local_file
from cropray.workspace import Workspace

PREVIEWS = 6  # zones shown per model; all previews lie in the maps folder
_NEXT: Final = {
    "search": "search configurations over the folds",
    "evaluate": "score the winners on the test zones",
    "map": "map the test zones",
    "report": "write this page again, with the scores",
}


def run(job: JobConfig, progress: Progress) -> None:
    """Write the pictures of the data, and one page with them and the scores of the models that have any.

    Raises:
        MissingArtefactError: there is no dataset.
        StageFailedError: the pictures of some zones failed.
    """
    workspace = job.artefacts
    manifest = load_manifest(workspace.manifest)
    missing = {model: why for model in job.search.models if (why := why_no_scores(workspace, manifest, model))}
    models = [model for model in job.search.models if model not in missing]
    progress.stage("report", f"{', '.join(models) or 'no model yet'} on {manifest.name}")
    pictures, observed = make_pictures(job, manifest, progress)
    config = str(workspace.config("report"))
    steps = [stage for stage in ("search", "evaluate", "map", "report") if missing]
    inputs = ReportInputs(
        manifest=manifest,
        models=tuple(load_model_result(workspace, manifest, model) for model in models),
        missing_models={LABELS[model]: why for model, why in missing.items()},
        pictures=pictures,
        zone_quality=_zone_quality(manifest, observed),
        unknown_codes_ha=_unknown_codes(workspace, manifest),
        previews=_previews(job, manifest, models),
        provenance=_provenance(job, manifest),
        next_commands={
            **{_NEXT[stage]: f"cropray {stage} {config}" for stage in steps},
            **({"compare runs": f"cropray ui {config}"} if models else {}),
        },
    )
    page = write_report(inputs, workspace.report)
    progress.note(f"pictures of the data in {workspace.pictures}")
    for label, why in inputs.missing_models.items():
        progress.note(f"{label} has no scores: {why}")
    progress.note(f"{page}")


def why_no_scores(workspace: Workspace, manifest: Manifest, model: ModelName) -> str:
    """Why a model cannot be in the report of this dataset; empty when it can."""
    if not workspace.search_result(model).exists():
        return "not searched yet"
    if load_search(workspace, model)[0]["dataset"] != manifest.fingerprint():
        return "searched on an earlier version of the dataset"
    if not (workspace.evaluation(model) / "scores.json").exists():
        return "not evaluated yet"
    zone_ids = load_scores(workspace, model)["zone_ids"]
    with local_file(workspace.evaluation(model) / "cube.npy") as file:
        cube = np.load(file, allow_pickle=False)
    n_labelled = dict(zip(zone_ids, cube.sum((1, 2)).tolist(), strict=True))
    test_zones = [zone.zone_id for zone in manifest.of_split("test")]
    if cube.shape[1] != manifest.n_classes or n_labelled != manifest.labelled(test_zones):
        return "evaluated on an earlier version of the dataset"
    return ""


def _zone_quality(manifest: Manifest, observed: Mapping[str, Observations]) -> tuple[ZoneQuality, ...]:
    quality = []
    for zone in manifest.zones:
        if zone.zone_id in observed:
            seen = observed[zone.zone_id]
            quality.append(ZoneQuality(zone.zone_id, seen.share_filled, 1 - zone.n_labelled / seen.n_pixels))
    return tuple(quality)


def _unknown_codes(workspace: Workspace, manifest: Manifest) -> dict[str, float]:
    if manifest.source == "points":
        return {}
    hectares: Counter[str] = Counter()
    for zone in manifest.zones:
        for tally in read_label_report(workspace.label_report(zone.zone_id)).codes:
            if tally.status == "unknown":
                hectares[tally.code] += tally.area_ha  # type: ignore[assignment]  # a Counter of floats
    return dict(hectares)


def _previews(job: JobConfig, manifest: Manifest, models: Iterable[ModelName]) -> tuple[Preview, ...]:
    workspace = job.artefacts
    found = []
    for model in models:
        zones = [zone.zone_id for zone in manifest.of_split("test")][:PREVIEWS]
        paths = [(zone_id, workspace.map_preview(model, zone_id)) for zone_id in zones]
        found += [Preview(zone_id, LABELS[model], path) for zone_id, path in paths if path.exists()]
    return tuple(found)


def _provenance(job: JobConfig, manifest: Manifest) -> dict[str, str]:
    return {
        "cropray": __version__,
        "commit": git_commit(),
        "seed": str(job.seed),
        "dataset": manifest.fingerprint()[:16],
        "config": str(job.artefacts.config("report")),
    }


def git_commit() -> str:
    """Commit of the source tree that runs; `unknown` for an installed wheel."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
