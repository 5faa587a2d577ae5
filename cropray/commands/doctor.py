"""`doctor`: is this installation, and this job, ready to run; each line says what to do."""

import importlib.metadata
import math
import platform
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from cropray.cluster.clients import connect_everywhere
from cropray.cluster.node_memory import silence
from cropray.cluster.placement import live_nodes
from cropray.cluster.session import ask_nodes, ray_session, require_cpus
from cropray.cluster.settings import ClusterSettings
from cropray.config import JobConfig
from cropray.core.errors import ConfigError, CroprayError
from cropray.imagery.registry import SourceSettings
from cropray.io.job_file import load_settings
from cropray.io.storage import Location, free_bytes
from cropray.search.sampling import require_optuna
from cropray.stages.devices import gpus_per_task
from cropray.stages.inputs import job_zones
from cropray.stages.pipeline import check_job
from cropray.stages.stage import stages_of
from cropray.tracking import beside_stages
from cropray.training.family import DEFAULT_FAMILIES, family
from cropray.training.gpu import describe_gpu
from cropray.zone_selection.land_cover import input_files

PACKAGES: Final = ("ray", "mlflow", "rasterio", "geopandas", "pyarrow", "numpy")  # beside those of the families
_GPU_SHARE: Final = 0.01  # of a GPU, for a look at it: a task that asks for none sees none
LEAST_FREE_GB: Final = 5  # a zone of 10 km × 10 km takes 0.1 GB as composite and as much again as dataset


def run_doctor(config: str | Location | None, overrides: Sequence[str] = ()) -> None:
    """Print one line per check.

    Args:
        config: job file; None: only the installation is checked.
        overrides: `a.b=value`, changes of the job file.

    Raises:
        ConfigError: the job file cannot be used.
        CroprayError: a check failed.
    """
    if config is None and overrides:
        raise ConfigError("--set changes a value of a job file: name the file")
    job = None if config is None else load_settings(JobConfig, config, overrides)
    models = DEFAULT_FAMILIES if job is None else job.search.models
    libraries = {name: version for model in models for name, version in family(model).code().libraries.items()}
    # Each returns what was seen, or raises CroprayError or OSError with what to do.
    checks: dict[str, Callable[[], str]] = {"python": platform.python_version}
    checks |= {name: partial(importlib.metadata.version, name) for name in PACKAGES}
    checks |= {name: partial(_found, name, libraries[name]) for name in libraries if name not in PACKAGES}
    if job is not None and job.search.sampler == "tpe":
        checks["optuna"] = lambda: str(require_optuna().__version__)
    if config is None or job is None:
        checks["ray starts"] = lambda: _check_ray(ClusterSettings())
    else:
        checks |= {
            "config": lambda: _describe(config, job),
            "inputs": lambda: _check_inputs(job),
            "workspace": lambda: _check_workspace(job),
            "tracking": lambda: _check_tracking(job),
            "ray starts": lambda: _check_ray(job.cluster),
        }
        if job.imagery is not None and job.imagery.quota:
            checks[job.imagery.source.replace("_", " ")] = partial(_check_service, job.cluster, job.imagery)
        if _uses_gpus(job):
            checks["gpu"] = lambda: _check_gpus(job)
    n_failed = sum(not _passes(name, check) for name, check in checks.items())
    if n_failed:
        raise CroprayError(f"{n_failed} of {len(checks)} checks failed; each line above says what to do")
    print(f"all {len(checks)} checks passed")


def _passes(name: str, check: Callable[[], str]) -> bool:
    try:
        print(f"  ok    {name:<12} {check()}", flush=True)
    except (CroprayError, OSError, importlib.metadata.PackageNotFoundError) as error:
        print(f"  FAIL  {name:<12} {error}", flush=True)
        return False
    return True


def _found(library: str, version: str) -> str:
    if not version:
        raise CroprayError(f"the families of models that are searched need {library}, which is not installed")
    return version


def _describe(config: str | Location, job: JobConfig) -> str:
    if job.points is not None:
        contents = "points"
    elif job.zone_selection is not None and not job.artefacts.zone_reasons.exists():
        contents = "zones not chosen yet: `cropray zones` does it"
    else:
        contents = f"{len(job_zones(job))} zones"
    return "; ".join([f"{config}: '{job.name}', {contents}", *job.left_out_in_words])


def _check_inputs(job: JobConfig) -> str:
    reads = [stage.name for stage in stages_of(job) if stage.of_sources]
    if not reads:  # all of it is in the workspace that `dataset_of` names
        check_job(job, ["search"])
        return f"the dataset of {job.dataset_of}"
    check_job(job, reads)
    if job.images_of is not None:
        return f"composites and labels of {job.images_of}"
    choice = job.zone_selection
    paths = [
        job.points and job.points.path,
        job.imagery.describe() if job.imagery is not None and job.imagery.is_at_hand else None,
        job.parcels and job.parcels.path,
        job.parcels and job.parcels.legend,
        job.zone_table,
        *((choice.region_table, choice.outline, *input_files(choice.worldcover)) if choice else ()),
    ]
    return ", ".join(str(path) for path in paths if path is not None)


def _check_workspace(job: JobConfig) -> str:
    job.artefacts.prepare()
    free_gb = free_bytes(job.workspace) / 1e9
    if free_gb < LEAST_FREE_GB:
        raise CroprayError(f"'{job.workspace}' has {free_gb:.1f} GB free, {LEAST_FREE_GB} GB are needed at least")
    room = "" if math.isinf(free_gb) else f", {free_gb:.0f} GB free"
    return f"{job.workspace} can be written{room}"


def _check_tracking(job: JobConfig) -> str:
    tracker = beside_stages(job.artefacts, job.name, job.tracking_uri)
    if tracker.trouble():
        raise CroprayError("; ".join(tracker.outcome()))
    return "; ".join([tracker.uri, *tracker.outcome()])


def _check_service(cluster: ClusterSettings, settings: SourceSettings) -> str:
    with ray_session(cluster):
        require_cpus(1, cluster.wait_s)
        return connect_everywhere(settings.connect)


def _uses_gpus(job: JobConfig) -> bool:
    return any(job.settings_of(model).need().gpus or gpus_per_task(job, model) for model in job.search.models)


def _check_gpus(job: JobConfig) -> str:
    with ray_session(job.cluster):
        seen = ask_nodes(describe_gpu, lambda has: has.get("GPU", 0) > 0, gpus=_GPU_SHARE)
    if not seen:
        needs = {model: job.settings_of(model).need() for model in job.search.models}
        ways = [f"{model}.{need.gpu_setting} to {need.without_gpu}" for model, need in needs.items() if need.gpus]
        ways += ["map.device to cpu"] if any(gpus_per_task(job, model) for model in needs) else []
        raise CroprayError(
            f"the job asks for GPUs and no node has one now; set {' and '.join(ways)}, or ask again while a node with a GPU is there "
            "(an autoscaler starts one for a search that waits: cluster.wait_s)"
        )
    return "; ".join(f"{address}: {what}" for address, what in seen.items())


def _check_ray(settings: ClusterSettings) -> str:
    with ray_session(settings):
        nodes = live_nodes()
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return "; ".join(filter(None, [f"{len(nodes)} nodes, {cpus:g} CPUs, {gpus:g} GPUs", silence()]))
