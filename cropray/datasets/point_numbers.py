"""Numbers of a table of points as they are stored: features of 16 bits, by the affine of their band; weights of rows."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from cropray.core.sensors import LARGEST, NODATA, Band

_NEEDED: Final = "whole digital numbers 0–65535 ({0}, 0 = missing), best stored as uint16"


@dataclass(frozen=True, slots=True)
class PointValues:
    """How numbers of a table become values in the unit of their band: `number · scale + offset`."""

    scale: float
    offset: float


def stored_numbers(column: pa.ChunkedArray, band: Band, values: PointValues | None) -> pa.ChunkedArray:
    """The stored numbers of a column, uint16, 0 = missing, with values of a band, which `values` makes of its numbers.

    None: whole numbers are stored ones already, and fractions are values, as far as the band is no reflectance, which tables
    hold as fractions and as digital numbers alike.

    Raises:
        ValueError: a value cannot be stored; the message follows the column's name.
    """
    if values is None and pa.types.is_floating(column.type) and band.unit != "reflectance":
        values = PointValues(1.0, 0.0)
    return _whole(column, band) if values is None else _converted(column, band, values)


def _whole(column: pa.ChunkedArray, band: Band) -> pa.ChunkedArray:
    meaning = (
        "reflectance × 10 000"
        if band.is_plain_reflectance
        else f"{band.unit} = number × {band.scale:g} + {band.offset:g}"
    )
    needed = _NEEDED.format(meaning)
    if column.null_count:
        raise ValueError(
            f"has {column.null_count} empty values; write 0 for a missing feature and drop rows without label, zone or place"
        )
    if not pa.types.is_integer(column.type):
        raise ValueError(
            f"is {column.type}; it must hold {needed}. For others set points.scale to what makes values in {band.unit} of "
            f"them: 1 where they are such values"
        )
    try:
        return column.cast(pa.uint16())
    except pa.ArrowInvalid as error:
        raise ValueError(f"must hold {needed}: {error}") from None


def _converted(column: pa.ChunkedArray, band: Band, values: PointValues) -> pa.ChunkedArray:
    try:
        table_numbers = column.cast(pa.float64()).to_numpy()  # empty values become NaN
    except pa.ArrowException:
        raise ValueError(f"is {column.type}; it must hold numbers, NaN or empty = missing") from None
    physical = table_numbers * values.scale + values.offset
    numbers = np.rint((physical - band.offset) / band.scale)
    # A plain 0 is what many tables write for a missing value; the least value of a band with an offset is a value.
    is_plain = band.offset == 0 and values.offset == 0
    missing = np.isnan(numbers) | (is_plain & (table_numbers == 0))
    if band.offset == 0:
        numbers[~missing & (numbers == NODATA)] = NODATA + 1  # nearly 0 is dark, not missing
    outside = np.flatnonzero(~missing & ~((numbers > NODATA) & (numbers <= LARGEST)))
    if outside.size:
        row = outside[0]
        low, high = (number * band.scale + band.offset for number in (NODATA + 1, LARGEST))
        raise ValueError(
            f"has in row {row} the value {physical[row]:g} (number {table_numbers[row]:g}), {len(outside)} such in all; band "
            f"{band.id} can store {low:g} to {high:g} {band.unit}: mend the values or points.scale and points.offset, or "
            f"give it another scale and offset in 'cube' or points.static"
        )
    return pa.chunked_array([pa.array(np.where(missing, NODATA, numbers).astype(np.uint16))])


def stored_weights(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Weights of rows, float32, in which all families train.

    Raises:
        ValueError: one is no number above 0 that float32 can hold; the message follows the column's name.
    """
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise ValueError(f"is {column.type}; it must hold numbers > 0, how often each row counts in training")
    weights = column.cast(pa.float64(), safe=False).to_numpy()  # empty ones become NaN
    with np.errstate(over="ignore", under="ignore"):
        stored = weights.astype(np.float32)
    wrong = np.flatnonzero(~(np.isfinite(stored) & (stored > 0)))
    if wrong.size:
        raise ValueError(
            f"has in row {wrong[0]} the value {weights[wrong[0]]:g}, {len(wrong)} such in all; a weight is a finite number "
            f"> 0: write 1 where a row counts as others do, drop rows that are not to count, or rename the column"
        )
    return pa.chunked_array([pa.array(stored)])
