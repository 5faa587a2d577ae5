"""Parcel files of any format: what they say of themselves, and the features of a rectangle.

GeoPackage, shapefile and whatever else GDAL reads go through pyogrio, which uses their spatial index; GeoParquet goes
through geopandas, which uses its bounding-box column where there is one.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyogrio.errors
from pyproj import CRS

from cropray.errors import InputError

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class FileHeader:
    """What a parcel file says of itself."""

    layer: str | None
    """Layer that is read; None for formats without layers."""
    columns: tuple[str, ...]
    """Attribute columns, as the file spells them."""
    crs: CRS | None
    bounds: Bounds | None
    """(x_min, y_min, x_max, y_max) of all features in `crs`."""
    geometry_column: str | None = None
    """GeoParquet only."""
    has_bbox_column: bool = False
    """GeoParquet only: whether row groups can be skipped by rectangle."""


def read_header(path: Path, layer: str | None) -> FileHeader:
    """Open a parcel file without reading its features.

    Args:
        path: GeoPackage, shapefile, GeoParquet or another vector file of GDAL.
        layer: layer to read; None where the file has only one.

    Raises:
        InputError: the file or the layer is missing, damaged or ambiguous.
    """
    if not path.exists():
        raise InputError(f"parcel file '{path}' does not exist; set 'path' to a .gpkg, .shp or .parquet file")
    return _parquet_header(path) if _is_parquet(path) else _layer_header(path, layer)


def read_features(path: Path, header: FileHeader, columns: list[str], box: Bounds) -> gpd.GeoDataFrame:
    """Features whose bounding box meets `box` (in the file's own coordinates), or a few more.

    Raises:
        InputError: the file is damaged.
    """
    try:
        if header.geometry_column is not None:
            bbox = box if header.has_bbox_column else None
            return gpd.read_parquet(path, columns=[*columns, header.geometry_column], bbox=bbox)
        return gpd.read_file(path, layer=header.layer, columns=columns, bbox=box, engine="pyogrio")
    except (pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError, pa.ArrowException, OSError) as error:
        raise InputError(f"parcel file '{path}' cannot be read ({_short(error)}); fetch it again") from None


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in {".parquet", ".geoparquet"}


def _layer_header(path: Path, layer: str | None) -> FileHeader:
    try:
        layers = [str(name) for name, geometry_type in pyogrio.list_layers(path) if geometry_type is not None]
        chosen = _choose_layer(path, layers, layer)
        info = pyogrio.read_info(path, layer=chosen, force_total_bounds=True)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise InputError(f"parcel file '{path}' cannot be opened ({_short(error)}); fetch it again") from None
    crs = CRS.from_user_input(info["crs"]) if info["crs"] else None
    return FileHeader(chosen, tuple(map(str, info["fields"])), crs, info["total_bounds"])


def _choose_layer(path: Path, layers: list[str], wanted: str | None) -> str:
    if wanted is None and len(layers) == 1:
        return layers[0]
    if wanted not in layers:
        seen = f"no layer '{wanted}'" if wanted else f"{len(layers)} layers with geometry"
        raise InputError(f"parcel file '{path}' has {seen}; set 'layer' to one of {layers}")
    return wanted


def _parquet_header(path: Path) -> FileHeader:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"parcel file '{path}' is no readable Parquet ({_short(error)}); fetch it again") from None
    text = (schema.metadata or {}).get(b"geo")
    if text is None:
        raise InputError(f"parcel file '{path}' is Parquet without geometry; write it with geopandas' `to_parquet`")
    geo = json.loads(text)
    geometry_column = geo["primary_column"]
    column: dict[str, Any] = geo["columns"][geometry_column]
    # GeoParquet 1.1: an absent key means longitude and latitude, null means unknown.
    crs = column.get("crs", "OGC:CRS84")
    return FileHeader(
        layer=None,
        columns=tuple(name for name in schema.names if name != geometry_column),
        crs=CRS.from_user_input(crs) if crs else None,
        bounds=tuple(column["bbox"]) if len(column.get("bbox", ())) == 4 else None,
        geometry_column=geometry_column,
        has_bbox_column="covering" in column,
    )


def _short(error: BaseException) -> str:
    return str(error).split("; It might help", 1)[0].strip()
