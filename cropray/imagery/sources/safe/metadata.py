"""What a product's own metadata say: when, how processed, with which offsets; and where each of its tiles lies.

Source: ESA, Sentinel-2 PSD 14, `User_Product_Level-2A` and `Level-2A_Tile_ID`; names of PSD 13 (before 2018) stand second.
"""

import datetime as dt
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

from cropray.core.errors import InputError
from cropray.core.grid import Grid
from cropray.core.sensors import NODATA, SATURATED
from cropray.imagery.offsets import (
    BASELINE_WITH_OFFSET,
    FIRST_DAY_WITH_OFFSET,
    LEAST_OFFSET,
    Baseline,
    baseline_in_name,
    is_esas,
)
from cropray.imagery.scenes import LONGEST_PASS
from cropray.imagery.sources.safe.packages import started_by_name, stem_of
from cropray.imagery.sources.safe.settings import REMEDY

RESOLUTION_M: Final = 10.0  # of the grid that all bands are read on
# Source: PSD, `bandId`; a product may say it itself, in its Spectral_Information.
_BAND_IDS: Final = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
_TILE: Final = re.compile(r"_T(\d{2}[C-X][A-Z]{2})(?=_|$)")
_UTM: Final = re.compile(r"EPSG:(32[67](?:0[1-9]|[1-5]\d|60))")


@dataclass(frozen=True, slots=True)
class Product:
    """One product."""

    name: str
    """As ESA named it, without `.SAFE`."""
    started: dt.datetime
    """Start of the data take, UTC, to the second: as names have it."""
    version: tuple[Baseline, str]
    """Greater for a newer processing."""
    offsets: tuple[tuple[str, int], ...]
    """(band id, digital numbers to add); none for a product without offsets."""

    def offset_of(self, band_id: str) -> int:
        """Digital numbers to add to a band.

        Raises:
            InputError: other bands of it have an offset, and of this one nothing is said.
        """
        offsets = dict(self.offsets)
        if offsets and band_id not in offsets:
            raise InputError(f"metadata of product '{self.name}' have no BOA_ADD_OFFSET of {band_id}; {REMEDY}")
        return offsets.get(band_id, 0)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of a product."""

    mgrs_tile: str
    """Empty where its metadata name none."""
    sensed: dt.datetime
    grid: Grid
    """Pixels of 10 m."""


def read_product(content: bytes, name: str) -> Product:
    """A product's metadata, from the content of `MTD_MSIL2A.xml`; messages call it by the name of its folder or zip.

    Raises:
        InputError: they are damaged, lack something, or contradict themselves or the name.
    """
    document = _Document(content, f"metadata of product '{name}'")
    if not (level := document.text("PROCESSING_LEVEL")).startswith("Level-2A"):
        raise document.error(f"say that it is of '{level}'; a Level-2A product is needed")
    _require_plain_numbers(document)
    baseline = _baseline(document, (document.text("PRODUCT_URI", "PRODUCT_URI_2A", default=""), name))
    generated = document.text("GENERATION_TIME")
    started = document.instant("DATATAKE_SENSING_START", "PRODUCT_START_TIME").replace(microsecond=0)
    named = started_by_name(name)
    if named is not None and abs(named - started) > LONGEST_PASS:
        raise document.error(
            f"say that it was sensed from {started:%Y-%m-%dT%H:%M:%S} on, its name {named:%Y-%m-%dT%H:%M:%S}"
        )
    return Product(
        name=stem_of(document.text("PRODUCT_URI", "PRODUCT_URI_2A", default=name)),
        started=started,
        version=(baseline if is_esas(baseline) else (0, 0), generated),
        offsets=_offsets(document, baseline, generated),
    )


def read_tile(content: bytes, name: str, product: Product) -> Tile:
    """A tile's metadata, from the content of `MTD_TL.xml`; messages call its product by the name.

    Raises:
        InputError: they are damaged, lack something, or contradict the product's.
    """
    document = _Document(content, f"tile metadata of product '{name}'")
    sensed = document.instant("SENSING_TIME")
    if abs(sensed - product.started) > LONGEST_PASS:
        raise document.error(
            f"say that it was sensed at {sensed:%Y-%m-%dT%H:%M:%S}, its data take began {product.started:%Y-%m-%dT%H:%M:%S}"
        )
    system = document.text("HORIZONTAL_CS_CODE")
    if (utm := _UTM.fullmatch(system)) is None:
        raise document.error(
            f"say that it lies in '{system}'; ESA's tiles lie in a UTM system, EPSG:326xx or EPSG:327xx"
        )
    size, place = document.of_resolution("Size", RESOLUTION_M), document.of_resolution("Geoposition", RESOLUTION_M)
    try:
        edges = float(place["ULX"]), float(place["ULY"])
        grid = Grid(int(utm[1]), *edges, int(size["NROWS"]), int(size["NCOLS"]), RESOLUTION_M)
        if not all(map(math.isfinite, edges)):
            raise ValueError(f"its corner is {edges}")  # noqa: TRY301  as other numbers that are none
    except (KeyError, ValueError) as error:
        raise document.error(f"do not say where its pixels of 10 m lie ({error})") from None
    found = _TILE.search(document.text("TILE_ID", "TILE_ID_2A", default=""))
    return Tile(found[1] if found else "", sensed, grid)


class _Document:
    """An XML file whose elements are found by their names, wherever they stand and whatever their namespace."""

    def __init__(self, content: bytes, what: str) -> None:
        self._what = what
        self._elements: dict[str, list[ET.Element]] = {}
        try:
            root = ET.fromstring(content)  # noqa: S314  expat resolves nothing from outside, and bounds what it expands
        except ET.ParseError as error:
            raise self.error(f"are cut off or damaged ({error})") from None
        for element in root.iter():
            self._elements.setdefault(_local(element), []).append(element)

    def error(self, said: str) -> InputError:
        """What is wrong with it, and what to do."""
        return InputError(f"{self._what} {said}; {REMEDY}")

    def all(self, name: str) -> list[ET.Element]:
        """Every element of a name."""
        return self._elements.get(name, [])

    def text(self, *names: str, default: str | None = None) -> str:
        """Text of the first element that has one of some names.

        Raises:
            InputError: there is none, and no default.
        """
        for name in names:
            for element in self.all(name):
                if element.text and element.text.strip():
                    return element.text.strip()
        if default is None:
            raise self.error(f"have no {' or '.join(names)}")
        return default

    def instant(self, *names: str) -> dt.datetime:
        """A time, UTC.

        Raises:
            InputError: there is none.
        """
        text = self.text(*names)
        try:
            instant = dt.datetime.fromisoformat(text)
        except ValueError:
            raise self.error(f"have the {names[0]} '{text}', which is no time") from None
        return instant.replace(tzinfo=dt.UTC) if instant.tzinfo is None else instant.astimezone(dt.UTC)

    def of_resolution(self, name: str, resolution_m: float) -> dict[str, str]:
        """Texts of the parts of the element whose attribute is a resolution; empty where there is none."""
        found = (each for each in self.all(name) if each.get("resolution") == f"{resolution_m:g}")
        return {_local(part): (part.text or "").strip() for element in found for part in element}


def _local(element: ET.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _require_plain_numbers(document: _Document) -> None:
    """Refuse numbers that are not reflectance × 10000, or other special values than all products have."""
    quantification = document.text("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE")
    if not re.fullmatch(r"10000(\.0*)?", quantification):
        raise document.error(f"have the BOA_QUANTIFICATION_VALUE {quantification}; 10000 is needed")
    wanted = {"NODATA": NODATA, "SATURATED": SATURATED}
    for special in document.all("Special_Values"):
        texts = {_local(part): (part.text or "").strip() for part in special}
        kind, index = texts.get("SPECIAL_VALUE_TEXT", ""), texts.get("SPECIAL_VALUE_INDEX", "")
        if kind in wanted and index != str(wanted[kind]):
            raise document.error(f"say that {kind} is {index}; {wanted[kind]} is needed")


def _baseline(document: _Document, names: tuple[str, ...]) -> Baseline:
    text = document.text("PROCESSING_BASELINE")
    match = re.fullmatch(r"(\d{1,2})\.(\d{1,2})", text)
    if match is None:
        raise document.error(f"have the PROCESSING_BASELINE '{text}', which is none")
    baseline = int(match[1]), int(match[2])
    for name in names:
        named = baseline_in_name(stem_of(name))
        if named is not None and is_esas(baseline) and named != baseline:
            raise document.error(f"say that its baseline is {text}, its name '{name}' N{named[0]:02d}{named[1]:02d}")
    return baseline


def _offsets(document: _Document, baseline: Baseline, generated: str) -> tuple[tuple[str, int], ...]:
    """Offset of each band that has one; InputError where the baseline says that there is one and none has, or otherwise."""
    offsets = dict(_stated_offsets(document))
    text = f"{baseline[0]:02d}.{baseline[1]:02d}"
    if is_esas(baseline):
        has_offset = baseline >= BASELINE_WITH_OFFSET
        if has_offset and not any(offsets.values()):
            raise document.error(
                f"say that its baseline is {text}, which holds ESA's offset, and have no BOA_ADD_OFFSET"
            )
        if not has_offset and any(offsets.values()):
            raise document.error(f"say that its baseline is {text}, which holds no offset, and have a BOA_ADD_OFFSET")
    elif not offsets and generated >= f"{FIRST_DAY_WITH_OFFSET}":
        raise document.error(
            f"have the baseline {text} and no BOA_ADD_OFFSET: whether its numbers hold ESA's offset is not said"
        )
    return tuple(sorted(offsets.items()))


def _stated_offsets(document: _Document) -> Iterator[tuple[str, int]]:
    stated = {each.get("bandId", ""): each.get("physicalBand", "") for each in document.all("Spectral_Information")}
    for element in document.all("BOA_ADD_OFFSET"):
        number, value = element.get("band_id", ""), (element.text or "").strip()
        try:
            band_id = _padded(stated.get(number) or _BAND_IDS[int(number)])
            offset = float(value)
            if offset != round(offset) or not LEAST_OFFSET <= offset <= 0:
                raise ValueError  # noqa: TRY301  as what is no number
        except (ValueError, IndexError):
            raise document.error(
                f"have the BOA_ADD_OFFSET '{value}' of band '{number}'; a whole number of {LEAST_OFFSET} to 0 is needed"
            ) from None
        yield band_id, round(offset)


def _padded(band: str) -> str:
    """`B2` as `B02`."""
    return f"B{int(band[1:]):02d}" if band[1:].isdigit() else band
