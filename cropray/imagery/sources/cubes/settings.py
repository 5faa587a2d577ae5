"""Settings of the `cubes` source."""

from typing import TYPE_CHECKING, Final, Literal

from pydantic import field_validator

from cropray.imagery.registry import SOURCES, CompositeSettings
from cropray.io.raw_files import InputSetting

if TYPE_CHECKING:
    from cropray.imagery.sources.cubes.source import CubeFiles

ZONE: Final = "{zone_id}"
SEASON: Final = "{season}"


@SOURCES.register("cubes")
class CubesSettings(CompositeSettings):
    """Where the cubes are."""

    source: Literal["cubes"]
    folder: InputSetting
    """Folder of the files, on a disk or in object storage (`s3://…`, `gs://…`, `az://…`)."""
    pattern: str = "{zone_id}.tif"
    """File of a zone below the folder; `{season}` is the first month of its season, `YYYY-MM`. Without `{zone_id}`: a file
    that covers many zones (`france.vrt`), or several of which one covers each zone (`**/*.tif`)."""
    counts: str = "{zone_id}.nobs.tif"
    """File of a zone's clear observations, one band per step, as `pattern`; where there is none, the bands `n_obs_01 …` of
    the cube itself count, and where it has none, steps with data count as one observation each."""
    bands: tuple[str, ...] | None = None
    """Names of a file's bands in order (`B02_01`, `A00`), instead of their descriptions; None: as described, and a file
    without descriptions that has as many bands as the cube, of one step or one band, has them in the cube's order."""
    fill: bool = True
    """Fill missing values from the steps before and after, as composites of scenes are; false: they stay no data."""

    @field_validator("pattern", "counts")
    @classmethod
    def _knows_its_places(cls, pattern: str) -> str:
        if set("{}") & set(pattern.replace(ZONE, "").replace(SEASON, "")):
            raise ValueError("the places that are filled in are {zone_id} and {season}; there are no others")
        return pattern

    def composites(self) -> "CubeFiles":
        """See `CompositeSettings.composites`."""
        from cropray.imagery.sources.cubes.source import CubeFiles  # noqa: PLC0415  it needs these settings

        return CubeFiles(self)
