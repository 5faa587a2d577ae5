"""What a job file may say about choosing zones."""

import math
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from cropray.core.grid import SCL_SNAP_M
from cropray.core.settings import Settings
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings
from cropray.io.raw_files import InputSetting

PIXEL_M: Final = 10
_MAX_CELLS: Final = 10_000  # cells across a search area: 0.4 GB while its windows are counted


class LandCoverFiles(Settings):
    """Land cover in GeoTIFFs of your own, in any coordinate system."""

    source: Literal["files"] = "files"
    """The map is files."""
    path: InputSetting
    """One GeoTIFF, or a folder of them, on a disk or in object storage (`s3://…`, `gs://…`, `az://…`)."""
    pattern: str = "**/*.tif"
    """Which files below a folder are land cover maps; where several have data the first in order of name counts."""


class LandCoverStac(Settings):
    """Land cover found through a STAC API; the defaults read ESA WorldCover v200 without an account."""

    source: Literal["stac"] = "stac"
    """The map is items of a STAC API."""
    url: str = "https://planetarycomputer.microsoft.com/api/stac/v1"
    """Root of the API."""
    collection: str = "esa-worldcover"
    """Collection of the API."""
    asset: str = "map"
    """Key of the GeoTIFF in each item."""
    year: int = Field(default=2021, ge=2000, le=2100)
    """Only items of this year: WorldCover of 2021 is version 200."""
    sign: Literal["planetary_computer"] | None = "planetary_computer"
    """How links are signed; None: they are read as they are."""


class LandCoverEarthEngine(EarthEngineSettings):
    """Land cover from Earth Engine, asked as imagery is; the defaults read ESA WorldCover v200."""

    source: Literal["earth_engine"] = "earth_engine"
    collection: str = "ESA/WorldCover/v200"
    """Image collection of class maps."""
    band: str = "Map"
    """Band of the classes."""


LandCover = Annotated[LandCoverFiles | LandCoverStac | LandCoverEarthEngine, Field(discriminator="source")]


class ZoneSelectionSettings(Settings):
    """Where zones may lie, how they are scored and how many are chosen."""

    worldcover: LandCover
    """Land cover map; its classes are read by nearest neighbour at the centres of cells of `cell_m`."""
    region_table: InputSetting | None = None
    """CSV `region,lon,lat` and, optionally, `epsg,town`; None: the 8 regions of France that come with cropray."""
    cropland_classes: tuple[int, ...] = Field(default=(40,), min_length=1)
    """Classes of the map that are cropland; 40 in WorldCover."""
    radius_km: float = Field(default=30.0, gt=0)
    """A zone's centre lies no farther than this from the region's town."""
    zone_size_m: int = Field(default=10_000, gt=0)
    """Side of a zone."""
    zones_per_region: int = Field(default=5, ge=2)
    """One of them is the test zone."""
    min_gap_m: int = Field(default=1_000, gt=0)
    """Zones are at least this far apart in x or in y."""
    step_m: int = Field(default=600, gt=0)
    """Corners of possible zones are multiples of this; itself a multiple of 60 m, so that 20 m classes align."""
    cell_m: int = Field(default=100, ge=10)
    """Size of the cells whose classes are counted; 10 counts every pixel of WorldCover, and reads 100 times as much."""
    min_cropland_share: float = Field(default=0.05, ge=0, le=1)
    """Windows with less are never chosen."""
    outline: InputSetting | None = None
    """Outline of the country, any vector file: zones around towns in it lie wholly in it. None: that of France."""

    @model_validator(mode="after")
    def _is_aligned(self) -> Self:
        if self.step_m % SCL_SNAP_M or self.step_m % self.cell_m:
            raise ValueError(f"step_m = {self.step_m} must be a multiple of {SCL_SNAP_M} and of cell_m = {self.cell_m}")
        if self.zone_size_m % self.cell_m or self.zone_size_m % PIXEL_M:
            raise ValueError(
                f"zone_size_m = {self.zone_size_m} must be a multiple of {PIXEL_M} and of cell_m = {self.cell_m}"
            )
        n_cells = math.ceil((2000 * self.radius_km + self.zone_size_m) / self.cell_m)
        if n_cells > _MAX_CELLS:
            raise ValueError(
                f"a search area would be {n_cells} cells wide and may be {_MAX_CELLS}: raise cell_m or lower radius_km"
            )
        return self
