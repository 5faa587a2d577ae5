"""Fitting the network over pixels, by the loop of all networks."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa
import ray

from cropray.training.deep.fit import Kind, NetworkData
from cropray.training.deep.tile_file import TileFile
from cropray.training.deep.tiles import Samples
from cropray.training.temp_cnn.pixels import PixelSet


def pixel_samples(zones: Mapping[str, Any], data: NetworkData, file: TileFile) -> Samples:
    """Pixels of some zones; they stay in memory, the scratch file is for tiles."""
    del file
    return PixelSet(_tables(zones), data.lookup, data.stats, data.cube)


def _tables(zones: Mapping[str, Any]) -> Iterator[pa.Table]:
    """One zone's table after the other, out of the object store."""
    for zone_id in sorted(zones):
        block = zones[zone_id]
        yield block if isinstance(block, pa.Table) else ray.get(block)


TEMP_CNN: Final = Kind("temp_cnn", pixel_samples)
