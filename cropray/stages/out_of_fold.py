"""Out-of-fold probabilities of a search's winner: each training zone predicted by the fold that did not see it."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from cropray.cluster.zone_jobs import ZoneTask, run_zone_tasks, stamped, task_bytes
from cropray.config import JobConfig
from cropray.core.closure import closure
from cropray.core.fingerprint import fingerprint
from cropray.core.keys import key_of
from cropray.core.progress import Progress
from cropray.datasets.doubts import some
from cropray.datasets.manifest import Manifest, ZoneEntry
from cropray.evaluation.models import Load, entries_of, kept_model, prefix_of
from cropray.evaluation.out_of_fold import combine_out_of_fold, write_out_of_fold
from cropray.evaluation.zone_counts import CountJob
from cropray.io.artefacts import Stamped
from cropray.io.storage import Location, content_id, files_below, folder_hash, remove
from cropray.io.workspace import Workspace
from cropray.search.run import UnitJob
from cropray.stages.devices import Device, device_of, gpus_per_task, memory_of, require_devices
from cropray.training.card import load_card
from cropray.training.family import Prefix, family

Folds = Mapping[int, tuple[UnitJob, int]]
"""Fold → (its finished unit of the winning configuration, the step that won)."""


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
    job: JobConfig, manifest: Manifest, model: str, folds: Folds, progress: Progress, members: Sequence[str] = ()
) -> int:
    """Write `oof/<family>/<zone>.parquet` of every training zone, and remove those of other searches; how many there are.

    `search.oof_rows` pixels of each class and zone are kept. They are predicted by the folds of the winning configuration, or
    made of the files of `members`, families that it is built from.

    Raises:
        ConfigError: the cluster has no GPU and `map.device` asks for one.
        StageFailedError: some zones failed.
    """
    workspace = job.artefacts
    share = task_bytes() if job.search.oof_rows else 0.0
    tasks, blind = _tasks(job, manifest, model, folds, members, share)
    if blind:
        progress.note(
            f"{model}: no out-of-fold probabilities of {len(blind)} zones without composite ({some(blind)}); run "
            f"`cropray acquire CONFIG.yaml` and the search again, which fits nothing twice"
        )
    _remove_others(workspace, model, {task.zone_id for task in tasks}, progress)
    if not tasks:
        return 0
    progress.note(f"{model}: out-of-fold probabilities of {len(tasks)} training zones")
    if not members and any(_is_stale(task, model, workspace) for task in tasks):
        require_devices(job, [model])
    run_zone_tasks(_stamps(model), tasks, workspace, progress, wait_s=job.cluster.wait_s)
    return len(tasks)


def artefacts_of_winner(
    job: JobConfig, manifest: Manifest, model: str, folds: Folds, members: Sequence[str] = ()
) -> Iterator[Stamped]:
    """The files that `write_of_winner` writes."""
    tasks, _ = _tasks(job, manifest, model, folds, members)
    yield from stamped(f"search/{model}/oof", _stamps(model), tasks, job.artefacts)


def _tasks(
    job: JobConfig, manifest: Manifest, model: str, folds: Folds, members: Sequence[str] = (), share: float = math.inf
) -> tuple[list[ZoneTask[None]], list[str]]:
    """(one per training zone that is to be predicted, zones that cannot be: a dataset may lack its composites).

    What a task may take of the memory is no part of what probabilities depend on.
    """
    if not job.search.oof_rows:
        return [], []
    if members:
        return list(_combined(job, manifest, model, folds, members)), []
    workspace, found, is_points = job.artefacts, family(model), manifest.source == "points"
    count_job = CountJob(workspace, manifest.lookup(), job.map, share)
    picked = (job.search.oof_rows, job.seed)
    cuts = () if found.prefix is None else (found.prefix,)
    tasks, blind = [], []
    for fold, (unit, step) in folds.items():
        content = folder_hash(unit.folder)
        code = closure(found.load, *cuts, *entries_of(found, unit.folder), write_out_of_fold)
        trained = _FoldModel(unit.folder, content, found.load, device_of(job, model), found.prefix, step)
        for zone in _scored(manifest, fold):
            path = workspace.out_of_fold(model, zone.zone_id)
            of = {"model": content, "step": step, "rows": picked[0], "seed": job.seed}
            of["zone of the dataset"] = fingerprint(asdict(zone))
            inputs = key_of(code, {"map": job.map}, of, apart=("map.splits",))
            write = partial(_write_zone, path, zone, trained, (count_job, picked), is_points=is_points)
            task = ZoneTask(zone.zone_id, write, inputs, (path,), gpus_per_task(job, model))
            is_blind = not is_points and not workspace.composite(zone.zone_id).exists()
            if is_blind and _is_stale(task, model, workspace):
                blind.append(zone.zone_id)
            else:
                tasks.append(task)
    return tasks, sorted(blind)


def _combined(
    job: JobConfig, manifest: Manifest, model: str, folds: Folds, members: Sequence[str]
) -> Iterator[ZoneTask[None]]:
    """One per training zone that all members predicted."""
    workspace, combine = job.artefacts, family(model).combine
    assert combine is not None
    code = closure(combine, combine_out_of_fold)
    for fold, (unit, _) in folds.items():
        card = load_card(unit.folder)
        for zone in _scored(manifest, fold):
            files = [workspace.out_of_fold(member, zone.zone_id) for member in members]
            if not all(file.exists() for file in files):
                continue  # a zone without composite: it was told of the members
            of = {f"of {member}": content_id(file) for member, file in zip(members, files, strict=True)}
            path = workspace.out_of_fold(model, zone.zone_id)
            write = partial(combine_out_of_fold, path, files, partial(combine, card))
            yield ZoneTask(zone.zone_id, write, key_of(code, {}, {"card": fingerprint(card), **of}), (path,))


def _scored(manifest: Manifest, fold: int) -> Iterator[ZoneEntry]:
    """Zones that a fold did not see, and that have labels."""
    scored = set(manifest.fold_zones(fold)[1])
    yield from (zone for zone in manifest.zones if zone.zone_id in scored and zone.n_labelled)


def _stamps(model: str) -> str:
    return f"oof-{model}"


def _is_stale(task: ZoneTask[None], model: str, workspace: Workspace) -> bool:
    return not workspace.is_current(_stamps(model), task.zone_id, task.inputs, task.outputs)


def _remove_others(workspace: Workspace, model: str, zone_ids: Collection[str], progress: Progress) -> None:
    """Whoever reads the folder must find nothing of another winner or dataset."""
    files = files_below(workspace.out_of_fold(model, "-").parent)
    others = [file for file in files if file.suffix == ".parquet" and file.stem not in zone_ids]
    for file in others:
        workspace.mark_stale(_stamps(model), file.stem)
        remove(file)
    if others:
        names = some([file.stem for file in others])
        progress.note(f"{model}: out-of-fold probabilities that are not of this search are removed ({names})")


def _write_zone(
    path: Location, zone: ZoneEntry, trained: _FoldModel, how: tuple[CountJob, tuple[int, int]], *, is_points: bool
) -> None:
    job, picked = how
    model = kept_model(trained.load, trained.folder, trained.content, trained.device)
    if trained.prefix is not None:
        model = prefix_of(model, trained.prefix, trained.step)
    job = replace(job, task_bytes=memory_of(job.task_bytes, trained.device))
    write_out_of_fold(path, model, zone, job, picked, is_points=is_points)
