"""The legend: which crop code belongs to which class, and what a class is called.

A job may bring its own (`cropray.parcels.legend_file`); this module holds the form of all, and the one that comes with cropray.

The bundled legend is the three-level tree of Turkoglu et al. (2021, "Crop mapping from image time
series: deep learning with multi-scale label hierarchies", arXiv 2102.08820), extended by the classes that
France has and Zurich has not. Codes are those of the French parcel register (RPG), whose table changed in 2023: 21 codes
were added, others were withdrawn or took another meaning. The code table therefore says for which years a code means what;
the years 2015–2022 share one table, as do 2023 and 2024.
"""

import colorsys
import csv
import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any, Final

from cropray.core.fingerprint import fingerprint
from cropray.core.hcat import is_hcat, prefixes_of

IGNORE: Final = 255  # label of a pixel that is not in any training parcel; never trained on, never scored
MAX_CLASSES: Final = 255  # class ids are uint8 and 255 is taken
FIRST_YEAR: Final = 2015  # the first register with parcels; before, it held blocks of parcels without their crops
LAST_YEAR: Final = 2024  # the last register that the bundled code table was compared with
EXCLUDED: Final = "EXCLUDED"  # class name in the code table: the code is known and must not be trained on


@dataclass(frozen=True, slots=True)
class CropClass:
    """One class of the legend."""

    id: int
    """Position in the legend, 0–254; what label rasters and tables store."""
    name: str
    """Short key, unique (level 3 of the tree)."""
    level1: str
    level2: str
    label_en: str
    label_fr: str
    colour: str
    """`#rrggbb`."""
    more_levels: tuple[str, ...] = ()
    """Groups between `level2` and the class, coarsest first."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "more_levels", tuple(self.more_levels))  # JSON gives lists

    @property
    def levels(self) -> tuple[str, ...]:
        """Groups that the class is in, coarsest first; of a legend without groups the class itself."""
        return (self.level1, self.level2, *self.more_levels)

    def to_record(self) -> dict[str, Any]:
        """A JSON-able record, without the levels that there are none of."""
        record = asdict(self)
        if not self.more_levels:
            del record["more_levels"]
        return record


@dataclass(frozen=True, slots=True)
class CropCode:
    """What a code of the register means in some years."""

    code: str
    class_name: str
    """Name of a class, or EXCLUDED."""
    first_year: int = FIRST_YEAR
    last_year: int = LAST_YEAR
    """Inclusive."""
    label: str = ""
    """The register's own words."""


@dataclass(frozen=True, slots=True)
class Legend:
    """Classes in id order, and the code table."""

    classes: tuple[CropClass, ...]
    codes: tuple[CropCode, ...] = ()
    """Sorted by code and year; a code whose meaning changed stands there once per meaning."""
    below: tuple[CropCode, ...] = ()
    """Beginnings of HCAT codes: of those that begin a register's code the longest one decides, in any year, unless `codes`
    has it."""

    def __post_init__(self) -> None:
        names = [crop.name for crop in self.classes]
        if [crop.id for crop in self.classes] != list(range(len(self.classes))):
            raise ValueError("class ids must be 0, 1, 2, … in legend order")
        if len(set(names)) != len(names) or len(names) > MAX_CLASSES:
            raise ValueError(f"a legend holds at most {MAX_CLASSES} classes with different names")
        unknown = {crop.class_name for crop in (*self.codes, *self.below)} - {*names, EXCLUDED}
        if unknown:
            raise ValueError(f"the code table names classes that the legend lacks: {sorted(unknown)}")
        for before, after in itertools.pairwise(self.codes):
            if (after.code, after.first_year) <= (before.code, before.last_year):
                raise ValueError(f"the code table must be sorted and give '{after.code}' one meaning a year")

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in id order."""
        return tuple(crop.name for crop in self.classes)

    def codes_of(self, year: int, seen: Iterable[str] = ()) -> dict[str, CropCode]:
        """Crop code → its meaning in a year's register. Codes that are absent are unknown in that year.

        Args:
            year: of the register.
            seen: codes of the register, which may lie below one of the legend's HCAT codes.
        """
        by_prefix = {crop.code: crop for crop in self.below}
        found = {
            code: next((by_prefix[prefix] for prefix in prefixes_of(code) if prefix in by_prefix), None)
            for code in (filter(is_hcat, seen) if by_prefix else ())
        }
        own = {crop.code: crop for crop in self.codes if crop.first_year <= year <= crop.last_year}
        return {code: crop for code, crop in found.items() if crop is not None} | own

    def class_id_of_code(self, year: int, seen: Iterable[str] = ()) -> dict[str, int]:
        """Crop code → class id in a year's register; IGNORE for excluded codes, nothing for unknown ones."""
        ids = {crop.name: crop.id for crop in self.classes} | {EXCLUDED: IGNORE}
        return {code: ids[crop.class_name] for code, crop in self.codes_of(year, seen).items()}

    def years_of(self, code: str) -> tuple[int, int] | None:
        """First and last year in which a code is in use; None for one that is in no year's table."""
        meanings = [crop for crop in self.codes if crop.code == code]
        return (meanings[0].first_year, meanings[-1].last_year) if meanings else None

    def hash(self) -> str:
        """SHA-256 of classes and codes; stored with whatever holds class ids."""
        meanings = [(crop.code, crop.class_name, crop.first_year, crop.last_year) for crop in self.codes]
        below = [[(crop.code, crop.class_name) for crop in self.below]] if self.below else []
        return fingerprint([self.to_records(), meanings, *below])

    def to_records(self) -> list[dict[str, Any]]:
        """One JSON-able record per class."""
        return [crop.to_record() for crop in self.classes]


@functools.cache
def bundled_legend() -> Legend:
    """The French legend that comes with cropray."""
    classes = tuple(
        CropClass(
            int(row["id"]), row["name"], row["level1"], row["level2"], row["label_en"], row["label_fr"], row["colour"]
        )
        for row in _read_table("legend.csv")
    )
    codes = tuple(
        CropCode(row["code"], row["class_name"], int(row["first_year"]), int(row["last_year"]), row["label_fr"])
        for row in _read_table("rpg_codes.csv")
    )
    return Legend(classes, codes)


def legend_from_names(names: Sequence[str]) -> Legend:
    """A flat legend for a user's own class names, in the given order, with evenly spread colours."""
    return Legend(tuple(CropClass(i, name, name, name, name, name, spread_colour(i)) for i, name in enumerate(names)))


def _read_table(name: str) -> list[dict[str, str]]:
    text = resources.files("cropray").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def spread_colour(index: int) -> str:
    """Golden-angle hues: neighbours in the list differ clearly, any number of classes."""
    lightness = (0.45, 0.6, 0.35)[index % 3]
    red, green, blue = colorsys.hls_to_rgb(index * 0.381966 % 1.0, lightness, 0.65)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
