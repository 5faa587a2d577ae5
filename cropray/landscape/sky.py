"""The sky: when a satellite passes, and which clouds, shadows and gaps it sees.

Clouds are thresholded smooth noise. The scene classification is as imperfect as the real one: the thin
rims of clouds and their weak shadows stay in pixels that it calls clear.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.landscape.regions import RegionStyle
from cropray.landscape.settings import LandscapeSettings
from cropray.landscape.spectra import IN_DESCRIBED, Spectra

Floats = npt.NDArray[np.float64]

# Scene classes of Sentinel-2 L2A that are drawn (ESA).
SCL_NODATA: Final = 0
SCL_SHADOW: Final = 3
SCL_VEGETATION: Final = 4
SCL_BARE: Final = 5
SCL_UNCLASSIFIED: Final = 7
SCL_CLOUD_MEDIUM: Final = 8
SCL_CLOUD_HIGH: Final = 9
SCL_CIRRUS: Final = 10

_SHADOW_LOSS: Final = 0.6  # share of the light that a thick cloud takes from the ground
_DETECTED_CLOUD: Final = 0.10  # thickness from which the classification sees a cloud, 0–1
_DETECTED_SHADOW: Final = 0.25
_PASSES: Final = (-1, 0, 0, 1, 2)  # acquisitions of a month, relative to the typical number
_PARTIAL_SWATH_SHARE: Final = 0.1  # scenes of which the swath edge cuts off a corner


@dataclass(frozen=True, slots=True)
class Sky:
    """What lies between the ground and the satellite; arrays [H, W]."""

    cloud: Floats
    """Opacity 0–1."""
    cirrus: Floats
    """Opacity 0–1 of thin high cloud."""
    shadow: Floats
    """Cloud shadow on the ground, 0–1."""
    is_seen: npt.NDArray[np.bool_]
    """Inside the swath."""


def acquisition_times(settings: LandscapeSettings, rng: np.random.Generator) -> Iterator[dt.datetime]:
    """The passes over a region in time order, UTC; some months have none."""
    for month in range(settings.first_month - 1, settings.first_month + 11):
        first = dt.datetime(settings.year + month // 12, month % 12 + 1, 1, 10, 46, tzinfo=dt.UTC)
        n_scenes = max(1, settings.scenes_per_month + int(rng.choice(_PASSES)))
        days = np.sort(rng.choice(28, size=n_scenes, replace=False))
        seconds = rng.integers(0, 24 * 60, size=n_scenes)
        if rng.random() < settings.missing_month_share:
            continue
        for day, second in zip(days, seconds, strict=True):
            yield first + dt.timedelta(days=int(day), seconds=int(second))


def draw_sky(
    settings: LandscapeSettings, style: RegionStyle, shape: tuple[int, int], day: float, rng: np.random.Generator
) -> Sky:
    """The sky over a canvas on one day of the year."""
    winter = 0.5 + 0.5 * np.cos(2 * np.pi * (day - 10) / 365)
    mean_cover = np.clip(style.cloudiness * (0.7 + 0.6 * winter), 0.02, 0.9)
    cover = rng.beta(1.1 * mean_cover, 1.1 * (1 - mean_cover))  # mostly clear or mostly cloudy
    if rng.random() < settings.overcast_share * (0.5 + winter):
        cover = 1.0
    cloud = _patches(shape, cover, 9.0, rng)
    cirrus = _patches(shape, rng.beta(0.4, 2.0) if rng.random() < 0.25 else 0.0, 25.0, rng)
    height_px = rng.integers(4, 11)  # the sun stands in the south-east: shadows fall to the north-west
    shadow = np.roll(cloud, (-int(height_px), -int(height_px * 0.4)), axis=(0, 1))
    return Sky(cloud, cirrus, shadow, _swath(shape, rng))


def through_sky(ground: Floats, sky: Sky, spectra: Spectra = IN_DESCRIBED) -> Floats:
    """Reflectance as the satellite sees it, [H, W, C], from that of the ground; in the bands of some spectra."""
    lit = ground * (1 - _SHADOW_LOSS * sky.shadow)[..., None]
    hazy = _cover(lit, sky.cirrus * 0.5, spectra.cirrus)
    return _cover(hazy, sky.cloud, spectra.cloud)


def classify_scene(ground: Floats, sky: Sky, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The scene classification, [H, W] uint8."""
    red, nir = ground[..., 2], ground[..., 3]
    ndvi = (nir - red) / (nir + red)
    scl = np.where(ndvi > 0.35, SCL_VEGETATION, SCL_BARE)
    scl[rng.random(scl.shape) < 0.03] = SCL_UNCLASSIFIED
    scl[sky.shadow > _DETECTED_SHADOW] = SCL_SHADOW
    scl[sky.cirrus > 0.3] = SCL_CIRRUS
    scl[sky.cloud > _DETECTED_CLOUD] = SCL_CLOUD_MEDIUM
    scl[sky.cloud > 0.6] = SCL_CLOUD_HIGH
    scl[~sky.is_seen] = SCL_NODATA
    return scl.astype(np.uint8)


def smooth_noise(shape: tuple[int, int], scale_px: float, rng: np.random.Generator) -> Floats:
    """Gaussian noise of mean 0 and variance 1, correlated over about `scale_px` pixels, [H, W]."""
    pad = 2 * int(scale_px)  # the filter is periodic: what wraps around is cut off
    rows, cols = shape[0] + pad, shape[1] + pad
    frequency2 = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.rfftfreq(cols)[None, :] ** 2
    spectrum = np.fft.rfft2(rng.normal(size=(rows, cols))) * np.exp(-2 * (np.pi * scale_px) ** 2 * frequency2)
    field = np.fft.irfft2(spectrum, s=(rows, cols))[: shape[0], : shape[1]]
    noise: Floats = (field - field.mean()) / max(float(field.std()), 1e-12)
    return noise


def _patches(shape: tuple[int, int], cover: float, scale_px: float, rng: np.random.Generator) -> Floats:
    """Soft-edged patches that cover a share of the canvas: opacity, [H, W]."""
    if cover > 0.985:
        return np.ones(shape)
    if cover < 0.015:
        return np.zeros(shape)
    field = smooth_noise(shape, scale_px, rng) + 0.35 * smooth_noise(shape, scale_px / 4, rng)
    return np.clip((field - np.quantile(field, 1 - cover)) / 0.45, 0, 1)


def _swath(shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """True inside the swath; its edge, if it crosses the canvas, runs from north-north-east."""
    edge = rng.uniform(0.1, 0.5)
    is_partial = rng.random() < _PARTIAL_SWATH_SHARE
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    inside: npt.NDArray[np.bool_] = cols + 0.2 * rows > edge * shape[1]
    return inside if is_partial else np.ones(shape, dtype=np.bool_)


def _cover(below: Floats, opacity: Floats, colour: Floats) -> Floats:
    return below * (1 - opacity[..., None]) + colour * opacity[..., None]
