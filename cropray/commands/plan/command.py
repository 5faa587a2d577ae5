"""`plan`: what a job will take, from unit costs that are measured here and now; after a run, beside what it took."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict

import ray

from cropray.cluster.session import address_of
from cropray.commands.plan.elsewhere import measurable, print_elsewhere, require_placed
from cropray.commands.plan.measure import measure
from cropray.commands.plan.record import Planned, actual, read_plan, units_of
from cropray.commands.plan.work import local_cluster, n_pixels, room
from cropray.config import JobConfig
from cropray.core.fingerprint import fingerprint
from cropray.core.progress import Progress
from cropray.datasets.regions import require_two
from cropray.io.job_file import load_settings
from cropray.io.storage import Location, write_json
from cropray.io.zones import Zone, zone_fingerprint
from cropray.planning.estimate import estimate
from cropray.planning.limits import least, require_room
from cropray.planning.table import compare, lines_of, table
from cropray.planning.work import Cluster, place
from cropray.stages.inputs import divided_zones
from cropray.stages.pipeline import log_to_file
from cropray.stages.stage import STAGES, made_elsewhere


def run_plan(config: str | Location, overrides: Sequence[str]) -> None:
    """Print what a job will take, and keep it; after a run, print what was promised beside what it took.

    Raises:
        ConfigError: the job cannot run on this machine or cluster, or has no region to leave out.
        InputError: scenes, parcels or points cannot be used.
    """
    job = load_settings(JobConfig, config, overrides)
    workspace, progress = job.artefacts, Progress()
    workspace.prepare()
    for left_out in job.left_out_in_words:
        progress.note(left_out)
    zones = () if job.points is not None else divided_zones(job)
    if job.search.leave_region_out and job.points is None:
        require_two(zone.region for zone in zones if zone.split == "train")
    if shared := [stage.name for stage in STAGES if made_elsewhere(stage, job)]:
        progress.note(f"{', '.join(shared)}: counted as if this job did it; images_of or dataset_of has what it makes")
    if job.plan is not None:
        with log_to_file(workspace.log("plan")):
            notes = _plan_elsewhere(job, zones, progress)
    else:
        notes = _plan_here(job, zones, progress)
    for note in notes:
        progress.note(note)


def _plan_elsewhere(job: JobConfig, zones: Sequence[Zone], progress: Progress) -> Sequence[str]:
    """Measure here, and print what the job takes on the clusters that it states; nothing is kept."""
    require_placed(job)
    here = measurable(job)
    work, costs, notes = measure(here, zones, progress, lambda cluster: place(here, cluster))
    print_elsewhere(job, work, costs, progress)
    return notes


def _plan_here(job: JobConfig, zones: Sequence[Zone], progress: Progress) -> Sequence[str]:
    """Make the plan, or take the one that something has run since; print it beside what it took."""
    workspace = job.artefacts
    values = job.model_dump(mode="json", exclude={"overwrite", "plan"})
    key = fingerprint([values, [zone_fingerprint(zone) for zone in zones]])
    planned = read_plan(workspace, key)
    if planned is None:
        with log_to_file(workspace.log("plan")):
            planned = _make(job, zones, key, progress)
        write_json(workspace.plan, asdict(planned))
    else:
        progress.stage("plan", f"of {planned.made}, beside what has run since")
    print(f"\n{table(compare(planned.lines, actual(job, planned)))}\n", flush=True)
    return planned.notes


def _make(job: JobConfig, zones: Sequence[Zone], key: str, progress: Progress) -> Planned:
    """Refuse what cannot work, then measure and sum up."""

    def check(cluster: Cluster) -> None:
        """By the least that the job takes."""
        place(job, cluster)
        train = [zone for zone in zones if zone.split == "train"]
        require_room(least(n_pixels(zones), n_pixels(train), job.cube_spec), room(job, cluster))

    if address_of(job.cluster) is None and not ray.is_initialized():
        check(local_cluster(job))
    work, costs, notes = measure(job, zones, progress, check)
    amounts = estimate(work, costs)
    require_room(amounts, room(job, work.cluster), work)
    made = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return Planned(made, key, lines_of(amounts), units_of(work), tuple(notes))
