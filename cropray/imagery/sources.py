"""The sources of imagery that a job can name, and the one that its settings ask for."""

from typing import Annotated, Any, assert_never

from pydantic import Discriminator, Tag

from cropray.imagery.earth_engine_settings import EarthEngineSettings
from cropray.imagery.files import FileScenes, FilesSettings
from cropray.imagery.scenes import SceneSource
from cropray.imagery.stac import StacScenes
from cropray.imagery.stac_settings import StacSettings

SceneSettings = FilesSettings | StacSettings  # their scenes are read and composited here


def _source_of(value: Any) -> str:
    """Which settings a value becomes; a job file that names no `source` reads files."""
    return str(value.get("source", "files") if isinstance(value, dict) else getattr(value, "source", "files"))


ImagerySettings = Annotated[
    Annotated[FilesSettings, Tag("files")]
    | Annotated[StacSettings, Tag("stac")]
    | Annotated[EarthEngineSettings, Tag("earth_engine")],
    Discriminator(_source_of),
]


def scene_source(settings: SceneSettings) -> SceneSource:
    """The source that gives scenes for these settings."""
    match settings:
        case FilesSettings():
            return FileScenes(settings)
        case StacSettings():
            return StacScenes(settings)
        case _:
            assert_never(settings)


def describe(settings: SceneSettings) -> str:
    """Where scenes come from, in a few words."""
    match settings:
        case FilesSettings():
            return str(settings.folder)
        case StacSettings():
            return f"{settings.collection} at {settings.url}"
        case _:
            assert_never(settings)
