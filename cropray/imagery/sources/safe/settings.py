"""Settings of the `safe` source."""

from typing import Final, Literal

from cropray.core.sensors import SENTINEL_2
from cropray.raw_files import InputSetting
from cropray.settings import Settings

SETTING: Final = "imagery.folder"
REMEDY: Final = "fetch the product again, or name it in 'imagery.exclude'"


class SafeSettings(Settings):
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
