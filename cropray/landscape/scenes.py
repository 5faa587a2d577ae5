"""Scenes: the land of a region seen on one day, as digital numbers.

A pixel is the area-weighted mean of the land units in it, found on a finer grid once and applied to
every date: borders are mixed as a sensor mixes them.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.core.grid import Grid
from cropray.core.sensors import NODATA, REFLECTANCE_SCALE
from cropray.landscape import canopy, sky, spectra
from cropray.landscape.canopy import Stand
from cropray.landscape.fields import Canvas, Cell, burn
from cropray.landscape.regions import RegionStyle
from cropray.landscape.settings import LandscapeSettings

Floats = npt.NDArray[np.float64]

_OVERSAMPLING: Final = 4  # land units are resolved at 10 m / 4 = 2.5 m
_ZONE_LATENESS_DAYS: Final = 3.5  # standard deviation between the zones of a region
_DENSITY_SPREAD: Final = 0.07  # standard deviation of relative cover within a field
_NOISE: Final = 0.003  # standard deviation of the sensor's noise, reflectance
_CALIBRATION_SPREAD: Final = 0.025  # standard deviation of a scene's gain (atmospheric correction)
_MAX_DN: Final = 16_000


@dataclass(frozen=True, slots=True)
class Mixing:
    """Which land units make up each pixel: N pairs sorted by pixel, every pixel at least once."""

    unit: npt.NDArray[np.int64]
    """[N]."""
    share: Floats
    """[N] share of the pixel's area, 0–1."""
    first: npt.NDArray[np.int64]
    """[H·W] position of each pixel's first pair."""

    def average(self, values: Floats) -> Floats:
        """Area-weighted mean of a property `values` [U, C] of the units, [H·W, C]."""
        return np.add.reduceat(values[self.unit] * self.share[:, None], self.first, axis=0)


@dataclass(frozen=True, slots=True)
class Land:
    """Everything of a region that stays the same from scene to scene."""

    grid: Grid
    style: RegionStyle
    stand: Stand
    mixing: Mixing
    density: Floats
    """[H, W] relative cover within fields, mean 0."""
    derived: Stand
    """The stand in the bands that the described ones determine."""


def grow_land(canvas: Canvas, cells: list[Cell], style: RegionStyle, rng: np.random.Generator) -> Land:
    """Give a region's cells their canopies; the last unit is the verge between them."""
    canopies = [canopy.CROPS[cell.code] if cell.code else canopy.BACKGROUND[cell.background or ""] for cell in cells]
    zone_lateness = rng.normal(0, _ZONE_LATENESS_DAYS, len(canvas.zones))
    lateness = [0.0 if cell.zone_index is None else float(zone_lateness[cell.zone_index]) for cell in cells]
    stand = canopy.draw_stand([*canopies, canopy.BACKGROUND["verge"]], np.array([*lateness, 0.0]), style, rng)
    density = sky.smooth_noise(canvas.grid.shape, 12.0, rng) + sky.smooth_noise(canvas.grid.shape, 2.0, rng)
    derived = canopy.in_derived(stand, rng.spawn(1)[0])  # which leaves the other draws as they are
    spread = _DENSITY_SPREAD * density / np.sqrt(2)
    return Land(canvas.grid, style, stand, mix_units(cells, canvas.grid), spread, derived)


def mix_units(cells: list[Cell], grid: Grid) -> Mixing:
    """Shares of the land units in every pixel of a grid."""
    fine = burn(cells, grid, _OVERSAMPLING).astype(np.int64)
    n_units = len(cells) + 1
    rows, cols = (np.arange(n * _OVERSAMPLING) // _OVERSAMPLING for n in grid.shape)
    pixel = rows[:, None] * grid.width + cols[None, :]
    pairs, counts = np.unique(pixel * n_units + fine, return_counts=True)
    first = np.searchsorted(pairs, np.arange(grid.height * grid.width) * n_units)
    return Mixing(pairs % n_units, counts / _OVERSAMPLING**2, first)


def draw_scene(
    land: Land, settings: LandscapeSettings, acquired: dt.datetime, rng: np.random.Generator
) -> npt.NDArray[np.uint16]:
    """One acquisition: the bands of the settings and SCL, [C + 1, H, W] uint16, 0 = no data."""
    day = float(acquired.timetuple().tm_yday)
    ground = _ground(land, land.stand, day, spectra.IN_DESCRIBED)
    over = sky.draw_sky(settings, land.style, land.grid.shape, day, rng)
    rng_of_derived = rng.spawn(1)[0]  # which leaves the other draws as they are
    gains, haze = rng.normal(1, _CALIBRATION_SPREAD, ground.shape[-1:]), np.abs(rng.normal(0, 1))
    numbers = dict(zip(spectra.DESCRIBED, _numbers(ground, over, gains, haze, spectra.IN_DESCRIBED, rng), strict=True))
    scl = sky.classify_scene(ground, over, rng)
    if set(settings.bands) - set(numbers):
        ground = _ground(land, land.derived, day, spectra.IN_DERIVED)
        gains = rng_of_derived.normal(1, _CALIBRATION_SPREAD, ground.shape[-1:])
        derived = _numbers(ground, over, gains, haze, spectra.IN_DERIVED, rng_of_derived)
        numbers |= dict(zip(spectra.DERIVED, derived, strict=True))
    return np.stack([*(numbers[band] for band in settings.bands), scl]).astype(np.uint16)


def _ground(land: Land, stand: Stand, day: float, colours: spectra.Spectra) -> Floats:
    """[H, W, C] reflectance."""
    units, per_density = canopy.reflectance(stand, day, land.style.drought, colours)
    ground = land.mixing.average(units) + land.density.reshape(-1, 1) * land.mixing.average(per_density)
    return np.clip(ground, 0.005, 0.9).reshape(*land.grid.shape, -1)


def _numbers(
    ground: Floats, over: sky.Sky, gains: Floats, haze: float, colours: spectra.Spectra, rng: np.random.Generator
) -> Floats:
    """[C, H, W] digital numbers of what a satellite sees."""
    seen = sky.through_sky(ground, over, colours)
    seen = seen * gains + haze * colours.haze - colours.haze / 2
    seen += rng.normal(0, _NOISE, seen.shape)
    numbers = np.clip(np.rint(seen / REFLECTANCE_SCALE), NODATA + 1, _MAX_DN)
    numbers[~over.is_seen] = NODATA
    return numbers.transpose(2, 0, 1)
