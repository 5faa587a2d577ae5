"""A map of classes from Earth Engine: land cover on a grid of cells."""

import io
import itertools
from collections import Counter
from typing import Final

import ee
import numpy as np
import numpy.typing as npt

from cropray.grid import Grid, Window
from cropray.imagery.earth_engine import EarthEngine, EarthEngineError, judge, pixel_grid
from cropray.imagery.earth_engine_settings import EarthEngineSettings
from cropray.imagery.retry import RetryPolicy, with_retries

_MAX_CELLS: Final = 20_000_000  # of one request: 48 MiB, and the server counts a mask byte with each class


class EarthEngineMap:
    """Classes of an image collection; where images overlap the last of the collection counts."""

    n_readers = 1
    """The client serves one thread."""

    def __init__(self, settings: EarthEngineSettings, band: str) -> None:
        """Connect.

        Raises:
            EarthEngineError: no credentials, refused, or no answer.
        """
        self._settings, self._band = settings, band
        EarthEngine(settings)

    def read(self, grid: Grid) -> npt.NDArray[np.uint8]:
        """[H, W] class at each cell, from the level of Earth Engine's pyramid that fits the cells; 0 where there is none.

        Raises:
            EarthEngineError: refused, or no answer.
        """
        rows = range(0, grid.height, max(1, _MAX_CELLS // grid.width))
        blocks = [Window(top, 0, end - top, grid.width) for top, end in itertools.pairwise([*rows, grid.height])]
        return np.concatenate([worldcover_window(self._settings, self._band, grid.crop(block)) for block in blocks])


def worldcover_window(settings: EarthEngineSettings, band: str, grid: Grid) -> npt.NDArray[np.uint8]:
    """[H, W] classes on a grid, by one request of the client that this process has connected.

    Raises:
        EarthEngineError: refused, or no answer.
    """
    image = ee.ImageCollection(settings.collection).select([band]).mosaic().unmask(0, False).toUint8()
    params = {"expression": image, "fileFormat": "NPY", "grid": pixel_grid(grid)}

    def ask() -> npt.NDArray[np.uint8]:
        pixels = np.load(io.BytesIO(ee.data.computePixels(params)))
        if pixels.shape != grid.shape or pixels.dtype != np.dtype([(band, "u1")]):
            raise ValueError(f"pixels {pixels.shape} {pixels.dtype}; asked for {grid.shape} of '{band}'")
        return np.asarray(pixels[band])

    policy = RetryPolicy(settings.max_attempts, settings.first_wait_s, settings.max_wait_s)
    errors: Counter[str] = Counter()
    try:
        return with_retries(ask, judge, policy, errors)
    except Exception as error:
        tries = ", ".join(f"{n} × {kind}" for kind, n in sorted(errors.items()))
        raise EarthEngineError(
            f"land cover '{settings.collection}': Earth Engine says '{error}' (failed attempts: {tries}); check "
            f"zone_selection.worldcover"
        ) from error
