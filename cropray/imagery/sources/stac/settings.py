"""Settings of the STAC source; apart from its client, so that a job file is read without loading it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from cropray.core.sensors import Band
from cropray.core.settings import Settings
from cropray.imagery.registry import SOURCES, SceneSettings

if TYPE_CHECKING:
    from cropray.imagery.acquisition import Traffic
    from cropray.imagery.sources.stac.scenes import StacScenes

SCL: Final = "SCL"
EXCLUDED: Final = "items named by 'exclude'"  # a remark
EARTH_SEARCH: Final = "https://earth-search.aws.element84.com/v1"


# Keys of the assets at Planetary Computer, Earth Search and the Copernicus Data Space, in this order.
USUAL_ASSETS: Final[Mapping[str, tuple[str, ...]]] = {
    "B02": ("B02", "blue", "B02_10m"),
    "B03": ("B03", "green", "B03_10m"),
    "B04": ("B04", "red", "B04_10m"),
    "B05": ("B05", "rededge1", "B05_20m"),
    "B06": ("B06", "rededge2", "B06_20m"),
    "B07": ("B07", "rededge3", "B07_20m"),
    "B08": ("B08", "nir", "B08_10m"),
    "B8A": ("B8A", "nir08", "B8A_20m"),
    "B11": ("B11", "swir16", "B11_20m"),
    "B12": ("B12", "swir22", "B12_20m"),
    SCL: (SCL, "scl", "SCL_20m"),
}


class StacAssets(Settings):
    """Keys of the assets of an item: of SCL, and of each band of the cube by its id."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str]

    SCL: str
    """Key of the asset of scene classes; bands of the cube stand beside it, by their ids."""


@SOURCES.register("stac")
class StacSettings(SceneSettings):
    """Which STAC API, and what of it."""

    source: Literal["stac"]
    url: str = Field(default=EARTH_SEARCH, pattern="^https?://")
    """Root of the API; Planetary Computer: https://planetarycomputer.microsoft.com/api/stac/v1."""
    collection: str = "sentinel-2-l2a"
    """Sentinel-2 Level-2A; Earth Search has ESA's reprocessed Collection 1 as `sentinel-2-c1-l2a`."""
    assets: StacAssets | None = None
    """Asset of SCL and of each band of the cube, `{SCL: …, B02: …}`; None: the names of Earth Search, Planetary Computer
    and the Copernicus Data Space."""
    sign: Literal["planetary_computer"] | None = None
    """Whose signature the files' addresses need."""
    max_cloud_cover: float = Field(default=100, ge=0, le=100)
    """Tiles with more clouds than this, percent, are left out."""
    exclude: tuple[str, ...] = ()
    """Ids of items to leave out."""
    offset: Literal["auto"] | Annotated[int, Field(ge=-10_000, le=0)] = "auto"
    """Digital numbers to add to every item's bands; auto: −1000 where the processing baseline asks for it."""
    read_threads: int = Field(default=20, ge=1, le=64)
    """Files that one worker reads at the same time; a scene is one for each band and one more. Most of the time is spent waiting for the server."""
    max_attempts: int = Field(default=6, ge=1)
    """How often a server is asked while it is busy or out of reach."""
    max_wait_s: float = Field(default=60, ge=0)
    """Longest wait between two attempts, s."""
    timeout_s: float = Field(default=60, gt=0)
    """Longest silence of a server, s."""

    is_at_hand = False

    @property
    def band_ids(self) -> tuple[str, ...]:
        """Bands whose assets are known."""
        return tuple(band for band in (self.assets.model_dump() if self.assets else USUAL_ASSETS) if band != SCL)

    def resources(self) -> frozenset[str]:
        """How the server is asked."""
        return frozenset({"sign", "read_threads", "max_attempts", "max_wait_s", "timeout_s"})

    def unheard(self, left_out: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """See `SceneSettings.unheard`: ids of `exclude` that no item has; misspelt, they leave nothing out."""
        ids = sorted(set(self.exclude) - set(left_out.get(EXCLUDED, ())))
        return {"ids of 'exclude' that no item of these zones and seasons has": ids} if ids else {}

    def describe(self) -> str:
        """See `SourceSettings.describe`."""
        return f"{self.collection} at {self.url}"

    def scenes(self, bands: Sequence[Band]) -> "StacScenes":
        """See `SceneSettings.scenes`."""
        from cropray.imagery.sources.stac.scenes import StacScenes  # noqa: PLC0415  it needs these settings

        return StacScenes(self, tuple(bands))

    def traffic(self, work: Any, tell: Callable[[str], None]) -> "Traffic":
        """See `SourceSettings.traffic`: one item is read for real; a zone takes as long for each of its items."""
        from cropray.imagery.sources.stac.traffic import measured_traffic  # noqa: PLC0415  nobody else needs it

        return measured_traffic(work, tell)
