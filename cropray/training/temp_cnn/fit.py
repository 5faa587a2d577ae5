"""Fitting the network over pixels, by the loop of all networks."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray

from cropray.core.sensors import NODATA
from cropray.training.deep.fit import Kind, NetworkData
from cropray.training.deep.tile_file import TileFile
from cropray.training.deep.tiles import Samples
from cropray.training.family import Fit
from cropray.training.pixel_blocks import samples
from cropray.training.temp_cnn.pixels import PixelSet

_IQR_OF_NORMAL: Final = 1.349  # interquartile range of a normal distribution, standard deviations


def scaled(job: Fit) -> Fit:
    """The same fit, with `mean` and `std` as `scaling` asks for them.

    `robust` is the median and the interquartile range, as the deviation that it is of normal numbers. A band without two
    different quartiles keeps the standard deviation. Source: Huber 1981, "Robust Statistics", ch. 5.
    """
    if job.settings.scaling == "standard":
        return job
    counts = np.zeros((job.cube.n_bands, np.iinfo(np.uint16).max + 1), np.int64)
    for table in _tables(job.train.blocks):
        numbers = samples(table, job.cube.columns).reshape(-1, job.cube.n_bands, job.cube.n_steps)
        counts += [np.bincount(numbers[:, band].ravel(), minlength=counts.shape[1]) for band in range(len(counts))]
    counts[:, NODATA] = 0
    mean, std = list(job.mean), list(job.std)
    for band, up_to in enumerate(counts.cumsum(axis=1)):
        low, middle, high = np.searchsorted(up_to, np.array([0.25, 0.5, 0.75]) * up_to[-1])
        if high > low:
            mean[band], std[band] = float(middle), float(high - low) / _IQR_OF_NORMAL
    return replace(job, mean=tuple(mean), std=tuple(std))


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
