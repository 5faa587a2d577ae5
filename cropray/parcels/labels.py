"""One zone's labels: parcels read, classes looked up, rasters, table and report written."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.errors
import shapely

from cropray.errors import InputError, SchemaError
from cropray.grid import Grid
from cropray.legend import EXCLUDED, IGNORE, Legend
from cropray.parcels.rasterize import NO_PARCEL, rasterize_parcels
from cropray.parcels.rpg import ParcelSettings, describe_extent, read_parcels
from cropray.workspace import Workspace, require, whole_file, write_json
from cropray.zones import Zone

Status = Literal["mapped", "excluded", "unknown"]


@dataclass(frozen=True, slots=True)
class CodeTally:
    """How much of a zone carries one crop code."""

    code: str
    """Empty where the register names none."""
    status: Status
    """Whether the legend maps the code to a class, excludes it from training, or lacks it."""
    class_name: str | None
    n_parcels: int
    area_ha: float
    """Inside the zone; parcels that overlap count twice."""
    n_pixels: int


@dataclass(frozen=True, slots=True)
class LabelReport:
    """What became of the parcels of one zone."""

    zone_id: str
    n_pixels: int
    n_labelled: int
    """Pixels with a class; the others are 255 and are ignored everywhere."""
    n_parcels: int
    codes: tuple[CodeTally, ...]
    """Sorted by code."""

    def area_ha(self, status: Status) -> float:
        """Hectares of the zone under codes of one status."""
        return sum(tally.area_ha for tally in self.codes if tally.status == status)

    @property
    def unknown_codes(self) -> tuple[str, ...]:
        """Codes that the legend lacks."""
        return tuple(tally.code for tally in self.codes if tally.status == "unknown")

    def to_record(self) -> dict[str, Any]:
        """A JSON-able record."""
        return asdict(self)


def label_zone(settings: ParcelSettings, zone: Zone, legend: Legend, workspace: Workspace) -> LabelReport:
    """Write the labels, the parcel index, the parcel table and the label report of one zone.

    The parcel table has the columns `parcel_index` (int32, the values of the index raster), `parcel_id`, `code`,
    `class_id` (uint8, 255 without class), `area_ha` (of the whole parcel) and `geometry` in the zone's UTM.

    Raises:
        InputError: the file cannot be used, no parcel reaches into the zone, no pixel gets a class, or a code is
            unknown and the settings refuse that.
    """
    parcels = read_parcels(settings, zone.grid)
    if parcels.empty:
        raise InputError(
            f"zone '{zone.zone_id}' has no parcel of '{settings.path}': the file covers {describe_extent(settings)}, "
            f"the zone {zone.grid.bounds} in EPSG:{zone.grid.epsg}; use the parcels of this area, or mend 'crs' or the zone"
        )
    class_ids = _class_ids(parcels, legend)
    labels, index = rasterize_parcels(parcels, class_ids, zone.grid)
    report = _tally(zone, parcels, legend, labels, index)
    _require_usable(settings, report)
    table = parcels.assign(parcel_index=np.arange(len(parcels), dtype=np.int32), class_id=class_ids)
    table = table[["parcel_index", "parcel_id", "code", "class_id", "area_ha", "geometry"]]
    with whole_file(workspace.parcels(zone.zone_id)) as temporary:
        table.to_parquet(temporary, index=False)
    _write_raster(workspace.labels(zone.zone_id), labels, zone.grid, IGNORE, "class_id")
    _write_raster(workspace.parcel_index(zone.zone_id), index, zone.grid, NO_PARCEL, "parcel_index")
    write_json(workspace.label_report(zone.zone_id), report.to_record())
    return report


def read_labels(path: Path) -> npt.NDArray[np.uint8]:
    """Class ids [H, W] uint8, 255 = unlabelled.

    Raises:
        MissingArtefactError: no such file.
        SchemaError: the file is damaged or no label raster.
    """
    labels: npt.NDArray[np.uint8] = _read_raster(path, "uint8")
    return labels


def read_parcel_index(path: Path) -> npt.NDArray[np.int32]:
    """Rows of the zone's parcel table [H, W] int32, -1 = no parcel.

    Raises:
        MissingArtefactError: no such file.
        SchemaError: the file is damaged or no parcel index.
    """
    index: npt.NDArray[np.int32] = _read_raster(path, "int32")
    return index


def _class_ids(parcels: gpd.GeoDataFrame, legend: Legend) -> npt.NDArray[np.uint8]:
    known = legend.class_id_of_code()
    return np.array([known.get(code, IGNORE) for code in parcels["code"]], np.uint8)


def _tally(
    zone: Zone,
    parcels: gpd.GeoDataFrame,
    legend: Legend,
    labels: npt.NDArray[np.uint8],
    index: npt.NDArray[np.int32],
) -> LabelReport:
    class_of_code = dict(legend.codes)
    inside_ha = shapely.area(shapely.intersection(parcels.geometry.to_numpy(), shapely.box(*zone.grid.bounds))) / 10_000
    n_pixels = np.bincount(index[index != NO_PARCEL], minlength=len(parcels))
    tallies = []
    for code, rows in sorted(parcels.groupby("code").indices.items()):
        class_name = class_of_code.get(code)
        status: Status = "unknown" if class_name is None else "excluded" if class_name == EXCLUDED else "mapped"
        tallies.append(
            CodeTally(
                code=code,
                status=status,
                class_name=class_name if status == "mapped" else None,
                n_parcels=len(rows),
                area_ha=float(inside_ha[rows].sum()),
                n_pixels=int(n_pixels[rows].sum()),
            )
        )
    return LabelReport(zone.zone_id, labels.size, int((labels != IGNORE).sum()), len(parcels), tuple(tallies))


def _require_usable(settings: ParcelSettings, report: LabelReport) -> None:
    unknown = [f"'{tally.code}' ({tally.area_ha:.1f} ha)" for tally in report.codes if tally.status == "unknown"]
    if unknown and settings.unknown_codes == "refuse":
        raise InputError(
            f"zone '{report.zone_id}': the legend lacks the codes {', '.join(unknown)}; add them to its code table, "
            f"or set 'unknown_codes: report' to leave these parcels unlabelled"
        )
    if report.n_labelled == 0:
        codes = ", ".join(f"'{tally.code}' {tally.status}" for tally in report.codes)
        raise InputError(
            f"zone '{report.zone_id}' has {report.n_parcels} parcels but no pixel with a class of the legend; "
            f"its codes: {codes}; mend 'code_column', the legend or the zone"
        )


def _write_raster(path: Path, values: npt.NDArray[Any], grid: Grid, nodata: int, name: str) -> None:
    profile = {
        "driver": "GTiff", "dtype": values.dtype, "count": 1, "height": grid.height, "width": grid.width,
        "crs": f"EPSG:{grid.epsg}", "transform": rasterio.Affine(*grid.transform), "nodata": nodata,
        "compress": "deflate",
    }  # fmt: skip
    with whole_file(path) as temporary, rasterio.open(temporary, "w", **profile) as dataset:
        dataset.write(values, 1)
        dataset.set_band_description(1, name)


def _read_raster(path: Path, dtype: str) -> npt.NDArray[Any]:
    try:
        with rasterio.open(require(path, "labels")) as dataset:
            if dataset.count != 1 or dataset.dtypes[0] != dtype:
                raise SchemaError(
                    f"'{path}' has {dataset.count} {dataset.dtypes[0]} bands; it needs one {dtype} band: "
                    f"run `cropray labels CONFIG.yaml` again"
                )
            values: npt.NDArray[Any] = dataset.read(1)
            return values
    except rasterio.errors.RasterioError as error:
        raise SchemaError(f"'{path}' is damaged ({error}); remove it and run `cropray labels CONFIG.yaml`") from None
