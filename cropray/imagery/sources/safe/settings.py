"""Settings of the `safe` source."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

from cropray.core.sensors import SENTINEL_2, Band
from cropray.imagery.registry import SOURCES, SceneSettings
from cropray.io.raw_files import InputSetting

if TYPE_CHECKING:
    from cropray.imagery.sources.safe.scenes import SafeScenes

SETTING: Final = "imagery.folder"
REMEDY: Final = "fetch the product again, or name it in 'imagery.exclude'"


@SOURCES.register("safe")
class SafeSettings(SceneSettings):
    """Where the products are."""

    source: Literal["safe"]
    folder: InputSetting
    """Folder of the products, at any depth: `.SAFE` folders on a disk or in object storage, zips of them on a disk."""
    exclude: tuple[str, ...] = ()
    """Names of products to leave out, with or without `.SAFE` and `.zip`; `*` stands for any characters (`*_T32UNU_*`)."""

    @property
    def band_ids(self) -> tuple[str, ...]:
        """Bands that a product has."""
        return tuple(band.id for band in SENTINEL_2.bands)

    def scenes(self, bands: Sequence[Band]) -> "SafeScenes":
        """See `SceneSettings.scenes`."""
        from cropray.imagery.sources.safe.scenes import SafeScenes  # noqa: PLC0415  it needs these settings

        return SafeScenes(self, tuple(bands))
