"""The sources of imagery that come with cropray, and what a job may write below `imagery`. See `cropray.imagery.registry`."""

import functools
import operator
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from cropray.core.cube import CubeSpec
from cropray.core.sensors import SENTINEL_2
from cropray.imagery.registry import SOURCES, CompositeSettings, SourceSettings
from cropray.imagery.sources.cubes import CubesSettings
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings
from cropray.imagery.sources.files.scenes import FilesSettings
from cropray.imagery.sources.safe import SafeSettings
from cropray.imagery.sources.stac.settings import StacSettings

__all__ = ["CubesSettings", "EarthEngineSettings", "FilesSettings", "SafeSettings", "StacSettings"]


def imagery_settings() -> Any:
    """The type of a job's `imagery`: the settings of all sources that are known now."""
    kinds = (Annotated[settings, Tag(name)] for name, settings in sorted(SOURCES.known().items()))
    return Annotated[functools.reduce(operator.or_, kinds), Discriminator(_source_of)]


def _source_of(value: Any) -> str:
    """Which settings a value becomes; a job file that names no `source` reads files."""
    return str(value.get("source", "files") if isinstance(value, dict) else getattr(value, "source", "files"))


def require_bands(settings: SourceSettings, cube: CubeSpec) -> None:
    """Refuse a cube that a source cannot have: scenes of Sentinel-2 hold reflectance × 10 000.

    Ready cubes may be of any bands; in a folder each file says which it has.

    Raises:
        ValueError: a band is of another unit or scale, or the source has no band of this name.
    """
    others = [band.id for band in cube.bands if not band.is_plain_reflectance]
    if others and not isinstance(settings, CompositeSettings):
        raise ValueError(
            f"'cube' has {', '.join(others)}, and scenes hold bands of reflectance × 10 000 only: take bands of "
            f"{SENTINEL_2.name}, or give 'points' or ready cubes ('imagery' of source 'cubes') that have them"
        )
    known = settings.band_ids
    lacking = [] if known is None else [band_id for band_id in cube.band_ids if band_id not in known]
    if known is not None and lacking:
        raise ValueError(
            f"imagery of the source '{settings.source}' has no {', '.join(lacking)}, which 'cube' has; it has "
            f"{', '.join(known)}: take these, or (STAC) name the asset in imagery.assets"
        )
