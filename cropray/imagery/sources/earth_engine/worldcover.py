"""A map of classes from Earth Engine: land cover on a grid of cells."""

import ee
import numpy as np
import numpy.typing as npt

from cropray.core.grid import Grid
from cropray.imagery.sources.earth_engine.client import EarthEngine, EarthEngineError
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings


class EarthEngineMap:
    """Classes of an image collection; where images overlap the last of the collection counts."""

    n_readers = 1
    """The client serves one thread."""

    def __init__(self, settings: EarthEngineSettings, band: str) -> None:
        """Connect; raises as `EarthEngine`."""
        self._collection, self._band = settings.collection, band
        self._earth_engine = EarthEngine(settings)

    def read(self, grid: Grid) -> npt.NDArray[np.uint8]:
        """[H, W] class at each cell, from the level of Earth Engine's pyramid that fits the cells; 0 where there is none.

        Raises:
            EarthEngineError: refused, or no answer.
        """
        image = ee.ImageCollection(self._collection).select([self._band]).mosaic().unmask(0, False).toUint8()
        try:
            pixels = self._earth_engine.pixels(image, grid, np.dtype([(self._band, "u1")]))
        except EarthEngineError as error:
            raise EarthEngineError(
                f"land cover '{self._collection}': {error}; check zone_selection.worldcover"
            ) from error
        return np.ascontiguousarray(pixels[self._band])
