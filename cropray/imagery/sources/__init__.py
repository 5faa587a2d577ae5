"""The sources of imagery that a job can name, and the one that its settings ask for.

A source of one's own is one file here, or beside this folder: settings with a `source` of its own, and a class that is a
`SceneSource` (its scenes are read and composited by cropray) or a `CompositeSource` (it has finished cubes). It is added to
the two lists and the two functions below.
"""

from typing import Annotated, Any, assert_never

from pydantic import Discriminator, Tag

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.sensors import SENTINEL_2
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


def scene_source(settings: SceneSettings, cube: CubeSpec = STUDY_CUBE) -> SceneSource:
    """The source that gives scenes for these settings, with the cube's bands."""
    match settings:
        case FilesSettings():
            return FileScenes(settings, cube.bands)
        case SafeSettings():
            return SafeScenes(settings, cube.bands)
        case StacSettings():
            return StacScenes(settings, cube.bands)
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


def require_bands(settings: ImagerySettings, cube: CubeSpec) -> None:
    """Refuse a cube that a source of scenes cannot have: scenes of Sentinel-2 hold reflectance × 10 000.

    Ready cubes may be of any bands; each file says which it has.

    Raises:
        ValueError: a band is of another unit or scale, or the source has no band of this name.
    """
    if isinstance(settings, CubesSettings):
        return
    others = [band.id for band in cube.bands if not band.is_plain_reflectance]
    if others:
        raise ValueError(
            f"'cube' has {', '.join(others)}, and scenes hold bands of reflectance × 10 000 only: take bands of "
            f"{SENTINEL_2.name}, or give 'points' or ready cubes ('imagery' of source 'cubes') that have them"
        )
    if isinstance(settings, FilesSettings):
        return  # each file says which bands it has
    lacking = [band_id for band_id in cube.band_ids if band_id not in settings.band_ids]
    if lacking:
        raise ValueError(
            f"imagery of the source '{settings.source}' has no {', '.join(lacking)}, which 'cube' has; it has "
            f"{', '.join(settings.band_ids)}: take these, or (STAC) name the asset in imagery.assets"
        )
