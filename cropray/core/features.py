"""Input features of pixel models: what is computed from the raw cube wherever a model is trained, scored, mapped or served.

Every feature is a uint16 number with 0 = missing, as the cube's own are: so models keep one form of input, bins stay
exact and missing stays missing. An index is stored evenly over its range, 1 … 65535; what leaves the range is stored as its
end, and every fit says of how many values it looked at that is true (`FeatureSet.beyond`).

A job names features in a list:

    bands                    every band at every step, as stored
    ndvi                     an index at every step; `INDICES` holds those that are known by name
    wet[-1,1]=(B03-B11)/(B03+B11)
                             an index by formula over band ids, in physical values; its range may be left out: [-1,1]
    differences              of every series in the list, between one step and the next
    quantiles                of every series in the list: 10, 25, 50, 75, 90 % of the steps that are there
    phenology                of every index: largest value, its step, first and last step above half of the amplitude
    band_phenology           the same of every series in the list

Static features of the cube are always there, after those of the list and as they are stored.

What gives no column is refused: `phenology` without an index, `differences` of a single step. What a job may write beside (roles
of bands, features that may be missing) is resolved before by `cropray.core.feature_choice`. Another feature of series is a
class that is registered (`@FEATURES.register("slope")`), in this file or in one's own.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from cropray.core.cube import STUDY_CUBE, CubeSpec, PointCube
from cropray.core.errors import ConfigError
from cropray.core.registry import Registry
from cropray.core.sensors import LARGEST, NODATA

Numbers = npt.NDArray[np.uint16]
Values = npt.NDArray[np.float64]
INDICES: Final[Mapping[str, str]] = {
    "ndvi": "(B08-B04)/(B08+B04)",  # Rouse et al. 1974
    "gndvi": "(B08-B03)/(B08+B03)",  # Gitelson et al. 1996
    "ndwi": "(B03-B08)/(B03+B08)",  # McFeeters 1996
    "ndmi": "(B08-B11)/(B08+B11)",  # Gao 1996, as of Sentinel-2's bands
    "ndre": "(B8A-B05)/(B8A+B05)",  # Barnes et al. 2000, as of Sentinel-2's bands
    "nbr": "(B08-B12)/(B08+B12)",  # Key and Benson 2006
    "evi": "2.5*(B08-B04)/(B08+6*B04-7.5*B02+1)",  # Huete et al. 2002
    "savi": "1.5*(B08-B04)/(B08+B04+0.5)",  # Huete 1988
}
_RANGES: Final[Mapping[str, tuple[float, float]]] = {"evi": (-1.0, 2.0)}  # of known ones, where it is not [-1,1]
BANDS: Final = "bands"
_ZERO: Final = 32_768  # stored number of no difference
_STEP: Final = 64  # stored number of one step of time: 1,023 steps at most
_OWN: Final = re.compile(r"(?P<name>\w+)(\[(?P<low>[^,\]]+),(?P<high>[^,\]]+)\])?=(?P<formula>.+)")
_OPERATORS: Final[Mapping[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.USub: operator.neg, ast.UAdd: operator.pos,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Index:
    """One value per step, by a formula over band ids."""

    name: str
    formula: str
    low: float = -1.0
    high: float = 1.0

    def values(self, bands: Mapping[str, Values]) -> Values:
        """Of physical values, where NaN is missing; NaN where a band of the formula is, and where a division by 0 gives none."""
        tree = ast.parse(self.formula, mode="eval").body
        with np.errstate(all="ignore"):
            values = np.asarray(_evaluate(tree, bands), np.float64)
        is_missing = np.any([np.isnan(bands[name]) for name in _names(tree)], axis=0)  # NaN ** 0 is 1
        return np.where(np.isfinite(values) & ~is_missing, values, np.nan)

    def compute(self, bands: Mapping[str, Values]) -> Numbers:
        """Stored numbers of `values`."""
        values = self.values(bands)
        share = np.clip((values - self.low) / (self.high - self.low), 0, 1)
        return np.where(np.isnan(values), NODATA, 1 + np.rint(share * (LARGEST - 1))).astype(np.uint16)


class Derived:
    """A feature that is made of each series of the list: of every band and every index."""

    of_bands: ClassVar[bool] = True
    """False: of indices only."""

    def columns(self, series: str, steps: Sequence[str]) -> Sequence[str]:
        """Names of what is made of one series; none where there are too few steps.

        Args:
            series: its name, `B02` or `ndvi`.
            steps: names of the steps, `01 …`.
        """
        raise NotImplementedError

    def compute(self, series: Numbers) -> Numbers:
        """[N, T] stored numbers → [N, columns] uint16 numbers, 0 = missing."""
        raise NotImplementedError


FEATURES: Final[Registry[Derived]] = Registry("feature")


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """The features of one model: made from a job's list and the cube, saved in the model's card."""

    cube: CubeSpec | PointCube  # both are named, as code is followed by the names of types
    names: tuple[str, ...] = (BANDS,)

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigError("'features' is empty: a model needs one at least; write [bands] for the cube as it is")
        for name in self.names:
            if not self._columns_of(name):
                feature = self._derived(name)
                of_any = "two steps" if self._series else "bands or an index"
                needs = of_any if feature is None or feature.of_bands else "an index, such as ndvi"
                raise ConfigError(
                    f"features: '{name}' gives nothing here, it needs {needs}: add that, or leave '{name}' out"
                )
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise ConfigError(
                f"features: the columns {twice[:3]} come twice; name each feature once, and static ones otherwise"
            )

    @property
    def is_raw(self) -> bool:
        """Whether they are the cube's columns as they are."""
        return self.names == (BANDS,)

    @property
    def indices(self) -> tuple[Index, ...]:
        """In the order of the list."""
        derived = FEATURES.known()
        return tuple(self._index(name) for name in self.names if name != BANDS and name not in derived)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the features, in order: `B02_01 …`, `ndvi_01 …`, `d_ndvi_02 …`, `ndvi_q10 …`, `ndvi_top …`, `elevation …`."""
        return (*(column for name in self.names for column in self._columns_of(name)), *self.cube.static_ids)

    @property
    def derived(self) -> tuple[type[Derived], ...]:
        """Classes that it looks up by their names."""
        known = FEATURES.known()
        return tuple(known[name] for name in self.names if name in known)

    def _columns_of(self, name: str) -> Sequence[str]:
        steps = self.cube.step_names
        if name == BANDS:
            return self.cube.band_columns
        if (feature := self._derived(name)) is not None:
            return [column for series in self._series_of(feature) for column in feature.columns(series, steps)]
        return [f"{self._index(name).name}_{step}" for step in steps]

    def compute(self, raw: Numbers) -> Numbers:
        """Features of pixels.

        Args:
            raw: [N, C · T + static] stored numbers in the order of `CubeSpec.columns`, 0 = no data.

        Returns:
            [N, F] uint16 in the order of `columns`, 0 = missing.
        """
        if self.is_raw:
            return raw
        series, n = self._compute_series(raw), len(self.cube.band_columns)
        parts: list[Numbers] = []
        for name in self.names:
            if name == BANDS:
                parts.append(raw[:, :n])
            elif (feature := self._derived(name)) is not None:
                parts += [feature.compute(series[each]) for each in self._series_of(feature)]
            else:
                parts.append(series[self._index(name).name])
        return np.concatenate([*parts, raw[:, n:]], axis=1)

    def beyond(self, raw: Numbers) -> dict[str, tuple[int, int]]:
        """Of each index how many values of pixels, as `compute` has them, leave its range, and how many there are."""
        physical, found = self._physical(self._by_band(raw)), dict[str, tuple[int, int]]()
        for index in self.indices:
            values = index.values(physical)
            n = np.count_nonzero((values < index.low) | (values > index.high))
            found[index.name] = int(n), int((~np.isnan(values)).sum())
        return found

    @property
    def _series(self) -> list[str]:
        """What has a value at every step: bands, if they are features, and indices."""
        bands = self.cube.band_ids if BANDS in self.names else ()
        return [*bands, *(index.name for index in self.indices)]

    def _series_of(self, feature: Derived) -> list[str]:
        return self._series if feature.of_bands else [index.name for index in self.indices]

    @staticmethod
    def _derived(name: str) -> Derived | None:
        known = FEATURES.known()
        return known[name]() if name in known else None

    def _compute_series(self, raw: Numbers) -> dict[str, Numbers]:
        """Band or index → [N, T]."""
        found = self._by_band(raw)
        if indices := self.indices:
            physical = self._physical(found)
            found |= {index.name: index.compute(physical) for index in indices}
        return found

    def _by_band(self, raw: Numbers) -> dict[str, Numbers]:
        bands = raw[:, : len(self.cube.band_columns)]
        series = bands.reshape(len(raw), self.cube.n_bands, self.cube.n_steps)
        return {band: series[:, position] for position, band in enumerate(self.cube.band_ids)}

    def _physical(self, found: Mapping[str, Numbers]) -> dict[str, Values]:
        """Band → [N, T] values in its unit, NaN where there is no data."""
        return {
            band.id: np.where(found[band.id] == NODATA, np.nan, found[band.id] * band.scale + band.offset)
            for band in self.cube.bands
        }

    def _index(self, text: str) -> Index:
        return index_of(text, self.cube.band_ids)


def index_of(text: str, band_ids: Sequence[str]) -> Index:
    """An index by its name, or by a formula of the job's.

    Raises:
        ConfigError: it is not known, or its formula cannot be computed from these bands.
    """
    match = _OWN.fullmatch(text.replace(" ", ""))
    if match is None and text not in INDICES:
        known = ", ".join([BANDS, *FEATURES.known(), *INDICES])
        raise ConfigError(
            f"features: '{text}' is not known; write one of {known}, or an index as name=(B08-B04)/(B08+B04)"
        )
    try:
        name, formula = (text, INDICES[text]) if match is None else (match["name"], match["formula"])
        low, high = _RANGES.get(text, (-1.0, 1.0))
        if match is not None and match["low"] is not None:
            low, high = float(match["low"]), float(match["high"])
        used = _names(ast.parse(formula, mode="eval").body)
    except (SyntaxError, ValueError) as error:
        raise ConfigError(
            f"features: '{text}' cannot be read ({error}); write it as name[-1,1]=(B08-B04)/(B08+B04)"
        ) from None
    if not used:
        raise ConfigError(f"features: '{text}' names no band: it would be one number for all pixels")
    if missing := sorted(used - set(band_ids)):
        raise ConfigError(f"features: '{text}' needs the bands {missing}; this cube has {', '.join(band_ids)}")
    if not -math.inf < low < high < math.inf:
        raise ConfigError(f"features: the range of '{text}' must rise and have ends, got {low:g} to {high:g}")
    return Index(name, formula, low, high)


def as_floats(numbers: Numbers) -> npt.NDArray[np.float32]:
    """Stored numbers as libraries of trees take them: NaN where they are missing."""
    floats = numbers.astype(np.float32)
    floats[numbers == NODATA] = np.nan
    return floats


def _names(node: ast.AST) -> set[str]:
    """Band ids of a formula; anything but names, numbers and arithmetic is refused."""
    match node:
        case ast.Name():
            return {node.id}
        case ast.Constant(value=int() | float()):
            return set()
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _names(node.left) | _names(node.right)
        case ast.UnaryOp() if type(node.op) in _OPERATORS:
            return _names(node.operand)
    raise ValueError("only band ids, numbers, + - * / ** and parentheses are understood")


def _evaluate(node: ast.AST, bands: Mapping[str, Values]) -> Any:
    match node:
        case ast.Name():
            return bands[node.id]
        case ast.BinOp():
            return _OPERATORS[type(node.op)](_evaluate(node.left, bands), _evaluate(node.right, bands))
        case ast.UnaryOp():
            return _OPERATORS[type(node.op)](_evaluate(node.operand, bands))
    assert isinstance(node, ast.Constant)
    return np.float64(node.value)  # type: ignore[arg-type]  # Python's own numbers raise where they overflow, or turn complex


@FEATURES.register("differences")
class Differences(Derived):
    """A step less the step before, around 32768; missing where one of them is."""

    def columns(self, series: str, steps: Sequence[str]) -> Sequence[str]:
        """See `Derived.columns`."""
        return [f"d_{series}_{step}" for step in steps[1:]]

    def compute(self, series: Numbers) -> Numbers:
        """See `Derived.compute`."""
        whole = series.astype(np.int32)
        shifted = np.clip(np.diff(whole, axis=1) + _ZERO, 1, LARGEST)
        return np.where((whole[:, 1:] == NODATA) | (whole[:, :-1] == NODATA), NODATA, shifted).astype(np.uint16)


@FEATURES.register("quantiles")
class Quantiles(Derived):
    """Of the steps that are there, the value of the lower rank; missing where none is."""

    percent: ClassVar = (10, 25, 50, 75, 90)

    def columns(self, series: str, steps: Sequence[str]) -> Sequence[str]:  # noqa: ARG002
        """See `Derived.columns`."""
        return [f"{series}_q{percent}" for percent in self.percent]

    def compute(self, series: Numbers) -> Numbers:
        """See `Derived.compute`."""
        ordered = np.sort(np.where(series == NODATA, LARGEST + 1, series.astype(np.int32)), axis=1)
        n = (series != NODATA).sum(1)
        ranks = np.stack([np.maximum(n - 1, 0) * percent // 100 for percent in self.percent], axis=1)
        return np.where(n[:, None] > 0, np.take_along_axis(ordered, ranks, 1), NODATA).astype(np.uint16)


@FEATURES.register("phenology")
class Phenology(Derived):
    """Largest value, its step, first and last step above half of the amplitude; steps × 64, from 64 on."""

    of_bands = False

    def columns(self, series: str, steps: Sequence[str]) -> Sequence[str]:  # noqa: ARG002
        """See `Derived.columns`."""
        return [f"{series}_{what}" for what in ("top", "top_step", "rise_step", "fall_step")]

    def compute(self, series: Numbers) -> Numbers:
        """See `Derived.compute`."""
        there = series != NODATA
        top = series.max(1).astype(np.int32)
        least = np.where(there, series, LARGEST).min(1).astype(np.int32)
        above = there & (2 * series.astype(np.int32) >= (top + least)[:, None])
        n_steps = series.shape[1]
        steps = [series.argmax(1), above.argmax(1), n_steps - 1 - above[:, ::-1].argmax(1)]
        found = np.stack([top, *(_STEP * (step + 1) for step in steps)], axis=1)
        return np.where(there.any(1)[:, None], np.minimum(found, LARGEST), NODATA).astype(np.uint16)


@FEATURES.register("band_phenology")
class BandPhenology(Phenology):
    """The same of bands as well."""

    of_bands = True


STUDY_FEATURES: Final = FeatureSet(STUDY_CUBE)
"""The original study's: its cube as it is."""


def entries_of_features(names: Sequence[str]) -> Sequence[type]:
    """The registered classes among what a setting `features` names."""
    known = FEATURES.known()
    return tuple(known[name] for name in names if name in known)
