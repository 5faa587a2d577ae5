"""What a drawn landscape looks like."""

import math
from typing import Self

from pydantic import Field, model_validator

from cropray.core.cube import STUDY_CUBE
from cropray.core.grid import SCL_SNAP_M
from cropray.core.settings import Settings
from cropray.landscape.regions import REGION_STYLES
from cropray.landscape.spectra import bands_of

MAX_PARCEL_EXTENT_M = 280.0  # no parcel is longer than this, so that none reaches from one zone to the next
PIXEL_M = 10.0


class LandscapeSettings(Settings):
    """Size, season and seed of a drawn landscape."""

    seed: int = Field(default=20230101, ge=0)
    """The same seed and settings give the same bytes."""
    n_regions: int = Field(default=8, ge=1, le=len(REGION_STYLES))
    """The first regions of the bundled zone table."""
    zones_per_region: int = Field(default=5, ge=2, le=5)
    """The first zones of each region; one of them is its test zone."""
    zone_px: int = Field(default=48, ge=24, le=256)
    """Rows and columns of a zone."""
    gap_px: int = Field(default=36, ge=math.ceil(MAX_PARCEL_EXTENT_M / PIXEL_M))
    """Least pixels between two zones; wider than the longest parcel."""
    margin_px: int = Field(default=12, ge=0)
    """Pixels that the scenes reach beyond the outermost zones."""
    year: int = Field(default=2023, ge=2015, le=2100)
    """Calendar year in which the scenes begin."""
    first_month: int = Field(default=1, ge=1, le=12)
    """Month of that year with which the twelve months of scenes begin."""
    bands: tuple[str, ...] = STUDY_CUBE.band_ids
    """Bands of the scenes: any of Sentinel-2's of 10 and 20 m, at 10 m."""
    scenes_per_month: int = Field(default=3, ge=2)
    """Typical acquisitions a month; single months have one fewer to two more."""
    missing_month_share: float = Field(default=0.03, ge=0, le=0.5)
    """Probability that a region has no scene at all in a month."""
    overcast_share: float = Field(default=0.1, ge=0, le=0.9)
    """Probability that a scene is cloudy all over."""

    @model_validator(mode="after")
    def _has_test_zones(self) -> Self:
        styles = REGION_STYLES[: self.n_regions]
        short = [style.region for style in styles if self.zones_per_region < style.n_zones_with_test]
        if short:
            raise ValueError(
                f"zones_per_region = {self.zones_per_region} leaves {short} without their test zone; take more"
            )
        return self

    @model_validator(mode="after")
    def _has_bands(self) -> Self:
        bands_of(self.bands)
        return self

    @property
    def zone_step_px(self) -> int:
        """Columns from one zone's edge to the next one's, so that every zone snaps to 60 m."""
        snap_px = round(SCL_SNAP_M / PIXEL_M)
        return math.ceil((self.zone_px + self.gap_px) / snap_px) * snap_px
