"""What grows: green cover through the year and the reflectance that follows from it.

Green cover is a double logistic curve of the day of year (Beck et al. 2006, "Improved monitoring of
vegetation dynamics at very high latitudes", eq. 3). Reflectance mixes a canopy, a dry-residue and a
soil spectrum by cover (linear mixing). Dates and spectra are typical values, not measurements.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.landscape import spectra
from cropray.landscape.regions import EXCLUDED_CODE, UNKNOWN_CODE, RegionStyle, Spectrum

Floats = npt.NDArray[np.float64]

_CUT_RECOVERY_DAYS: Final = 16.0  # grass regains 1 - 1/e of its cover
_CUT_LOSS: Final = 0.6  # share of the cover that a cut takes away
_STUBBLE_SPAN_DAYS: Final = 5.0
_CATCH_CROP_DAY: Final = 268.0  # half of a catch crop's or volunteers' cover has grown


@dataclass(frozen=True, slots=True)
class Canopy:
    """A land cover: the year of its green cover, and its colours."""

    green: Spectrum
    """Reflectance under full green cover."""
    greenup_day: float
    """Day of year at which half of the spring growth is done, in the Paris basin."""
    dieback_day: float
    """Day of year at which half of the green cover is gone."""
    winter_cover: float
    """Cover before spring growth, 0–1."""
    peak_cover: float
    rest_cover: float = 0.06
    """Cover after dieback."""
    greenup_span: float = 11.0
    """Width of the spring logistic, days."""
    dieback_span: float = 7.0
    catch_crop: float = 0.0
    """Probability of an autumn cover after harvest."""
    cut_days: tuple[float, ...] = ()
    uncut_share: float = 0.0
    """Share of the parcels that are grazed or left, not cut."""
    flower_day: float | None = None
    flower: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    """Reflectance added at full bloom."""
    residue: float = 1.0
    """Share of the bare ground that dry residue covers after dieback, 0–1."""
    is_dry_grass: bool = False
    """Whether summer drought browns it."""


_CEREAL: Final[Spectrum] = (0.022, 0.048, 0.028, 0.430)
_GRASS: Final[Spectrum] = (0.028, 0.065, 0.042, 0.400)
_BROADLEAF: Final[Spectrum] = (0.024, 0.062, 0.032, 0.500)

CROPS: Final[dict[str, Canopy]] = {
    "BTH": Canopy(_CEREAL, 88, 182, 0.22, 0.92, catch_crop=0.40),
    "TTH": Canopy((0.023, 0.052, 0.030, 0.420), 84, 189, 0.30, 0.94, catch_crop=0.40),
    "BDH": Canopy((0.026, 0.054, 0.033, 0.400), 84, 173, 0.20, 0.86, catch_crop=0.25),
    "ORH": Canopy((0.025, 0.058, 0.034, 0.420), 82, 163, 0.28, 0.92, catch_crop=0.45),
    "ORP": Canopy((0.024, 0.053, 0.031, 0.430), 112, 190, 0.05, 0.88, catch_crop=0.45),
    "CZH": Canopy(
        _BROADLEAF, 72, 170, 0.42, 0.92, dieback_span=9, catch_crop=0.55, flower_day=112, flower=(0.02, 0.09, 0.10, 0)
    ),
    "PPR": Canopy((0.026, 0.064, 0.036, 0.440), 112, 173, 0.05, 0.88, catch_crop=0.50),
    "MIS": Canopy((0.026, 0.056, 0.034, 0.440), 174, 264, 0.05, 0.92, dieback_span=10, residue=0.8),
    "TRN": Canopy(
        (0.028, 0.064, 0.038, 0.450), 164, 242, 0.05, 0.86, dieback_span=8, flower_day=196, flower=(0.005, 0.03, 0.04, 0)
    ),
    "SOJ": Canopy((0.024, 0.062, 0.030, 0.500), 176, 258, 0.05, 0.92, dieback_span=8),
    "BTN": Canopy((0.026, 0.064, 0.032, 0.520), 152, 302, 0.05, 0.93, dieback_span=12, residue=0.1),
    "PTC": Canopy((0.026, 0.066, 0.034, 0.500), 158, 245, 0.05, 0.92, dieback_span=10, residue=0.1),
    "LUZ": Canopy((0.026, 0.062, 0.036, 0.430), 80, 325, 0.42, 0.90, 0.45, cut_days=(140, 182, 226, 268)),
    "PPH": Canopy(_GRASS, 78, 322, 0.52, 0.86, 0.55, cut_days=(150, 235), uncut_share=0.45, is_dry_grass=True),
    "PTR": Canopy(_GRASS, 74, 325, 0.50, 0.90, 0.55, cut_days=(138, 186, 250), uncut_share=0.25, is_dry_grass=True),
    "JAC": Canopy(_GRASS, 90, 305, 0.42, 0.78, 0.40, cut_days=(180,), uncut_share=0.6, is_dry_grass=True),
    "VRC": Canopy((0.030, 0.058, 0.042, 0.350), 136, 296, 0.18, 0.56, 0.18, greenup_span=14, residue=0.15),
    "VRG": Canopy((0.030, 0.058, 0.040, 0.370), 108, 312, 0.32, 0.68, 0.30, greenup_span=13, residue=0.15),
    "LAV": Canopy(
        (0.045, 0.062, 0.062, 0.300), 122, 205, 0.22, 0.55, 0.26, greenup_span=14, residue=0.1,
        flower_day=182, flower=(0.025, 0.005, 0.015, 0.03),
    ),
}  # fmt: skip
CROPS.update({EXCLUDED_CODE: CROPS["JAC"], UNKNOWN_CODE: CROPS["ORP"]})

BACKGROUND: Final = {
    "wood": Canopy((0.018, 0.034, 0.020, 0.330), 112, 305, 0.55, 0.97, 0.55, residue=0.0),
    "village": Canopy((0.060, 0.090, 0.080, 0.300), 110, 300, 0.25, 0.40, 0.25, residue=0.9),
    "verge": Canopy(_GRASS, 90, 310, 0.45, 0.75, 0.45, residue=0.6, is_dry_grass=True),
}
"""Land that no farmer declares: it stays unlabelled."""


@dataclass(frozen=True, slots=True)
class Stand:
    """The land units of a region with their own dates and colours; U units in each array."""

    canopies: tuple[Canopy, ...]
    greenup_day: Floats
    dieback_day: Floats
    tilled_day: Floats
    """Day at which residue is ploughed in."""
    vigour: Floats
    """Factor on peak cover."""
    winter_vigour: Floats
    """Factor on the cover outside the growing season."""
    catch_cover: Floats
    """Cover of the autumn catch crop, 0 where there is none."""
    is_cut: npt.NDArray[np.bool_]
    cut_shift_days: Floats
    green: Floats
    """[U, C] reflectance under full green cover."""
    soil: Floats
    """[U, C] reflectance of the bare soil."""


def draw_stand(
    canopies: Sequence[Canopy], lateness_days: Floats, style: RegionStyle, rng: np.random.Generator
) -> Stand:
    """Give every land unit its own year; `rng` is the source of the variation between the U units.

    `lateness_days` [U] says how much later than its region a unit is, days (its zone's climate).
    """
    n = len(canopies)
    shift = style.phenology_shift_days + lateness_days + rng.normal(0, 7.0, n)
    dieback = _each(canopies, "dieback_day") + 0.8 * shift + rng.normal(0, 5.0, n)
    has_catch_crop = rng.random(n) < _each(canopies, "catch_crop")
    return Stand(
        canopies=tuple(canopies),
        greenup_day=_each(canopies, "greenup_day") + shift + rng.normal(0, 4.0, n),
        dieback_day=dieback,
        tilled_day=dieback + 18 + rng.exponential(35.0, n),
        vigour=np.clip(rng.normal(0.97, 0.09, n), 0.55, 1.08),
        winter_vigour=np.clip(rng.normal(1, 0.2, n), 0.4, 1.5),
        catch_cover=np.where(has_catch_crop, rng.uniform(0.25, 0.75, n), 0.0),
        is_cut=rng.random(n) >= _each(canopies, "uncut_share"),
        cut_shift_days=shift + rng.normal(0, 9.0, n),
        green=_each(canopies, "green") * rng.normal(1, 0.08, (n, 1)) * rng.normal(1, 0.04, (n, 4)),
        soil=np.asarray(style.soil) * rng.normal(1, 0.12, (n, 1)) * rng.normal(1, 0.04, (n, 4)),
    )


def in_derived(stand: Stand, rng: np.random.Generator) -> Stand:
    """The same units in the bands that the described ones determine, each with shades of its own."""
    n = len(stand.canopies)
    shades = (rng.normal(1, 0.06, (n, 1)) * rng.normal(1, 0.03, (n, len(spectra.DERIVED))) for _ in range(2))
    leaf_shade, soil_shade = shades
    canopies = tuple(replace(canopy, flower=tuple(spectra.green(np.array(canopy.flower)))) for canopy in stand.canopies)
    return replace(
        stand,
        canopies=canopies,
        green=spectra.green(stand.green) * leaf_shade,
        soil=np.maximum(spectra.dry(stand.soil), 0.01) * soil_shade,
    )


def reflectance(
    stand: Stand, day: float, drought: float, colours: spectra.Spectra = spectra.IN_DESCRIBED
) -> tuple[Floats, Floats]:
    """Reflectance of the U units on a day of the year, 1–366, and how it answers to a denser or thinner canopy.

    `drought` is the share of the green cover that grassland loses in August, 0–1; `colours` are in the stand's bands.

    Returns:
        [U, C] reflectance 0–1, and [U, C] its change per unit of relative cover.
    """
    cover = green_cover(stand, day, drought)[:, None]
    dry = _each(stand.canopies, "residue") * _rise(day, stand.dieback_day, _STUBBLE_SPAN_DAYS)
    dry = (dry * (1 - _rise(day, stand.tilled_day, _STUBBLE_SPAN_DAYS)))[:, None]
    ground = dry * colours.straw + (1 - dry) * stand.soil
    canopy = stand.green + _bloom(stand, day)
    return cover * canopy + (1 - cover) * ground, cover * (canopy - ground)


def green_cover(stand: Stand, day: float, drought: float) -> Floats:
    """Green cover of every unit on one day, [U], 0–1."""
    winter, peak, rest = (_each(stand.canopies, name) for name in ("winter_cover", "peak_cover", "rest_cover"))
    winter, rest = winter * stand.winter_vigour, rest * stand.winter_vigour
    peak = np.maximum(peak * stand.vigour, winter)
    grown = _rise(day, stand.greenup_day, _each(stand.canopies, "greenup_span"))
    gone = _rise(day, stand.dieback_day, _each(stand.canopies, "dieback_span"))
    cover = winter + (peak - winter) * grown - (peak - rest) * gone
    cover = cover * _left_by_cuts(stand, day)
    cover = cover * (1 - drought * _each(stand.canopies, "is_dry_grass") * np.exp(-(((day - 222) / 38) ** 2)))
    cover = np.maximum(cover, stand.catch_cover * _rise(day, np.full_like(cover, _CATCH_CROP_DAY), 9.0))
    clipped: Floats = np.clip(cover, 0.0, 1.0)
    return clipped


def _left_by_cuts(stand: Stand, day: float) -> Floats:
    left = np.ones(len(stand.canopies))
    for unit in np.flatnonzero(stand.is_cut):
        since = day - stand.cut_shift_days[unit] - np.array(stand.canopies[unit].cut_days)
        left[unit] = np.prod(1 - _CUT_LOSS * np.exp(-since[since >= 0] / _CUT_RECOVERY_DAYS))
    return left


def _bloom(stand: Stand, day: float) -> Floats:
    """Reflectance added by flowers, [U, C]; bloom lasts about three weeks and follows green-up."""
    lateness = stand.greenup_day - _each(stand.canopies, "greenup_day")
    peak = np.array([canopy.flower_day or 0.0 for canopy in stand.canopies]) + lateness
    strength: Floats = np.exp(-(((day - peak) / 11) ** 2))
    return strength[:, None] * _each(stand.canopies, "flower")


def _rise(day: float, middle_day: Floats, span_days: Floats | float) -> Floats:
    """Logistic step from 0 to 1 around a day."""
    step: Floats = 1 / (1 + np.exp(-(day - middle_day) / span_days))
    return step


def _each(canopies: Sequence[Canopy], name: str) -> Floats:
    """One property of every unit as an array, [U] or [U, C]."""
    return np.array([getattr(canopy, name) for canopy in canopies], dtype=np.float64)
