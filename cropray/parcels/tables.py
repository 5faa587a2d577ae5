"""Reading what `label_zone` wrote beside the rasters."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from cropray.core.errors import SchemaError
from cropray.io.storage import Location, local_file
from cropray.io.workspace import require
from cropray.parcels.report import CodeTally, LabelReport


def read_parcel_ids(path: Location) -> tuple[str, ...]:
    """Id of each row of a zone's parcel table: element i belongs to index i of the parcel raster.

    Raises:
        MissingArtefactError: no such file.
        SchemaError: the file is damaged or no parcel table.
    """
    require(path, "labels")
    try:
        with local_file(path) as file:
            return tuple(pq.read_table(file, columns=["parcel_id"])["parcel_id"].to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise SchemaError(f"parcel table '{path}' cannot be read ({error}); run `cropray labels` again") from None


def read_label_report(path: Location) -> LabelReport:
    """The report of one zone.

    Raises:
        MissingArtefactError: no such file.
        SchemaError: the file is damaged.
    """
    try:
        record = json.loads(require(path, "labels").read_text(encoding="utf-8"))
        return LabelReport(**{**record, "codes": tuple(CodeTally(**tally) for tally in record["codes"])})
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise SchemaError(
            f"label report '{path}' is damaged or of another version ({error}); run `cropray labels` again"
        ) from None
