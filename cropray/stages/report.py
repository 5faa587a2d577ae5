"""`report`: everything a reader needs to judge the scores, on one HTML page."""

import subprocess
from collections import Counter
from pathlib import Path

from cropray import __version__
from cropray.config import JobConfig
from cropray.datasets.manifest import Manifest, load_manifest
from cropray.imagery.composites import read_n_obs
from cropray.parcels.tables import read_label_report
from cropray.progress import Progress
from cropray.report.page import write_report
from cropray.report.results import Preview, ReportInputs, ZoneQuality
from cropray.stages.results import LABELS, load_model_result
from cropray.workspace import Workspace

PREVIEWS = 6  # zones shown per model; all previews lie in the maps folder


def run(job: JobConfig, progress: Progress) -> None:
    """Write the report.

    Raises:
        MissingArtefactError: no model has been searched and evaluated.
    """
    workspace = job.artefacts
    manifest = load_manifest(workspace.manifest)
    progress.stage("report", f"{', '.join(job.search.models)} on {manifest.name}")
    inputs = ReportInputs(
        manifest=manifest,
        models=tuple(load_model_result(workspace, manifest, model) for model in job.search.models),
        zone_quality=_zone_quality(workspace, manifest),
        unknown_codes_ha=_unknown_codes(workspace, manifest),
        previews=_previews(job, manifest),
        provenance=_provenance(job, manifest),
        next_commands={"compare runs": f"cropray ui {workspace.config('report')}"},
    )
    page = write_report(inputs, workspace.report)
    progress.note(f"{page}")


def _zone_quality(workspace: Workspace, manifest: Manifest) -> tuple[ZoneQuality, ...]:
    if manifest.source == "points":
        return ()
    quality = []
    for zone in manifest.zones:
        n_obs = read_n_obs(workspace.n_obs(zone.zone_id))
        n_pixels = n_obs.shape[1] * n_obs.shape[2]
        quality.append(ZoneQuality(zone.zone_id, float((n_obs == 0).mean()), 1 - zone.n_labelled / n_pixels))
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


def _previews(job: JobConfig, manifest: Manifest) -> tuple[Preview, ...]:
    workspace = job.artefacts
    found = []
    for model in job.search.models:
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
