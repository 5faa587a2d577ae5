"""Settings of the Earth Engine source; apart from its client, so that a job file is read without loading it."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from pydantic import Field

from cropray.core.cube import CubeSpec
from cropray.core.sensors import SENTINEL_2, Band
from cropray.imagery.registry import SOURCES, SourceSettings
from cropray.imagery.sources.earth_engine.ledger import read_runs
from cropray.io.workspace import Workspace

if TYPE_CHECKING:
    from cropray.imagery.acquisition import Acquisition, Order, Traffic
    from cropray.imagery.sources.earth_engine.acquisition import EarthEngineAcquisition

# Source: Earth Engine documentation, "Earth Engine quotas": per project.
MAX_CONCURRENT: Final = 40
MAX_REQUESTS_PER_S: Final = 100
MAX_REQUEST_BYTES: Final = 48 * 2**20  # source: Earth Engine documentation, `computePixels`


def fits_one_request(n_pixels: float, dtype: np.dtype[Any]) -> bool:
    """Whether so many pixels, with a field of the type for each band, are computed by one request.

    The service counts a mask byte with each band's value.
    """
    return n_pixels * (dtype.itemsize + len(dtype.names or ())) <= MAX_REQUEST_BYTES


def step_dtype(band_ids: Iterable[str]) -> np.dtype[Any]:
    """A pixel of a step: medians of the bands, by Earth Engine's ids, and the number of clear observations."""
    return np.dtype([*((band_id, "<u2") for band_id in band_ids), ("n_obs", "u1")])


def ids_of(bands: Iterable[Band]) -> tuple[str, ...]:
    """Earth Engine's ids."""
    return tuple(band.earth_engine_id for band in bands)


@SOURCES.register("earth_engine")
class EarthEngineSettings(SourceSettings):
    """Medians that Earth Engine computes; one request per zone and step."""

    source: Literal["earth_engine"]
    project: str = Field(min_length=1)
    """Google Cloud project that the requests are counted for; it must be registered for Earth Engine."""
    collection: str = "COPERNICUS/S2_SR_HARMONIZED"
    """Sentinel-2 L2A collection; its numbers are reflectance × 10000 at every date."""
    credentials: Literal["default", "anonymous"] = "default"
    """`default`: the file that GOOGLE_APPLICATION_CREDENTIALS names, or what `earthengine authenticate` or
    `gcloud auth application-default login` stored. `anonymous`: none, for a server that asks for none."""
    endpoint: str | None = Field(default=None, pattern=r"^https?://[^/]+$")
    """Scheme and host of the service; None: Earth Engine's high-volume endpoint."""
    max_concurrent: int = Field(default=20, ge=1, le=MAX_CONCURRENT)
    """Requests in flight, in the whole cluster; Earth Engine's own limit is 40 per project."""
    max_requests_per_s: float = Field(default=20.0, gt=0, le=MAX_REQUESTS_PER_S)
    """Requests begun per second, in the whole cluster; Earth Engine's own limit is 100 per project."""
    timeout_s: float = Field(default=330.0, gt=0)
    """Longest wait for one answer; Earth Engine itself gives up after 5 minutes."""
    max_attempts: int = Field(default=8, ge=1)
    """How often one request is made when the service is busy, down or out of reach."""
    first_wait_s: float = Field(default=1.0, gt=0)
    """Upper end of the random wait before the second attempt; it doubles with each further one."""
    max_wait_s: float = Field(default=60.0, gt=0)
    """Where the doubling ends. A wait that the service asks for (Retry-After) comes on top."""
    min_window_px: int = Field(default=64, ge=1)
    """A window that is too much for the service is asked for in quarters, down to this height and width."""

    is_at_hand = False

    @property
    def band_ids(self) -> tuple[str, ...]:
        """Bands of the collection."""
        return tuple(band.id for band in SENTINEL_2.bands)

    def resources(self) -> frozenset[str]:
        """Who asks, where, and how fast."""
        who = {"project", "credentials", "endpoint"}
        pace = {"max_concurrent", "max_requests_per_s", "timeout_s", "max_attempts", "first_wait_s", "max_wait_s"}
        return frozenset(who | pace | {"min_window_px"})

    @property
    def quota(self) -> tuple[int, float]:
        """See `SourceSettings.quota`."""
        return self.max_concurrent, self.max_requests_per_s

    def describe(self) -> str:
        """See `SourceSettings.describe`."""
        return f"{self.collection} on Earth Engine"

    def counted(self, n_zones: int, cube: CubeSpec) -> tuple[str, int]:
        """See `SourceSettings.counted`."""
        return f"{cube.noun}s", n_zones * cube.n_steps

    def traffic(self, work: "Acquisition[Any]", tell: Callable[[str], None]) -> "Traffic":  # noqa: ARG002
        """See `SourceSettings.traffic`."""
        from cropray.imagery.sources.earth_engine.traffic import earth_engine_traffic  # noqa: PLC0415  as below

        runs, order = read_runs(work.order.workspace), work.order
        units = sum(run["listings"] + run["months"] for run in runs)
        unit_s = sum(run["unit_seconds"] for run in runs) / units if units else None
        return earth_engine_traffic(self, [zone.grid for zone in order.zones], unit_s, order.cube)

    def asked(self, workspace: Workspace) -> dict[str, float]:
        """See `SourceSettings.asked`."""
        runs = read_runs(workspace)
        took = {"requests": "requests", "download": "bytes"}
        return {name: sum(run[key] for run in runs) for name, key in took.items() if runs}

    def connect(self) -> str:
        """See `SourceSettings.connect`."""
        from cropray.imagery.sources.earth_engine.client import EarthEngine  # noqa: PLC0415  it needs these settings

        EarthEngine(self)
        return f"project '{self.project}' can be used"

    def for_order(self, order: "Order") -> "EarthEngineAcquisition":
        """See `SourceSettings.for_order`."""
        from cropray.imagery.sources.earth_engine.acquisition import EarthEngineAcquisition  # noqa: PLC0415  it needs these settings

        return EarthEngineAcquisition(self, order)
