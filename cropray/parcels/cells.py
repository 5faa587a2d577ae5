"""Cells of a register as we keep them: ids and codes as text, areas in hectares."""

import hashlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from cropray.core.errors import InputError
from cropray.core.missing import is_missing

_LIKELY: Final = (0.5, 2.0)  # declared ÷ measured area, of most parcels
_DECIMAL_COMMA: Final = r"(?<=\d),(?=\d+$)"


def as_text(values: "pd.Series[Any]") -> "pd.Series[str]":
    """Ids and codes as text: `7.0` is `7`, whatever else the zone holds; what is missing is empty."""
    if pd.api.types.is_float_dtype(values):
        return values.map(_number).astype(str)
    return values.astype("string").fillna("").str.strip().astype(str)


def outline_ids(geometries: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[n] ids that are the same wherever a parcel is read: one that reaches into two zones is still one parcel."""
    outlines = shapely.to_wkb(geometries)
    hashes = (hashlib.sha1(outline or b"", usedforsecurity=False).hexdigest() for outline in outlines)
    return np.array([f"outline-{digits[:12]}" for digits in hashes], object)


def declared_areas(declared: "pd.Series[Any]", measured: "pd.Series[float]", what: str) -> "pd.Series[float]":
    """Hectares as declared in cells of a register, called `what` in messages; where none are, those measured of the polygon.

    Raises:
        InputError: the cells are no numbers, or no hectares.
    """
    areas = _numbers(declared, what)
    is_usable = (areas > 0) & np.isfinite(areas) & (measured > 0)
    ratio = float((areas / measured)[is_usable].median())
    if len(areas) and not _LIKELY[0] <= ratio <= _LIKELY[1]:
        seen = f"is {ratio:.3g} times the area of most polygons" if is_usable.any() else "holds no areas"
        raise InputError(
            f"{what} {seen} near a zone; it must hold hectares: set 'area_column' to another, or leave it out"
        )
    return areas.where(is_usable, measured)


def _numbers(cells: "pd.Series[Any]", what: str) -> "pd.Series[float]":
    """Cells as numbers, `1,25` too; NaN where there is nothing."""
    if not pd.api.types.is_numeric_dtype(cells):
        texts = cells.astype("string").fillna("").str.strip()
        cells = texts.str.replace(_DECIMAL_COMMA, ".", regex=True).where(~texts.map(is_missing))
    areas = pd.to_numeric(cells, errors="coerce").astype(float)
    if (is_text := areas.isna() & cells.notna()).any():
        raise InputError(
            f"{what} holds {str(cells[is_text].iloc[0])!r} near a zone, {int(is_text.sum())} such cells in all; it must hold "
            f"hectares as numbers: set 'area_column' to another, or leave it out"
        )
    return areas


def _number(value: float) -> str:
    if pd.isna(value):
        return ""
    return str(int(value)) if value % 1 == 0 else repr(float(value))
