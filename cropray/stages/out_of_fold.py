"""Out-of-fold probabilities of a search's winner: each training zone predicted by the fold that did not see it."""

from dataclasses import asdict, dataclass, replace
from functools import partial

from cropray.config import JobConfig
from cropray.core.closure import closure
from cropray.core.fingerprint import fingerprint
from cropray.core.keys import key_of
from cropray.datasets.doubts import some
from cropray.datasets.manifest import Manifest, ZoneEntry
from cropray.maps.models import Load, entries_of, kept_model
from cropray.maps.out_of_fold import write_out_of_fold
from cropray.maps.zone_counts import CountJob
from cropray.progress import Progress
from cropray.search.run import UnitJob
from cropray.stages.devices import Device, device_of, gpus_per_task, memory_of
from cropray.stages.zone_jobs import ZoneTask, run_zone_tasks, task_bytes
from cropray.storage import Location, folder_hash
from cropray.training.family import Prefix, family
from cropray.workspace import Workspace


@dataclass(frozen=True, slots=True)
class _FoldModel:
    """A finished unit, as its zones' tasks read it."""

    folder: Location
    content: str
    load: Load
    device: Device
    prefix: Prefix | None
    step: int


def write_of_winner(
    job: JobConfig, manifest: Manifest, model: str, folds: dict[int, tuple[UnitJob, int]], progress: Progress
) -> None:
    """Write `oof/<family>/<zone>.parquet` of every training zone.

    Args:
        job: the job; `search.oof_rows` pixels of each class and zone are kept.
        manifest: the dataset.
        model: the family.
        folds: fold → (its finished unit of the winning configuration, the step that won).
        progress: where to tell.

    Raises:
        StageFailedError: some zones failed.
    """
    workspace, found = job.artefacts, family(model)
    count_job = CountJob(workspace, manifest.lookup(), job.map, task_bytes())
    picked = (job.search.oof_rows, job.seed)
    without = _without_composite(manifest, workspace, model, progress)
    tasks = []
    for fold, (unit, step) in folds.items():
        content, prefix = folder_hash(unit.folder), found.prefix
        code = closure(found.load, *entries_of(found, unit.folder), write_out_of_fold)
        trained = _FoldModel(unit.folder, content, found.load, device_of(job, model), prefix, step)
        scored = set(manifest.fold_zones(fold)[1])
        for zone in manifest.zones:
            if zone.zone_id in scored and zone.n_labelled and zone.zone_id not in without:
                path = workspace.out_of_fold(model, zone.zone_id)
                of = {"model": content, "step": step, "rows": picked[0], "seed": job.seed}
                of["zone of the dataset"] = fingerprint(asdict(zone))
                inputs = key_of(code, {"map": job.map}, of, apart=("map.splits",))
                write = partial(
                    _write_zone, path, zone, trained, (count_job, picked), is_points=manifest.source == "points"
                )
                tasks.append(ZoneTask(zone.zone_id, write, inputs, (path,), gpus_per_task(job, model)))
    progress.note(f"{model}: out-of-fold probabilities of {len(tasks)} training zones")
    run_zone_tasks(f"oof-{model}", tasks, workspace, progress, wait_s=job.cluster.wait_s)


def _without_composite(manifest: Manifest, workspace: Workspace, model: str, progress: Progress) -> set[str]:
    """Training zones that cannot be predicted, which is told: a dataset may have come without its composites."""
    if manifest.source == "points":
        return set()
    zones = [zone.zone_id for zone in manifest.of_split("train")]
    without = [zone_id for zone_id in zones if not workspace.composite(zone_id).exists()]
    if without:
        progress.note(
            f"{model}: no out-of-fold probabilities of {len(without)} zones without composite ({some(without)}); run "
            f"`cropray acquire CONFIG.yaml` and the search again, which fits nothing twice"
        )
    return set(without)


def _write_zone(
    path: Location, zone: ZoneEntry, trained: _FoldModel, how: tuple[CountJob, tuple[int, int]], *, is_points: bool
) -> None:
    job, picked = how
    model = kept_model(trained.load, trained.folder, trained.content, trained.device)
    if trained.prefix is not None:
        model = trained.prefix(model, trained.step)
    job = replace(job, task_bytes=memory_of(job.task_bytes, trained.device))
    write_out_of_fold(path, model, zone, job, picked, is_points=is_points)
