"""Cells of a register as we keep them: ids and codes as text, areas in hectares."""

import hashlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from cropray.errors import InputError

_LIKELY: Final = (0.5, 2.0)  # declared ÷ measured area, of most parcels


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
    """Hectares; of a parcel for which none are declared, those of its polygon.

    Args:
        declared: cells of the register.
        measured: hectares of the polygons.
        what: the register and its column, for messages.

    Raises:
        InputError: the cells are no hectares.
    """
    areas = pd.to_numeric(declared, errors="coerce").astype(float)
    is_usable = (areas > 0) & np.isfinite(areas) & (measured > 0)
    ratio = float((areas / measured)[is_usable].median())
    if len(areas) and not _LIKELY[0] <= ratio <= _LIKELY[1]:
        seen = f"is {ratio:.3g} times the area of most polygons" if is_usable.any() else "holds no areas"
        raise InputError(
            f"{what} {seen} near a zone; it must hold hectares: set 'area_column' to another, or leave it out"
        )
    return areas.where(is_usable, measured)


def _number(value: float) -> str:
    if pd.isna(value):
        return ""
    return str(int(value)) if value % 1 == 0 else repr(float(value))
