"""The sources of imagery that come with cropray, and what a job may write below `imagery`. See `cropray.imagery.registry`."""

import functools
import operator
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from cropray.imagery.registry import SOURCES
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
