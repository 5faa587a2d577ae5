"""The cube of a dataset: which bands and which steps of time a pixel has, and the days that a step covers.

A pixel is `[T steps, C bands]` of uint16 numbers, 0 = no data. In tables its columns are band-major, `<band>_<step>` with
steps from 01, so that one band's course over the season stands together.
"""

import datetime as dt
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from cropray.core.fingerprint import fingerprint
from cropray.core.sensors import SENTINEL_2, Band, known_band

Step = Literal["month", "half-month", "dekad", "16d", "season"]
STEPS: Final[tuple[Step, ...]] = get_args(Step)
_HALVES: Final = (1, 16)  # first days
_DEKADS: Final = (1, 11, 21)  # first days; the third dekad of a month has 8 to 11 days (source: WMO)
_MONTH_DAYS: Final = 365.25 / 12
_MOST_STEPS: Final = 255  # a pixel's clear steps are counted in a byte
_NOUNS: Final[Mapping[Step, str]] = {
    "month": "month", "half-month": "half-month", "dekad": "dekad", "16d": "16-day step", "season": "season",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CubeSpec:
    """Bands × steps. Saved in the manifest, the composites' tags and every model's card."""

    bands: tuple[Band, ...]
    step: Step = "month"
    months: int = 12
    """Length of the season."""

    def __post_init__(self) -> None:
        ids = self.band_ids
        twice = sorted({band for band in ids if ids.count(band) > 1})
        if not ids or twice:
            raise ValueError(f"a cube needs bands of unlike ids, got {list(ids)}")
        if self.months < 1:
            raise ValueError(f"a season has at least 1 month, got {self.months}")
        if self.n_steps > _MOST_STEPS:
            raise ValueError(
                f"a cube has at most {_MOST_STEPS} steps, got {self.n_steps}: take longer ones or a shorter season"
            )

    @property
    def band_ids(self) -> tuple[str, ...]:
        """In the cube's order."""
        return tuple(band.id for band in self.bands)

    @property
    def n_bands(self) -> int:
        """C."""
        return len(self.bands)

    @property
    def n_steps(self) -> int:
        """T; of any season of this length the same, whatever month it starts with."""
        match self.step:
            case "month":
                return self.months
            case "half-month":
                return self.months * len(_HALVES)
            case "dekad":
                return self.months * len(_DEKADS)
            case "16d":
                return max(1, round(self.months * _MONTH_DAYS / 16))
            case "season":
                return 1

    @property
    def shape(self) -> tuple[int, int]:
        """(T, C)."""
        return self.n_steps, self.n_bands

    @property
    def n_features(self) -> int:
        """T · C."""
        return self.n_steps * self.n_bands

    @property
    def step_names(self) -> tuple[str, ...]:
        """`01 … 12`; with as many digits as the last one has, two at least."""
        width = max(2, len(str(self.n_steps)))
        return tuple(f"{step:0{width}d}" for step in range(1, self.n_steps + 1))

    @property
    def columns(self) -> tuple[str, ...]:
        """`B02_01 … B08_12`, band-major."""
        return columns_of(self)

    @property
    def band_columns(self) -> tuple[str, ...]:
        """Those of the bands, which a cube with static features has others beside."""
        return columns_of(self)

    @property
    def static(self) -> tuple[Band, ...]:
        """Features without time, see `PointCube`; images have none."""
        return ()

    @property
    def static_ids(self) -> tuple[str, ...]:
        """In the cube's order."""
        return tuple(band.id for band in self.static)

    @property
    def noun(self) -> str:
        """What people call a step: `month`."""
        return _NOUNS[self.step]

    def describe(self) -> str:
        """For messages: `B02 B03 B04 B08 × 12 months`, with what tells bands of one id apart."""
        bands = " ".join(
            band.id
            if known_band(band.id) == band
            else f"{band.id} ({band.unit} = number × {band.scale:g} + {band.offset:g})"
            for band in self.bands
        )
        plural = "s" if self.n_steps > 1 else ""
        of_months = "" if self.step == "month" else f" of {self.months} months"
        return f"{bands} × {self.n_steps} {self.noun}{plural}{of_months}"

    def positions(self, band_ids: Sequence[str]) -> tuple[int, ...] | None:
        """Of some bands on the cube's axis of bands; None: it lacks one of them."""
        own = self.band_ids
        return tuple(map(own.index, band_ids)) if set(band_ids) <= set(own) else None

    def to_record(self) -> dict[str, Any]:
        """A JSON-able record; `from_record` reads it back."""
        return {"bands": [asdict(band) for band in self.bands], "step": self.step, "months": self.months}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "CubeSpec":
        """What `to_record` wrote.

        Raises:
            KeyError: it lacks a field.
            TypeError: a band has an unknown field, as of another version.
            ValueError: it is no cube.
        """
        if record["step"] not in STEPS:
            raise ValueError(f"steps are {STEPS}, not '{record['step']}'")
        return cls(tuple(Band(**band) for band in record["bands"]), record["step"], int(record["months"]))

    def fingerprint(self) -> str:
        """Of what the numbers mean; names for people and the names of other catalogues aside."""
        bands = [[band.id, band.unit, band.scale, band.offset] for band in self.bands]
        return fingerprint([bands, self.step, self.months])

    def in_content(self) -> dict[str, str]:
        """What an account says of the cube: nothing of the study's, so that what was made when there was no other stands."""
        own = self.fingerprint()
        return {} if own == STUDY_CUBE.fingerprint() else {"cube": own}


@dataclass(frozen=True, slots=True)
class PointCube(CubeSpec):
    """What points may have: static features beside the bands, as elevation. Their columns come last and are called by their ids."""

    static: tuple[Band, ...] = ()

    def __post_init__(self) -> None:
        CubeSpec.__post_init__(self)  # a class with slots knows no super()
        names = [*self.band_ids, *self.columns]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"static features need ids that nothing else has, got {twice} twice: rename them")

    @property
    def n_features(self) -> int:
        """T · C, and one of each static feature."""
        return len(self.columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the bands, then of the static features."""
        return (*self.band_columns, *self.static_ids)

    def describe(self) -> str:
        """For messages."""
        static = (f"{one.id} ({one.unit} = number × {one.scale:g} + {one.offset:g})" for one in self.static)
        return f"{CubeSpec.describe(self)}, static {' '.join(static)}"

    def to_record(self) -> dict[str, Any]:
        """A JSON-able record; `from_record` reads it back."""
        return {**CubeSpec.to_record(self), "static": [asdict(band) for band in self.static]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "PointCube":
        """What `to_record` wrote; raises as `CubeSpec.from_record`."""
        cube = CubeSpec.from_record(record)
        return cls(cube.bands, cube.step, cube.months, tuple(Band(**band) for band in record["static"]))

    def fingerprint(self) -> str:
        """Of what the numbers mean."""
        static = [[band.id, band.unit, band.scale, band.offset] for band in self.static]
        return fingerprint([CubeSpec.fingerprint(self), static])


@functools.lru_cache(maxsize=64)
def columns_of(cube: CubeSpec) -> tuple[str, ...]:
    """`CubeSpec.band_columns`."""
    return tuple(f"{band}_{step}" for band in cube.band_ids for step in cube.step_names)


STUDY_CUBE: Final = CubeSpec(tuple(b for b in SENTINEL_2.bands if b.id in ("B02", "B03", "B04", "B08")))
"""The original study's: four bands of 10 m, twelve months."""


def recorded_cube(record: Mapping[str, Any]) -> CubeSpec:
    """The cube that a card or a manifest keeps under `cube`; the study's where it keeps none.

    Raises:
        KeyError: it lacks a field.
        TypeError: a band has an unknown field, as of another version.
        ValueError: it is no cube.
    """
    if "static" in record.get("cube", ()):
        return PointCube.from_record(record["cube"])
    return CubeSpec.from_record(record["cube"]) if "cube" in record else STUDY_CUBE


@dataclass(frozen=True, slots=True)
class Season:
    """The days that a cube's steps cover."""

    first_month: str
    """`YYYY-MM`."""
    cube: CubeSpec = STUDY_CUBE

    def __post_init__(self) -> None:
        try:
            dt.date.fromisoformat(f"{self.first_month}-01")
        except ValueError:
            raise ValueError(f"season starts in '{self.first_month}'; write the first month as YYYY-MM") from None

    @property
    def steps(self) -> tuple[tuple[dt.date, dt.date], ...]:
        """(first day, day after the last) of each step; they follow each other and fill the season."""
        return tuple(itertools.pairwise((*self._starts(), self.end)))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the steps: `2023-05` for months, the first day `2023-05-11` for others."""
        form = "%Y-%m" if self.cube.step == "month" else "%Y-%m-%d"
        return tuple(f"{start:{form}}" for start, _ in self.steps)

    @property
    def start(self) -> dt.date:
        """First day."""
        return self._month(0)

    @property
    def middle(self) -> dt.date:
        """First day of the month in the middle: its year is the one that registers of parcels go by."""
        return self._month(self.cube.months // 2)

    @property
    def end(self) -> dt.date:
        """Day after the last."""
        return self._month(self.cube.months)

    def _starts(self) -> list[dt.date]:
        firsts = [self._month(position) for position in range(self.cube.months)]
        match self.cube.step:
            case "month":
                return firsts
            case "half-month":
                return [first.replace(day=day) for first in firsts for day in _HALVES]
            case "dekad":
                return [first.replace(day=day) for first in firsts for day in _DEKADS]
            case "16d":  # the last one ends with the season: it has some days more or fewer
                return [self.start + dt.timedelta(days=16 * position) for position in range(self.cube.n_steps)]
            case "season":
                return [self.start]

    def _month(self, position: int) -> dt.date:
        year, month = map(int, self.first_month.split("-"))
        return dt.date(year + (month - 1 + position) // 12, (month - 1 + position) % 12 + 1, 1)
