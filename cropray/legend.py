"""The legend: which crop code belongs to which class, and what a class is called.

The bundled legend is the three-level tree of Turkoglu et al. (2021, "Crop mapping from image time
series: deep learning with multi-scale label hierarchies", arXiv 2102.08820), extended by the classes that
France has and Zurich has not. Codes are those of the French parcel register (RPG).
"""

import colorsys
import csv
import functools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any, Final

from cropray.settings import fingerprint

IGNORE: Final = 255  # label of a pixel that is not in any training parcel; never trained on, never scored
MAX_CLASSES: Final = 255  # class ids are uint8 and 255 is taken
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


@dataclass(frozen=True, slots=True)
class Legend:
    """Classes in id order, and the code table."""

    classes: tuple[CropClass, ...]
    codes: tuple[tuple[str, str], ...] = ()
    """(crop code, class name or EXCLUDED), sorted by code."""

    def __post_init__(self) -> None:
        names = [crop.name for crop in self.classes]
        if [crop.id for crop in self.classes] != list(range(len(self.classes))):
            raise ValueError("class ids must be 0, 1, 2, … in legend order")
        if len(set(names)) != len(names) or len(names) > MAX_CLASSES:
            raise ValueError(f"a legend holds at most {MAX_CLASSES} classes with different names")
        unknown = {name for _, name in self.codes} - {*names, EXCLUDED}
        if unknown:
            raise ValueError(f"the code table names classes that the legend lacks: {sorted(unknown)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in id order."""
        return tuple(crop.name for crop in self.classes)

    def class_id_of_code(self) -> dict[str, int]:
        """Crop code → class id; IGNORE for excluded codes. Codes that are absent are unknown."""
        ids = {crop.name: crop.id for crop in self.classes} | {EXCLUDED: IGNORE}
        return {code: ids[name] for code, name in self.codes}

    def hash(self) -> str:
        """SHA-256 of classes and codes; stored with whatever holds class ids."""
        return fingerprint([self.to_records(), self.codes])

    def to_records(self) -> list[dict[str, Any]]:
        """One JSON-able record per class."""
        return [asdict(crop) for crop in self.classes]


def legend_from_records(records: Iterable[dict[str, Any]]) -> Legend:
    """The legend whose classes `to_records` wrote (without its code table)."""
    return Legend(tuple(CropClass(**record) for record in records))


@functools.cache
def bundled_legend() -> Legend:
    """The French legend that comes with cropray."""
    classes = tuple(
        CropClass(int(row["id"]), *(row[key] for key in ("name", "level1", "level2", "label_en", "label_fr", "colour")))
        for row in _read_table("legend.csv")
    )
    codes = tuple(sorted((row["code"], row["class_name"]) for row in _read_table("rpg_codes.csv")))
    return Legend(classes, codes)


def legend_from_names(names: Sequence[str]) -> Legend:
    """A flat legend for a user's own class names, in the given order, with evenly spread colours."""
    return Legend(tuple(CropClass(i, name, name, name, name, name, _spread_colour(i)) for i, name in enumerate(names)))


def _read_table(name: str) -> list[dict[str, str]]:
    text = resources.files("cropray").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _spread_colour(index: int) -> str:
    """Golden-angle hues: neighbours in the list differ clearly, any number of classes."""
    lightness = (0.45, 0.6, 0.35)[index % 3]
    red, green, blue = colorsys.hls_to_rgb(index * 0.381966 % 1.0, lightness, 0.65)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
