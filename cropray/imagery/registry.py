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

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from cropray.core.cube import CubeSpec
from cropray.core.errors import ConfigError
from cropray.core.registry import Registry
from cropray.core.sensors import SENTINEL_2, Band
from cropray.core.settings import Settings
from cropray.io.workspace import Workspace

if TYPE_CHECKING:
    from cropray.imagery.acquisition import Acquisition, Order, SceneAcquisition, Traffic
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

    @property
    def has_any_unit(self) -> bool:
        """Whether its bands may be of other units than reflectance × 10 000, which scenes hold."""
        return False

    @property
    def quota(self) -> tuple[int, float] | None:
        """Requests in flight, and begun per second, that a service allows all workers together; None: as many as come."""
        return None

    def describe(self) -> str:
        """Where imagery comes from, in a few words."""
        return str(getattr(self, "folder", self.source))

    def require_bands(self, cube: CubeSpec) -> None:
        """Raises: ValueError: a band of the cube is of another unit or scale, or the source has no band of this name."""
        others = [] if self.has_any_unit else [band.id for band in cube.bands if not band.is_plain_reflectance]
        if others:
            raise ValueError(
                f"'cube' has {', '.join(others)}, and scenes hold bands of reflectance × 10 000 only: take bands of "
                f"{SENTINEL_2.name}, or give 'points' or ready cubes ('imagery' of source 'cubes') that have them"
            )
        known = self.band_ids
        lacking = [] if known is None else [band_id for band_id in cube.band_ids if band_id not in known]
        if known is not None and lacking:
            raise ValueError(
                f"imagery of the source '{self.source}' has no {', '.join(lacking)}, which 'cube' has; it has "
                f"{', '.join(known)}: take these, or (STAC) name the asset in imagery.assets"
            )

    def counted(self, n_zones: int, cube: CubeSpec) -> tuple[str, int]:  # noqa: ARG002
        """What the progress of its work counts, and how many of them so many zones are."""
        return "zones", n_zones

    def traffic(self, work: "Acquisition[Any]", tell: Callable[[str], None]) -> "Traffic | None":  # noqa: ARG002
        """What a service would be asked for work whose `check` went before; None where none is asked.

        `tell` is told of what is measured.
        """
        return None

    def asked(self, workspace: Workspace) -> dict[str, float]:  # noqa: ARG002
        """`requests` and bytes of `download` that earlier runs took, where they were counted."""
        return {}

    def connect(self) -> str:
        """Try to reach a service that has a quota from this machine; what was reached.

        Raises:
            CroprayError: it refuses, or does not answer.
        """
        raise ConfigError(f"imagery of the source '{self.source}' is no service that could be reached")

    def for_order(self, order: "Order") -> "Acquisition[Any]":
        """Its work for a job."""
        raise NotImplementedError


class SceneSettings(SourceSettings):
    """A source of scenes."""

    def scenes(self, bands: Sequence[Band]) -> "SceneSource":
        """The source; its `read` gives the bands, those of the job's cube, in this order."""
        raise NotImplementedError

    def unheard(self, left_out: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:  # noqa: ARG002
        """What the settings name and nothing has, by remarks; `left_out` is what was left out of all zones, by remarks."""
        return {}

    def for_order(self, order: "Order") -> "SceneAcquisition":
        """See `SourceSettings.for_order`."""
        from cropray.imagery.acquisition import SceneAcquisition  # noqa: PLC0415  it needs these settings

        return SceneAcquisition(self, order)


class CompositeSettings(SourceSettings):
    """A source of finished composites."""

    @property
    def has_any_unit(self) -> bool:
        """See `SourceSettings.has_any_unit`."""
        return True

    def composites(self) -> "CompositeSource":
        """The source."""
        raise NotImplementedError

    def for_order(self, order: "Order") -> "Acquisition[CompositeSettings]":
        """See `SourceSettings.for_order`."""
        from cropray.imagery.acquisition import CubeAcquisition  # noqa: PLC0415  it needs these settings

        return CubeAcquisition(self, order)


SOURCES: Final[Registry[SourceSettings]] = Registry("source of imagery", "cropray.imagery.sources")
