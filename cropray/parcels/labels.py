"""One zone's labels: parcels read, classes looked up, rasters, table and report written; and read again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
import rasterio.errors

from cropray.core.errors import InputError, SchemaError
from cropray.core.grid import Grid
from cropray.core.legend import IGNORE, Legend
from cropray.io.storage import Location, local_file, whole_file, write_json
from cropray.io.workspace import Workspace, require, require_place
from cropray.io.zones import Zone
from cropray.parcels.rasterize import NO_PARCEL, rasterize_parcels
from cropray.parcels.report import CodeTally, LabelReport, tally_labels
from cropray.parcels.rpg import ParcelSettings, describe_extent, read_parcels


def label_zone(
    settings: ParcelSettings, zone: Zone, year: int, legend: Legend, workspace: Workspace, extract: Path | None = None
) -> LabelReport:
    """Write the labels, the parcel index, the parcel table and the label report of one zone.

    The parcel table has the columns `parcel_index` (int32, the values of the index raster), `parcel_id`, `code`,
    `class_id` (uint8, 255 without class), `area_ha` (of the whole parcel) and `geometry` in the zone's UTM. Codes mean what
    the legend says of the register's `year`; parcels are read from an `extract`, where there is one, see `read_parcels`.

    Raises:
        InputError: the file cannot be used, no parcel reaches into the zone, no pixel gets a class, or a code is
            unknown and the settings refuse that.
    """
    parcels = read_parcels(settings, zone.grid, extract)
    frame = parcels.frame
    if frame.empty:
        raise InputError(
            f"zone '{zone.zone_id}' has no parcel of '{settings.path}': the file covers {describe_extent(settings)}, "
            f"the zone {zone.grid.bounds} in EPSG:{zone.grid.epsg}; use the parcels of this area, or mend 'crs' or the zone"
        )
    known = legend.class_id_of_code(year, frame["code"].unique())
    class_ids = np.array([known.get(code, IGNORE) for code in frame["code"]], np.uint8)
    rasters = rasterize_parcels(frame, class_ids, zone.grid, settings.inner_buffer_m)
    report = tally_labels(zone, year, parcels, legend, rasters)
    _require_usable(settings, report)
    table = frame.assign(parcel_index=np.arange(len(frame), dtype=np.int32), class_id=class_ids)
    table = table[["parcel_index", "parcel_id", "code", "class_id", "area_ha", "geometry"]]
    with whole_file(workspace.parcels(zone.zone_id)) as temporary:
        table.to_parquet(temporary, index=False)
    _write_raster(workspace.labels(zone.zone_id), rasters.labels, zone.grid, IGNORE, "class_id")
    _write_raster(workspace.parcel_index(zone.zone_id), rasters.index, zone.grid, NO_PARCEL, "parcel_index")
    write_json(workspace.label_report(zone.zone_id), report.to_record())
    return report


def read_labels(path: Location, grid: Grid | None = None) -> npt.NDArray[np.uint8]:
    """Class ids [H, W] uint8, 255 = unlabelled, of a file that lies on `grid`; None: anywhere.

    Raises:
        MissingArtefactError: no such file.
        InputError: it lies elsewhere.
        SchemaError: the file is damaged or no label raster.
    """
    labels: npt.NDArray[np.uint8] = _read_raster(path, "uint8", grid)
    return labels


def read_parcel_index(path: Location, grid: Grid | None = None) -> npt.NDArray[np.int32]:
    """Rows of the zone's parcel table [H, W] int32, -1 = no parcel; otherwise as `read_labels`."""
    index: npt.NDArray[np.int32] = _read_raster(path, "int32", grid)
    return index


def read_parcel_ids(path: Location) -> tuple[str, ...]:
    """Id of each row of a zone's parcel table: element i belongs to index i of the parcel raster; raises as `read_labels`."""
    require(path, "labels")
    try:
        with local_file(path) as file:
            return tuple(pq.read_table(file, columns=["parcel_id"])["parcel_id"].to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise SchemaError(f"parcel table '{path}' cannot be read ({error}); run `cropray labels` again") from None


def read_label_report(path: Location) -> LabelReport:
    """The report of one zone; raises as `read_labels`."""
    try:
        record = json.loads(require(path, "labels").read_text(encoding="utf-8"))
        return LabelReport(**{**record, "codes": tuple(CodeTally(**tally) for tally in record["codes"])})
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise SchemaError(
            f"label report '{path}' is damaged or of another version ({error}); run `cropray labels` again"
        ) from None


def _require_usable(settings: ParcelSettings, report: LabelReport) -> None:
    unknown = [f"'{tally.code}' ({tally.area_ha:.1f} ha)" for tally in report.codes if tally.status == "unknown"]
    if unknown and settings.unknown_codes == "refuse":
        raise InputError(
            f"zone '{report.zone_id}': the legend lacks the codes {', '.join(unknown)} in {report.year}; add them to it, "
            f"or set 'unknown_codes: report' to leave these parcels unlabelled"
        )
    if report.n_labelled == 0:
        codes = ", ".join(f"'{tally.code}' {tally.status}" for tally in report.codes)
        raise InputError(
            f"zone '{report.zone_id}' has {report.n_parcels} parcels but no pixel with a class of the legend; "
            f"its codes: {codes}; mend 'code_column', 'year', the legend or the zone"
        )


def _write_raster(path: Location, values: npt.NDArray[Any], grid: Grid, nodata: int, name: str) -> None:
    profile = {
        "driver": "GTiff", "dtype": values.dtype, "count": 1, "height": grid.height, "width": grid.width,
        "crs": f"EPSG:{grid.epsg}", "transform": rasterio.Affine(*grid.transform), "nodata": nodata,
        "compress": "deflate",
    }  # fmt: skip
    with whole_file(path) as temporary, rasterio.open(temporary, "w", **profile) as dataset:
        dataset.write(values, 1)
        dataset.set_band_description(1, name)


def _read_raster(path: Location, dtype: str, grid: Grid | None) -> npt.NDArray[Any]:
    try:
        with local_file(require(path, "labels")) as file, rasterio.open(file) as dataset:
            if dataset.count != 1 or dataset.dtypes[0] != dtype:
                raise SchemaError(
                    f"'{path}' has {dataset.count} {dataset.dtypes[0]} bands; it needs one {dtype} band: "
                    f"run `cropray labels CONFIG.yaml` again"
                )
            require_place(path, dataset, grid, "labels")
            values: npt.NDArray[Any] = dataset.read(1)
            return values
    except rasterio.errors.RasterioError as error:
        raise SchemaError(f"'{path}' is damaged ({error}); remove it and run `cropray labels CONFIG.yaml`") from None
