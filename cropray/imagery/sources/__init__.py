"""The sources of imagery that a job can name, and the one that its settings ask for.

A source of one's own is one file here, or beside this folder: settings with a `source` of its own, and a class that is a
`SceneSource` (its scenes are read and composited by cropray) or a `CompositeSource` (it has finished cubes). It is added to
the two lists and the two functions below.
"""

from typing import Annotated, Any, assert_never

from pydantic import Discriminator, Tag

from cropray.imagery.cubes import CompositeSource
from cropray.imagery.earth_engine_settings import EarthEngineSettings
from cropray.imagery.files import FileScenes, FilesSettings
from cropray.imagery.scenes import SceneSource
from cropray.imagery.sources.cubes import CubeFiles, CubesSettings
from cropray.imagery.sources.safe import SafeScenes, SafeSettings
from cropray.imagery.stac import StacScenes
from cropray.imagery.stac_settings import StacSettings

SceneSettings = FilesSettings | SafeSettings | StacSettings  # their scenes are read and composited here
FolderSettings = FilesSettings | SafeSettings | CubesSettings  # what they read is looked at before anything starts


def _source_of(value: Any) -> str:
    """Which settings a value becomes; a job file that names no `source` reads files."""
    return str(value.get("source", "files") if isinstance(value, dict) else getattr(value, "source", "files"))


ImagerySettings = Annotated[
    Annotated[FilesSettings, Tag("files")]
    | Annotated[SafeSettings, Tag("safe")]
    | Annotated[StacSettings, Tag("stac")]
    | Annotated[EarthEngineSettings, Tag("earth_engine")]
    | Annotated[CubesSettings, Tag("cubes")],
    Discriminator(_source_of),
]


def scene_source(settings: SceneSettings) -> SceneSource:
    """The source that gives scenes for these settings."""
    match settings:
        case FilesSettings():
            return FileScenes(settings)
        case SafeSettings():
            return SafeScenes(settings)
        case StacSettings():
            return StacScenes(settings)
        case _:
            assert_never(settings)


def composite_source(settings: CubesSettings) -> CompositeSource:
    """The source that gives finished composites for these settings."""
    return CubeFiles(settings)


def describe(settings: SceneSettings | CubesSettings) -> str:
    """Where scenes or cubes come from, in a few words."""
    match settings:
        case FilesSettings() | SafeSettings() | CubesSettings():
            return str(settings.folder)
        case StacSettings():
            return f"{settings.collection} at {settings.url}"
        case _:
            assert_never(settings)
