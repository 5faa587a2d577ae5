"""The Arrow schemas of stored datasets.

A change of any column, type or meaning raises `SCHEMA_VERSION`; stages refuse datasets of another version.
Readers ask for columns by name: Ray Data moves `zone_id`, which is in the folder's name too, to the end.
"""

from typing import Final

import pyarrow as pa

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import SchemaError

SCHEMA_VERSION: Final = 1
WEIGHT: Final = "weight"  # last column of tables of points that have it, float32: weight of a row in training
POINT_PARCEL: Final = -1  # parcel, row and col of a sample that comes from a table of points

_KEYS: Final = (("zone_id", pa.string()), ("region", pa.string()))


def pixel_schema(cube: CubeSpec = STUDY_CUBE) -> pa.Schema:
    """One labelled pixel a row.

    `parcel` is the row of the zone's parcel table, `row` and `col` the pixel in the zone's grid, `label` a legend
    class id, `n_clear` the steps of time with a clear observation before gap filling. The features are the cube's
    columns: numbers that its bands make values of (reflectance × 10 000), 0 = no data. Points with weights have WEIGHT
    after them.
    """
    fields = [
        *_KEYS,
        ("parcel", pa.int32()),
        ("row", pa.int32()),
        ("col", pa.int32()),
        ("label", pa.uint8()),
        ("n_clear", pa.uint8()),
        *((name, pa.uint16()) for name in cube.columns),
    ]
    return pa.schema([pa.field(name, type_, nullable=False) for name, type_ in fields])


def tile_schema(tile_size: int, cube: CubeSpec = STUDY_CUBE) -> pa.Schema:
    """One square tile a row.

    `row` and `col` are the tile's first pixel in the zone's grid, `x` [T, C, S, S] digital numbers with 0 = no data,
    `labels` [S, S] legend class ids with 255 = ignore, `valid` [T, S, S] 1 where the step was observed clear and 0
    where it was filled. `valid` is bytes, not bits: Arrow 25 reads no boolean tensor back into numpy. S is the tile's size,
    pixels.
    """
    square = [tile_size, tile_size]
    fields = [
        *_KEYS,
        ("row", pa.int32()),
        ("col", pa.int32()),
        ("x", pa.fixed_shape_tensor(pa.uint16(), [*cube.shape, *square])),
        ("labels", pa.fixed_shape_tensor(pa.uint8(), square)),
        ("valid", pa.fixed_shape_tensor(pa.uint8(), [cube.n_steps, *square])),
    ]
    return pa.schema([pa.field(name, type_, nullable=False) for name, type_ in fields])


def check_version(version: object, where: str) -> None:
    """Raises: SchemaError: a stored dataset was written by another version of this code than `SCHEMA_VERSION`."""
    if version != SCHEMA_VERSION:
        raise SchemaError(
            f"{where} has dataset schema version {version}, this cropray reads {SCHEMA_VERSION}; "
            f"rebuild it with `cropray dataset CONFIG.yaml`"
        )
