"""The pixel table of a zone: one row per labelled pixel, a column per band and step."""

import numpy as np
import pyarrow as pa

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.legend import IGNORE
from cropray.datasets.schema import pixel_schema
from cropray.datasets.tiles import ZoneArrays


def pixel_table(zone: ZoneArrays, zone_id: str, region: str, cube: CubeSpec = STUDY_CUBE) -> pa.Table:
    """Labelled pixels of a zone, in row-major order, with the columns of `pixel_schema(cube)`.

    Features are digital numbers uint16, 0 = no data; `n_clear` counts the steps that were observed before gap filling.
    """
    row, col = np.nonzero(zone.labels != IGNORE)
    # [T, C, N] → band-major columns B02_01 …
    features = zone.composite[:, :, row, col].transpose(1, 0, 2).reshape(cube.n_features, -1)
    columns: dict[str, object] = {
        "zone_id": pa.array(np.full(len(row), zone_id, object), pa.string()),
        "region": pa.array(np.full(len(row), region, object), pa.string()),
        "parcel": zone.parcels[row, col].astype(np.int32),
        "row": row.astype(np.int32),
        "col": col.astype(np.int32),
        "label": zone.labels[row, col],
        "n_clear": zone.clear[:, row, col].sum(0, dtype=np.uint8),
    }
    columns |= dict(zip(cube.columns, features, strict=True))
    schema = pixel_schema(cube)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)
