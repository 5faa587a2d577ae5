"""`report`: the data in pictures, and everything a reader needs to judge the scores, on one HTML page."""

import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from cropray import __version__
from cropray.config import JobConfig
from cropray.core.progress import Progress
from cropray.datasets.manifest import Manifest, load_manifest
from cropray.evaluation.results import Preview, ReportInputs, ZoneQuality
from cropray.io.artefacts import Stamped
from cropray.io.workspace import Workspace
from cropray.parcels.labels import read_label_report
from cropray.report.page import write_report
from cropray.report.settings import MOST_PREVIEWS
from cropray.report.summary import Observations
from cropray.stages import pictures
from cropray.stages.inputs import divided_zones
from cropray.stages.map import current_previews
from cropray.stages.preflight import Ahead, Check
from cropray.stages.results import load_model_result, why_no_scores
from cropray.training.family import family

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
    drawn, observed = pictures.make_pictures(job, manifest, progress)
    config = str(workspace.config("report"))
    steps = [stage for stage in ("search", "evaluate", "map", "report") if missing]
    inputs = ReportInputs(
        manifest=manifest,
        models=tuple(load_model_result(workspace, manifest, model) for model in models),
        missing_models={family(model).label: why for model, why in missing.items()},
        pictures=drawn,
        zone_quality=_zone_quality(manifest, observed),
        unknown_codes_ha=_unknown_codes(workspace, manifest),
        previews=_previews(job, manifest, models, progress),
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


def checks(job: JobConfig, ahead: Ahead) -> Iterator[Check]:
    """Looks for the dataset."""
    return ahead.made("dataset", job.artefacts.manifest)


def artefacts(job: JobConfig) -> Iterator[Stamped]:
    """The pictures; the page itself is written by every run. Raises as `load_manifest` and `pictures.artefacts`."""
    yield from pictures.artefacts(job, load_manifest(job.artefacts.manifest))


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


def _previews(job: JobConfig, manifest: Manifest, models: Iterable[str], progress: Progress) -> tuple[Preview, ...]:
    if manifest.source == "points":
        return ()
    shown = {zone.zone_id for zone in manifest.of_split("test")[:MOST_PREVIEWS]}
    zones = [zone for zone in divided_zones(job) if zone.zone_id in shown]
    previews = []
    for model in models:
        current = dict(current_previews(job, model, zones))
        previews += [Preview(zone_id, family(model).label, path) for zone_id, path in current.items()]
        if absent := [zone.zone_id for zone in zones if zone.zone_id not in current]:
            progress.note(
                f"{family(model).label} has no map of {', '.join(absent)} by today's model: run `cropray map`"
            )
    return tuple(previews)


def _provenance(job: JobConfig, manifest: Manifest) -> dict[str, str]:
    return {
        "cropray": __version__,
        "commit": git_commit(),
        "seed": str(job.seed),
        "dataset": manifest.fingerprint()[:16],
        "config": str(job.artefacts.config("report")),
        **({"recipe": "; ".join(job.left_out_in_words)} if job.left_out else {}),
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
