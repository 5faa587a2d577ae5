"""Sources of imagery by name, and what each is to a job: the settings below `imagery` that ask for it.

A source of one's own is one file: settings that name it and make a `SceneSource` (its scenes are read and composited by
cropray) or a `CompositeSource` (it has finished composites), registered by a line.

    @SOURCES.register("archive")
    class ArchiveSettings(SceneSettings):
        source: Literal["archive"]
        folder: InputSetting

        def scenes(self, bands):
            return ArchiveScenes(self, bands)
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from cropray.core.registry import Registry
from cropray.core.sensors import Band
from cropray.core.settings import Settings

if TYPE_CHECKING:
    from cropray.imagery.cubes import CompositeSource
    from cropray.imagery.scenes import SceneSource


class SourceSettings(Settings):
    """Where imagery comes from."""

    source: str
    """Name of the source."""
    is_at_hand: ClassVar[bool] = True
    """Whether all that it would read is looked at before any work starts; a service is asked once the work is its turn."""

    @property
    def band_ids(self) -> tuple[str, ...] | None:
        """Bands that it has; None: each file says which."""
        return None

    def describe(self) -> str:
        """Where imagery comes from, in a few words."""
        return str(getattr(self, "folder", self.source))


class SceneSettings(SourceSettings):
    """A source of scenes."""

    def scenes(self, bands: Sequence[Band]) -> "SceneSource":
        """The source.

        Args:
            bands: those of the job's cube, which `read` gives in this order.
        """
        raise NotImplementedError

    def unheard(self, left_out: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:  # noqa: ARG002
        """What the settings name and nothing has, by remarks.

        Args:
            left_out: what was left out of all zones, by remarks.
        """
        return {}


class CompositeSettings(SourceSettings):
    """A source of finished composites."""

    def composites(self) -> "CompositeSource":
        """The source."""
        raise NotImplementedError


SOURCES: Final[Registry[SourceSettings]] = Registry("source of imagery", "cropray.imagery.sources")
