"""Parcel files of any format: what they say of themselves, the features of a rectangle, and all features in pieces.

A file with a spatial index (GeoPackage, shapefile with .qix, GeoParquet with bounding-box column) answers for a rectangle;
any other is read from end to end, in pieces. In object storage only GeoParquet can be read, by columns and row groups:
GDAL's formats are asked for thousands of small pieces, one after the other, and have to be fetched first.
"""

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyogrio
import pyogrio.errors
import shapely
import shapely.errors
from pyproj import CRS
from pyproj.exceptions import CRSError

from cropray.core.errors import InputError
from cropray.io.raw_files import in_words, is_there
from cropray.io.storage import Location, arrow_path
from cropray.io.systems import Bounds
from cropray.parcels.linear_wkb import read_wkb
from cropray.parcels.zip_files import choose_member, layer_within, on_disk

SETTING: Final = "parcels.path"  # in messages
WKB_COLUMN: Final = "geometry_wkb"  # name of the geometry in the pieces of `iterate_features`
_BATCH_ROWS: Final = 65_536  # some 30 MB of parcels
_BUFFER_BYTES: Final = 1 << 20  # read from each column at a time; a whole row group may hold gigabytes
_UNNAMED: Final = "wkb_geometry"  # GDAL's name of a geometry column without one
_DAMAGE: Final = (pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError, pa.ArrowException, OSError)


@dataclass(frozen=True, slots=True)
class FileHeader:
    """What a parcel file says of itself."""

    layer: str | None
    """Layer that is read; None for formats without layers."""
    columns: tuple[str, ...]
    """Attribute columns, as the file spells them."""
    crs: CRS | None
    has_spatial_index: bool
    """Whether the features of a rectangle can be read without reading all others."""
    geometry_column: str | None = None
    """GeoParquet only."""
    member: str | None = None
    """The file that is read of a zip file."""
    lists: tuple[str, ...] = ()
    """Columns that hold several values a row."""


def read_header(path: Location, layer: str | None) -> FileHeader:
    """Open a parcel file without reading its features: GeoPackage, shapefile, GeoParquet, another of GDAL, or a zip file.

    The layer is None where the file has only one. Of a zip file that holds several files it says which, `north`, and its
    layer where it has several, `north/fields`.

    Raises:
        InputError: the file or the layer is missing, damaged or ambiguous.
    """
    require_file(path)
    return _parquet_header(path) if is_parquet(path) else _layer_header(path, layer)


def require_file(path: Location) -> None:
    """Raises: InputError: the file is not there, or its store cannot be asked."""
    if not is_there(path, SETTING):
        raise InputError(f"parcel file '{path}' does not exist; set 'path' to a .gpkg, .shp, .parquet or .zip file")


def is_parquet(path: Location) -> bool:
    """Whether the name says that a file is GeoParquet."""
    return path.suffix.lower() in {".parquet", ".geoparquet"}


def read_bounds(path: Location, header: FileHeader, *, is_stored: bool = False) -> Bounds | None:
    """(x_min, y_min, x_max, y_max) of all features, as stored or else by reading them; None where GeoParquet lacks it.

    If it is to be `is_stored`, None is given rather than all features read.

    Raises:
        InputError: the file is damaged.
    """
    if header.geometry_column is not None:
        bounds = _geo_metadata(path)["columns"][header.geometry_column].get("bbox", ())
        if len(bounds) == 6:  # with heights
            return bounds[0], bounds[1], bounds[3], bounds[4]
        return tuple(bounds) if len(bounds) == 4 else None
    try:
        info = pyogrio.read_info(on_disk(path, header.member), layer=header.layer, force_total_bounds=not is_stored)
    except _DAMAGE as error:
        raise _unreadable(path, error) from None
    bounds = info["total_bounds"]
    return None if bounds is None else tuple(bounds)


def read_features(path: Location, header: FileHeader, columns: list[str], box: Bounds) -> gpd.GeoDataFrame:
    """Features whose bounding box meets `box` (in the file's own coordinates), or a few more; raises as `read_bounds`.

    A file without spatial index is read piece by piece for it: see `iterate_features` for many boxes at once.
    """
    if not header.has_spatial_index:
        pieces = list(iterate_features(path, header, columns, [box]))
        table = pa.concat_tables(pieces) if pieces else pa.table({name: [] for name in [*columns, WKB_COLUMN]})
        return _as_frame(table, header)
    try:
        if header.geometry_column is not None:
            with in_words(path, SETTING):
                return _features_of_parquet(path, header, columns, box)
        meta, table = pyogrio.read_arrow(on_disk(path, header.member), layer=header.layer, columns=columns, bbox=box)
        piece = _piece(table, columns, meta["geometry_name"] or _UNNAMED)
        _require_text(path, piece)
        return _as_frame(piece, header)
    except (*_DAMAGE, shapely.errors.GEOSException) as error:
        raise _unreadable(path, error) from None


def _as_frame(table: pa.Table, header: FileHeader) -> gpd.GeoDataFrame:
    geometry = read_wkb(table[WKB_COLUMN].to_numpy())
    return gpd.GeoDataFrame(table.drop_columns([WKB_COLUMN]).to_pandas(), geometry=geometry, crs=header.crs)


def _features_of_parquet(path: Location, header: FileHeader, columns: list[str], box: Bounds) -> gpd.GeoDataFrame:
    filesystem, name = arrow_path(path)
    names = [*columns, header.geometry_column]
    column = _geo_metadata(path)["columns"][header.geometry_column]
    if column.get("encoding", "WKB") != "WKB":
        return gpd.read_parquet(name, columns=names, bbox=box, filesystem=filesystem)
    left, bottom, right, top = (
        pc.field(*column["covering"]["bbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    meets = (left <= box[2]) & (right >= box[0]) & (bottom <= box[3]) & (top >= box[1])
    schema = _filterable(_schema(path))
    table = pq.read_table(name, columns=names, filters=meets, schema=schema, filesystem=filesystem)
    return _as_frame(_piece(table, columns, header.geometry_column), header)


def iterate_features(
    path: Location,
    header: FileHeader,
    columns: list[str],
    boxes: Sequence[Bounds],
    on_nowhere: Callable[[int], None] = lambda _: None,
) -> Iterator[pa.Table]:
    """Features whose bounding box meets any of some boxes, in the file's order: one pass over the whole file.

    Memory holds one piece of the file, whatever its size. Boxes are in the file's own coordinates; `on_nowhere` is told of
    each piece how many features have no geometry: they lie in no box.

    Yields:
        The columns, and the geometry as WKB in `WKB_COLUMN`.

    Raises:
        InputError: the file is damaged.
    """
    tree = shapely.STRtree([shapely.box(*box) for box in boxes])
    batches = _parquet_batches if header.geometry_column is not None else _layer_batches
    try:
        for batch in batches(path, header, columns):
            _require_text(path, batch)
            geometries = read_wkb(batch[WKB_COLUMN].to_numpy())
            on_nowhere(int((shapely.is_missing(geometries) | shapely.is_empty(geometries)).sum()))
            rows = np.unique(tree.query(geometries)[0])  # compares bounding boxes; what has no geometry meets none
            if len(rows):
                yield batch.take(rows)
    except (*_DAMAGE, shapely.errors.GEOSException) as error:
        raise _unreadable(path, error) from None


def _parquet_batches(path: Location, header: FileHeader, columns: list[str]) -> Iterator[pa.Table]:
    names = [*columns, header.geometry_column]
    filesystem, name = arrow_path(path)
    with (
        in_words(path, SETTING),
        pq.ParquetFile(name, buffer_size=_BUFFER_BYTES, pre_buffer=False, filesystem=filesystem) as file,
    ):
        for batch in file.iter_batches(_BATCH_ROWS, columns=names):
            yield _piece(batch, columns, header.geometry_column)


def _layer_batches(path: Location, header: FileHeader, columns: list[str]) -> Iterator[pa.Table]:
    options = {"layer": header.layer, "columns": columns, "batch_size": _BATCH_ROWS, "use_pyarrow": True}
    with pyogrio.open_arrow(on_disk(path, header.member), **options) as (meta, reader):
        for batch in reader:
            yield _piece(batch, columns, meta["geometry_name"] or _UNNAMED)


def iterate_texts(path: Location, header: FileHeader, column: str) -> Iterator[list[Any]]:
    """The different values of a column, piece by piece; geometries are not read. Raises as `read_bounds`."""
    options = {"columns": [column], "read_geometry": False, "batch_size": _BATCH_ROWS, "use_pyarrow": True}
    try:
        if header.geometry_column is not None:
            filesystem, name = arrow_path(path)
            with in_words(path, SETTING), pq.ParquetFile(name, filesystem=filesystem) as file:
                yield from (
                    pc.unique(batch[column]).to_pylist() for batch in file.iter_batches(_BATCH_ROWS, columns=[column])
                )
            return
        with pyogrio.open_arrow(on_disk(path, header.member), layer=header.layer, **options) as (_, reader):
            yield from (pc.unique(batch[column]).to_pylist() for batch in reader)
    except _DAMAGE as error:
        raise _unreadable(path, error) from None


def _piece(batch: pa.RecordBatch | pa.Table, columns: list[str], geometry_column: str | None) -> pa.Table:
    piece = pa.table({name: batch[name] for name in columns} | {WKB_COLUMN: batch[geometry_column]})
    return piece.cast(_filterable(piece.schema))


def _require_text(path: Location, piece: pa.Table) -> None:
    for name in piece.column_names:
        try:
            piece[name].validate(full=True)
        except pa.ArrowInvalid:
            raise InputError(
                f"parcel file '{path}': the text of column '{name}' is not in the encoding that the file declares, or it "
                f"declares none; write the right one (ISO-8859-1, say) into a file '{path.stem}.cpg' beside a shapefile, or "
                f"write the file again as GeoPackage"
            ) from None


def _filterable(schema: pa.Schema) -> pa.Schema:
    """The schema without views, which Arrow reads and writes but cannot take rows of."""
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    return pa.schema([field.with_type(plain.get(field.type, field.type)) for field in schema], schema.metadata)


def _layer_header(path: Location, layer: str | None) -> FileHeader:
    member = choose_member(path, layer)
    file = on_disk(path, member)
    try:
        layers = [str(name) for name, geometry_type in pyogrio.list_layers(file) if geometry_type is not None]
        chosen = _choose_layer(path, layers, layer if member is None else layer_within(member, layer, layers))
        info = pyogrio.read_info(file, layer=chosen)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise InputError(f"parcel file '{path}' cannot be opened ({_short(error)}); fetch it again") from None
    if file.suffix.lower() == ".shp":
        _require_whole_shapefile(file)
    is_indexed = bool(info["capabilities"]["fast_spatial_filter"])
    names = tuple(map(str, info["fields"]))
    kinds = zip(names, info["dtypes"], info["ogr_subtypes"], strict=True)
    lists = tuple(name for name, kind, subtype in kinds if str(kind).startswith("list") or subtype == "OFSTJSON")
    return FileHeader(chosen, names, _crs(path, info["crs"]), has_spatial_index=is_indexed, lists=lists, member=member)


def _crs(path: Location, text: object) -> CRS | None:
    try:
        return CRS.from_user_input(text) if text else None
    except CRSError as error:
        raise InputError(
            f"parcel file '{path}' names a coordinate system that is not understood ({_short(error)}); write the file "
            f"again with a known one (`ogr2ogr -a_srs EPSG:…`)"
        ) from None


def _require_whole_shapefile(path: Path) -> None:
    """GDAL passes over what a cut file lacks; the headers say how long the parts must be."""
    with path.open("rb") as file:
        n_words = int.from_bytes(file.read(28)[24:], "big", signed=True)
    wanted = {path: 2 * n_words}
    for table in (path.with_suffix(suffix) for suffix in (".dbf", ".DBF")):
        if table.exists():
            with table.open("rb") as file:
                _, n_records, header_bytes, record_bytes = struct.unpack("<4sIHH", file.read(12))
            wanted[table] = header_bytes + n_records * record_bytes
    for part, n_bytes in wanted.items():
        if part.stat().st_size < n_bytes:
            raise InputError(f"'{part}' has {part.stat().st_size:,} of its {n_bytes:,} bytes; fetch it again")


def _choose_layer(path: Location, layers: list[str], wanted: str | None) -> str:
    if wanted is None and len(layers) == 1:
        return layers[0]
    if wanted not in layers:
        seen = f"no layer '{wanted}'" if wanted else f"{len(layers)} layers with geometry"
        raise InputError(f"parcel file '{path}' has {seen}; set 'layer' to one of {layers}")
    return wanted


def _parquet_header(path: Location) -> FileHeader:
    geo = _geo_metadata(path)
    geometry_column = geo["primary_column"]
    column: dict[str, Any] = geo["columns"][geometry_column]
    is_indexed = "covering" in column
    if not is_indexed and column.get("encoding", "WKB") != "WKB":
        raise InputError(
            f"parcel file '{path}' holds its geometry as '{column['encoding']}' without a bounding-box column; "
            f"write it with geopandas' `to_parquet(…, write_covering_bbox=True)`"
        )
    schema = _schema(path)
    # GeoParquet 1.1: an absent key means longitude and latitude, null means unknown.
    return FileHeader(
        layer=None,
        columns=tuple(name for name in schema.names if name != geometry_column),
        crs=_crs(path, column.get("crs", "OGC:CRS84")),
        has_spatial_index=is_indexed,
        geometry_column=geometry_column,
        lists=tuple(field.name for field in schema if pa.types.is_nested(field.type)),
    )


def _geo_metadata(path: Location) -> dict[str, Any]:
    text = (_schema(path).metadata or {}).get(b"geo")
    if text is None:
        raise InputError(f"parcel file '{path}' is Parquet without geometry; write it with geopandas' `to_parquet`")
    try:
        metadata: dict[str, Any] = json.loads(text)
        metadata["columns"][metadata["primary_column"]]  # what all that follows builds on
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"parcel file '{path}' says of its geometry what is no GeoParquet ({type(error).__name__}: {error}); write it "
            f"with geopandas' `to_parquet`"
        ) from None
    return metadata


def _schema(path: Location) -> pa.Schema:
    try:
        with in_words(path, SETTING):
            filesystem, name = arrow_path(path)
            return pq.read_schema(name, filesystem=filesystem)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"parcel file '{path}' is no readable Parquet ({_short(error)}); fetch it again") from None


def _unreadable(path: Location, error: BaseException) -> InputError:
    return InputError(f"parcel file '{path}' cannot be read ({_short(error)}); fetch it again")


def _short(error: BaseException) -> str:
    return str(error).split("; It might help", 1)[0].strip()
