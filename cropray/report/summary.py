"""Summary of a zone: how its classes and its observations go through the year, in counts that add up over zones.

Quantiles over many zones follow from histograms, so that no zone has to stay in memory and no pixel is left out.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.legend import IGNORE
from cropray.core.metrics import Counts
from cropray.core.sensors import LARGEST, NODATA, Band
from cropray.io.storage import Location, local_file, whole_file

N_BINS: Final = 1000  # per series: 0.001 of reflectance from 0 to 1, 0.002 of NDVI from -1 to 1
NDVI: Final = "NDVI"
_DN_PER_BIN: Final = 10  # of reflectance
_RED, _NEAR_INFRARED = "B04", "B08"
_Step = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.bool_]]
"""(values, bins, which pixels hold data) of a series in a step."""


@dataclass(frozen=True, slots=True)
class Profiles:
    """Values of each class by series and step; profiles of several zones are added field by field."""

    counts: Counts
    """[K, S, T, N_BINS] int64: pixels by class, series, step and bin; pixels without data are not counted."""
    totals: npt.NDArray[np.float64]
    """[K, S, T]: sum of the values, reflectance 0–1, NDVI, or what the band's unit is."""
    cube: CubeSpec = STUDY_CUBE

    def add(self, other: "Profiles") -> None:
        """Add the pixels of other zones, in place."""
        self.counts[:] += other.counts
        self.totals[:] += other.totals

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """[K, S, T] mean value; NaN where a class has no value in a step."""
        n_values = self.counts.sum(-1)
        return np.where(n_values > 0, self.totals / np.maximum(n_values, 1), np.nan)

    def quantile(self, share: float) -> npt.NDArray[np.float64]:
        """[K, S, T] the value that a share (0–1) of the pixels does not exceed, to half a bin; NaN where there is none."""
        up_to = self.counts.cumsum(-1)
        n_values = up_to[..., -1:]
        rank = np.maximum(np.ceil(share * n_values - 1e-9), 1)  # 0.1 × 30 is a little more than 3 in floating point
        bins = (up_to < rank).sum(-1)
        values = _bin_values(self.cube)
        return np.where(n_values[..., 0] > 0, values[np.arange(len(values))[:, None], bins % N_BINS], np.nan)


@dataclass(frozen=True, slots=True)
class Observations:
    """How often the pixels of a zone were seen clear."""

    n_pixels: int
    n_clear: Counts
    """[T] int64: clear observations, summed over the pixels."""
    n_seen: Counts
    """[T] int64: pixels with at least one clear observation."""

    @property
    def share_filled(self) -> float:
        """Share of the steps of all pixels without a clear observation."""
        return 1 - float(self.n_seen.sum()) / (self.n_pixels * len(self.n_seen))


@dataclass(frozen=True, slots=True)
class ZoneSummary:
    """What the overview pictures need to know of one zone."""

    profiles: Profiles | None
    """Over legend class ids; None for a test zone, which stays unseen."""
    observations: Observations | None
    """None for a zone of points, which has no images."""


def series_of(cube: CubeSpec) -> tuple[str, ...]:
    """What a profile is drawn of: the vegetation index where the cube has its bands, and each band."""
    has_index = cube.positions((_RED, _NEAR_INFRARED)) is not None
    return (NDVI, *cube.band_ids) if has_index else cube.band_ids


def no_profiles(n_classes: int, cube: CubeSpec = STUDY_CUBE) -> Profiles:
    """Profiles without any pixel, to add to."""
    shape = (n_classes, len(series_of(cube)), cube.n_steps)
    return Profiles(np.zeros((*shape, N_BINS), np.int64), np.zeros(shape), cube)


def count_profiles(table: pa.Table, n_classes: int, cube: CubeSpec = STUDY_CUBE) -> Profiles:
    """Profiles of a table of `pixel_schema(cube)`: labels 0 … n_classes - 1, digital numbers, 0 = no data."""
    profiles = no_profiles(n_classes, cube)
    labels = table["label"].to_numpy().astype(np.int64)
    by_id = dict(zip(cube.band_ids, cube.bands, strict=True))
    for step, step_name in enumerate(cube.step_names):
        bands = {band: table[f"{band}_{step_name}"].to_numpy() for band in cube.band_ids}
        for series, name in enumerate(series_of(cube)):
            values, bins, seen = _values(bands[name], by_id[name]) if name in by_id else _ndvi(bands)
            cells = labels[seen] * N_BINS + bins[seen]
            profiles.counts[:, series, step] = np.bincount(cells, minlength=n_classes * N_BINS).reshape(-1, N_BINS)
            profiles.totals[:, series, step] = np.bincount(labels[seen], values[seen], n_classes)
    return profiles


def count_observations(n_obs: npt.NDArray[np.uint8]) -> Observations:
    """Sums over the pixels of a zone, from its counts [T, H, W]."""
    return Observations(n_obs[0].size, n_obs.sum((1, 2), dtype=np.int64), (n_obs > 0).sum((1, 2), dtype=np.int64))


def save_summary(summary: ZoneSummary, path: Location) -> None:
    """Write a summary whole; of profiles, only the classes that occur."""
    arrays: dict[str, Any] = {}
    if summary.profiles is not None:
        present = np.flatnonzero(summary.profiles.counts.any((1, 2, 3)))
        arrays["class_ids"] = present.astype(np.uint8)
        arrays["counts"] = summary.profiles.counts[present].astype(np.uint32)
        arrays["totals"] = summary.profiles.totals[present]
    if summary.observations is not None:
        seen = summary.observations
        arrays |= {"n_pixels": np.array(seen.n_pixels), "n_clear": seen.n_clear, "n_seen": seen.n_seen}
    with whole_file(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def read_summary(path: Location, lookup: npt.NDArray[np.uint8], cube: CubeSpec = STUDY_CUBE) -> ZoneSummary:
    """A summary that `save_summary` wrote, its profiles over class indices, by `Manifest.lookup()` ([256] uint8)."""
    n_classes = int((lookup != IGNORE).sum())
    with local_file(path) as file, np.load(file, allow_pickle=False) as arrays:
        profiles, observations = None, None
        if "class_ids" in arrays:
            profiles = no_profiles(n_classes, cube)
            rows = lookup[arrays["class_ids"]]
            profiles.counts[rows] = arrays["counts"]
            profiles.totals[rows] = arrays["totals"]
        if "n_pixels" in arrays:
            observations = Observations(int(arrays["n_pixels"]), arrays["n_clear"], arrays["n_seen"])
    return ZoneSummary(profiles, observations)


def _values(numbers: npt.NDArray[np.uint16], band: Band) -> _Step:
    values = numbers * band.scale + band.offset
    return values, np.minimum(numbers // _numbers_per_bin(band), N_BINS - 1), numbers != NODATA


def _numbers_per_bin(band: Band) -> int:
    """Of reflectance only what is below 1 is told apart; of others everything that can be stored."""
    return _DN_PER_BIN if band.is_plain_reflectance else -(-(LARGEST + 1) // N_BINS)


def _ndvi(bands: dict[str, npt.NDArray[np.uint16]]) -> _Step:
    red, near = bands[_RED].astype(np.float64), bands[_NEAR_INFRARED].astype(np.float64)
    seen = (bands[_RED] != NODATA) & (bands[_NEAR_INFRARED] != NODATA)
    values = (near - red) / np.maximum(near + red, 1)
    bins = np.minimum((values + 1) * (N_BINS / 2), N_BINS - 1).astype(np.int64)
    return values, bins, seen


def _bin_values(cube: CubeSpec) -> npt.NDArray[np.float64]:
    """[S, N_BINS] value at the centre of each bin."""
    centres = np.arange(N_BINS) + 0.5
    bands = [centres * _numbers_per_bin(band) * band.scale + band.offset for band in cube.bands]
    index = [] if series_of(cube) == cube.band_ids else [-1 + centres * (2 / N_BINS)]
    return np.vstack([*index, *bands])
