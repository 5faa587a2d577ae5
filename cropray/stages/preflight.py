"""What chosen stages will read, looked at before the first of them starts: hours later is too late to hear of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from ray._private.accelerators import get_accelerator_manager_for_resource

from cropray.cluster.session import address_of
from cropray.config import JobConfig
from cropray.core.errors import ConfigError, MissingArtefactError
from cropray.datasets.doubts import some
from cropray.io.storage import Location
from cropray.io.workspace import Workspace, require
from cropray.io.zones import Zone
from cropray.training.family import family

Check = Callable[[], object]
"""Looks at one thing; raises a CroprayError where it cannot be used."""
_STORES: Final = {"http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks", ""}
_FEW: Final = 8  # names in a message


OfZones = tuple[str, str, Callable[[Workspace, str], Iterable[Location]]]
"""What a stage reads of each zone, which stage makes it, and its files."""
COMPOSITES: Final[OfZones] = ("composite", "acquire", lambda w, zone: (w.composite(zone), w.n_obs(zone)))
LABELS: Final[OfZones] = ("labels", "labels", lambda w, zone: (w.labels(zone), w.parcel_index(zone), w.parcels(zone)))


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is ahead when a stage is asked for its checks."""

    workspace: Workspace
    zones: Sequence[Zone]
    """Those of the job, once they are known; none where it reads points or chooses them first."""
    stages: Sequence[str]
    """That will run, in order."""
    done: Sequence[str]
    """Those of them that run before."""

    def of_zones(self, artefact: OfZones, zones: Sequence[Zone]) -> Iterator[Check]:
        """That zones have what an earlier stage makes of them, where it does not run before."""
        if artefact[1] not in self.done:
            yield partial(_require_of_zones, artefact, self.workspace, zones)

    def made(self, made_by: str, *files: Location) -> Iterator[Check]:
        """That files are there which an earlier stage makes, where it does not run before."""
        return (partial(require, file, made_by) for file in files if made_by not in self.done)


def checks_of_models(job: JobConfig) -> Iterator[Check]:
    """That the libraries of the searched families are there."""
    return (family(model).require_packages for model in job.search.models)


def check_tracking_uri(job: JobConfig) -> None:
    """Raises: ConfigError: `tracking_uri` is no address of an MLflow store."""
    if job.tracking_uri is not None and urlsplit(job.tracking_uri).scheme.partition("+")[0] not in _STORES:
        raise ConfigError(
            f"tracking_uri = '{job.tracking_uri}' is no address of an MLflow store; write http://host:5000, "
            f"postgresql://host/database or sqlite:///file"
        )


def check_gpus(job: JobConfig) -> None:
    """Raises: ConfigError: the search asks for GPUs and this machine has none; a cluster may have some."""
    needs = {model: job.settings_of(model).need() for model in job.search.models}
    wanted = [f"{model}.{need.gpu_setting}" for model, need in needs.items() if need.gpus]
    if (
        wanted
        and address_of(job.cluster) is None
        and not get_accelerator_manager_for_resource("GPU").get_current_node_num_accelerators()
    ):
        raise ConfigError(
            f"{' and '.join(wanted)} ask for a GPU, and this machine has none; change that, or name a cluster that has "
            f"some in cluster.address"
        )


def _require_of_zones(artefact: OfZones, workspace: Workspace, zones: Sequence[Zone]) -> None:
    what, made_by, files = artefact
    missing = [zone.zone_id for zone in zones if not all(file.exists() for file in files(workspace, zone.zone_id))]
    if missing:
        raise MissingArtefactError(
            f"{len(missing)} of {len(zones)} zones have no {what}: {some(missing, _FEW)}; "
            f"run `cropray {made_by} CONFIG.yaml` first"
        )
