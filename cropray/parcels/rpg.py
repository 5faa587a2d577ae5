"""Declared parcels of a zone, from the French register (RPG) or any file with an id, a crop code and polygons."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyogrio
import shapely
from pydantic import Field, field_validator, model_validator
from pyproj import CRS
from pyproj.exceptions import CRSError

from cropray.core.errors import InputError
from cropray.core.grid import Grid
from cropray.core.legend import FIRST_YEAR, LAST_YEAR
from cropray.core.missing import is_missing
from cropray.core.settings import Settings
from cropray.io.raw_files import InputSetting, local_table
from cropray.io.systems import Bounds, between, bounds_in
from cropray.parcels.cells import as_text, declared_areas, outline_ids
from cropray.parcels.vector_files import (
    SETTING,
    WKB_COLUMN,
    FileHeader,
    is_parquet,
    iterate_features,
    iterate_texts,
    read_bounds,
    read_features,
    read_header,
    require_file,
)
from cropray.parcels.zip_files import is_zip

M2_PER_HA: Final = 10_000
_EXTRACT_LAYER: Final = "parcels"
_OWN_COLUMNS: Final = ("parcel_id", "code", "area_ha")  # what we call them


class ParcelSettings(Settings):
    """Which parcels are declared, and where their crop codes stand."""

    path: InputSetting
    """GeoPackage, shapefile or GeoParquet of parcels, or a zip file of one of the first two, on a disk or in object storage
    (`s3://…`, `gs://…`, `az://…`)."""
    legend: InputSetting | None = None
    """CSV file that says which code belongs to which class, see docs/legends.md; None: the French one that comes with
    cropray."""
    year: int | None = Field(default=None, ge=FIRST_YEAR, le=LAST_YEAR)
    """Year of the French register, whose code table counts; None: the year in which the middle of the season lies."""
    layer: str | None = None
    """Layer to read; needed only where the file has several."""
    crs: str | None = None
    """Coordinate system (`EPSG:2154`) of a file that names none."""
    code_column: str = "CODE_CULTU"
    """Column of the crop code, upper or lower case."""
    id_column: str | None = "ID_PARCEL"
    """Column of the parcel id, upper or lower case; None: there is none, and the outlines tell the parcels apart."""
    area_column: str | None = None
    """Column of the declared area, ha, upper or lower case; None: the area of the polygon. It decides which of two
    parcels lies on top."""
    unknown_codes: Literal["report", "refuse"] = "report"
    """What to do with codes that the legend lacks: leave the parcels unlabelled and report them, or stop."""
    max_unmapped_share: float = Field(default=0.5, ge=0, le=1)
    """Largest share of a region's declared area that may get no class, its codes being unknown or excluded; above it
    the stage stops."""
    inner_buffer_m: float = Field(default=0, ge=0, le=100)
    """Leave pixels unlabelled whose centre is nearer than this to the outline of their parcel, m: they may be mixed.
    Scores leave them out as well, in test zones too."""

    @model_validator(mode="after")
    def _columns_of_their_own(self) -> Self:
        if self.id_column is not None and self.id_column.lower() == self.code_column.lower():
            raise ValueError(
                f"'id_column' and 'code_column' are both '{self.id_column}': all parcels of one crop would be one; name the "
                f"column of the parcel ids, or have one made (a running number will do)"
            )
        others = {name.lower() for name in (self.id_column, self.code_column) if name is not None}
        if self.area_column is not None and self.area_column.lower() in others:
            raise ValueError(
                f"'area_column' is '{self.area_column}', which is the id or the code; name another, or none"
            )
        return self

    @model_validator(mode="after")
    def _year_of_the_french_table(self) -> Self:
        if self.legend is not None and self.year is not None:
            raise ValueError(
                "'year' chooses among the tables of the French legend, and a 'legend' file has one: remove 'year'"
            )
        return self

    @field_validator("crs")
    @classmethod
    def _require_known_crs(cls, value: str | None) -> str | None:
        try:
            return value if value is None else CRS.from_user_input(value).to_string()
        except CRSError:
            raise ValueError("no such coordinate system; write it like EPSG:2154") from None


@dataclass(frozen=True, slots=True)
class ZoneParcels:
    """The parcels of one grid, and what had to be mended."""

    frame: gpd.GeoDataFrame
    """One row per parcel, ordered by parcel_id and then as in the file, with `parcel_id` (text; of one without, made from
    its outline), `code` (text; empty where the file has none), `area_ha` (of the whole parcel, as declared or else from its repaired polygon)
    and `geometry` (2-D, valid)."""
    n_repaired: int
    """Parcels whose polygon was invalid (crossed itself, say) or mixed with lines and points, and was repaired."""
    n_without_area: int
    """Features left out because nothing with an area remained of them: lines, points, flat polygons."""
    n_without_id: int
    """Parcels to which the file gives no id, or a text like `nan` or `NULL`."""


def read_parcels(settings: ParcelSettings, grid: Grid, extract: Path | None = None) -> ZoneParcels:
    """Parcels that reach into a grid, reprojected to its coordinate system.

    They are read from the register or from an `extract`, which `extract_parcels` made for several grids, this one among them.

    Raises:
        InputError: the file cannot be used; the message says why.
    """
    path = settings.path if extract is None else extract
    header, crs, columns = _open(settings) if extract is None else _open_extract(extract)
    raw = read_features(path, header, list(columns.values()), bounds_in(grid, crs))
    geometry = raw.geometry.set_crs(crs, allow_override=True).to_crs(epsg=grid.epsg)
    flat = shapely.force_2d(geometry.to_numpy())
    polygons, is_repaired = _repair(flat)
    is_inside = _reach_into(polygons, grid)
    is_lost = (shapely.area(polygons) == 0) & shapely.intersects(flat, shapely.box(*grid.bounds))
    ids = as_text(raw[columns["parcel_id"]]) if "parcel_id" in columns else pd.Series("", raw.index, dtype=object)
    has_no_id = ids.map(is_missing).to_numpy(bool)
    ids[has_no_id] = outline_ids(raw.geometry.to_numpy()[has_no_id])
    parcels = gpd.GeoDataFrame(
        {
            "parcel_id": ids,
            "code": as_text(raw[columns["code"]]),
            "area_ha": shapely.area(polygons) / M2_PER_HA,
        },
        geometry=polygons,
        crs=f"EPSG:{grid.epsg}",
    )
    if "area_ha" in columns:
        what = f"parcel file '{settings.path}': column '{settings.area_column}'"
        parcels["area_ha"] = declared_areas(raw[columns["area_ha"]], parcels["area_ha"], what)
    frame = parcels[is_inside].sort_values("parcel_id", kind="stable", ignore_index=True)
    n_repaired, n_without_id = int((is_repaired & is_inside).sum()), int((has_no_id & is_inside).sum())
    return ZoneParcels(frame, n_repaired, int(is_lost.sum()), n_without_id)


def has_spatial_index(settings: ParcelSettings) -> bool:
    """Whether the parcels of a rectangle can be read without reading all others; raises as `extract_parcels`."""
    return not is_fetched(settings) and _open(settings)[0].has_spatial_index


def is_fetched(settings: ParcelSettings) -> bool:
    """Whether the register has to be fetched or unpacked whole before it can be read."""
    return is_away(settings) or is_zip(settings.path)


def is_away(settings: ParcelSettings) -> bool:
    """Whether the register has to be fetched before it can be read: in object storage, all but GeoParquet.

    An index does not help there: the R-tree of a GeoPackage leads to a page or two for each parcel, and each is a request.
    """
    return not isinstance(settings.path, Path) and not is_parquet(settings.path)


@contextlib.contextmanager
def fetched(settings: ParcelSettings) -> Iterator[ParcelSettings]:
    """The register as it can be read here: as it is, or as a copy on this disk for the time of the block.

    Raises:
        InputError: it cannot be fetched, or not be used (`check_parcels`). The messages name the register, not the copy.
    """
    if not is_fetched(settings):
        yield settings
        return
    with local_table(settings.path, SETTING) as copy:
        try:
            register = settings.model_copy(update={"path": copy})
            check_parcels(register)
            yield register
        except InputError as error:
            raise InputError(str(error).replace(str(copy), str(settings.path))) from None


def extract_parcels(settings: ParcelSettings, grids: Sequence[Grid], path: Path) -> int:
    """Copy the parcels near some grids to a GeoPackage with a spatial index, in one pass over the register.

    How many of its features have no geometry, and so are in no place, is returned.

    Raises:
        InputError: the file cannot be used.
    """
    header, crs, columns = _open(settings)
    nowhere: list[int] = []
    boxes = [bounds_in(grid, crs) for grid in grids]
    for piece in iterate_features(settings.path, header, list(columns.values()), boxes, nowhere.append):
        _append(piece.rename_columns([*columns, WKB_COLUMN]), path, crs)
    if not path.exists():
        nothing = [pa.array([], pa.string())] * len(columns) + [pa.array([], pa.binary())]
        _append(pa.table(nothing, [*columns, WKB_COLUMN]), path, crs)
    return sum(nowhere)


def cut_extract(extract: Path, grid: Grid, path: Path) -> None:
    """What one of its grids needs of an extract, as an extract of its own, in the same order."""
    header, crs, columns = _open_extract(extract)
    meta, table = pyogrio.read_arrow(
        extract, layer=header.layer, columns=list(columns), bbox=bounds_in(grid, crs), force_2d=False
    )
    geometry = table[meta["geometry_name"] or "wkb_geometry"]
    _append(pa.table({name: table[name] for name in columns} | {WKB_COLUMN: geometry}), path, crs)


def _append(piece: pa.Table, path: Path, crs: CRS) -> None:
    pyogrio.write_arrow(
        piece,
        path,
        layer=_EXTRACT_LAYER,
        driver="GPKG",
        geometry_name=WKB_COLUMN,
        geometry_type="Unknown",
        crs=crs.to_wkt(),
        append=path.exists(),
    )


def check_parcels(settings: ParcelSettings) -> None:
    """Refuse, before any feature is read, a file that cannot be used.

    Raises:
        InputError: no file, no such layer or column, no coordinate system, or coordinates that cannot be in it. Of a
            register that is fetched first (`is_away`) only that there is none.
    """
    if is_away(settings):
        require_file(settings.path)
        return
    header, crs, _ = _open(settings)
    bounds = read_bounds(settings.path, header)
    if bounds is not None and not _can_be_in(bounds, crs):
        raise InputError(
            f"parcel file '{settings.path}' has coordinates {_rounded(bounds)}, which do not lie in {crs.name}; "
            f"set 'crs' to the system they are in (EPSG:2154 for the RPG of metropolitan France)"
        )


def iterate_codes(settings: ParcelSettings) -> Iterator[list[str]]:
    """The different crop codes of the register, piece by piece; raises as `extract_parcels`."""
    header, _, columns = _open(settings)
    for values in iterate_texts(settings.path, header, columns["code"]):
        yield as_text(pd.Series(values)).tolist()


def grids_outside(settings: ParcelSettings, grids: Sequence[Grid]) -> list[bool]:
    """[n] true for grids that the extent of all parcels does not reach; raises as `extract_parcels`.

    All are false where the file does not tell it at once.
    """
    if is_away(settings):
        return [False] * len(grids)
    header, crs, _ = _open(settings)
    bounds = read_bounds(settings.path, header, is_stored=True)
    if bounds is None or not all(map(math.isfinite, bounds)):
        return [False] * len(grids)
    extent = shapely.box(*bounds)
    return [not shapely.intersects(extent, shapely.box(*bounds_in(grid, crs))) for grid in grids]


def describe_extent(settings: ParcelSettings) -> str:
    """Where the file's parcels lie, for messages; of one that had to be fetched or unpacked for it: not looked at."""
    if is_fetched(settings):
        return "another area"
    header, crs, _ = _open(settings)
    bounds = read_bounds(settings.path, header)
    return f"{_rounded(bounds) if bounds else 'unknown bounds'} in {crs.name}"


def _open(settings: ParcelSettings) -> tuple[FileHeader, CRS, dict[str, str]]:
    """Header, coordinate system, and our name of a column → the file's."""
    header = read_header(settings.path, settings.layer)
    wanted = zip(_OWN_COLUMNS, (settings.id_column, settings.code_column, settings.area_column), strict=True)
    columns = {own: _column(settings, header, name) for own, name in wanted if name is not None}
    return header, _crs(settings, header), columns


def _open_extract(path: Path) -> tuple[FileHeader, CRS, dict[str, str]]:
    header = read_header(path, _EXTRACT_LAYER)
    assert header.crs is not None
    return header, header.crs, {name: name for name in _OWN_COLUMNS if name in header.columns}


def _crs(settings: ParcelSettings, header: FileHeader) -> CRS:
    given = CRS.from_user_input(settings.crs) if settings.crs else None
    if header.crs is None and given is None:
        raise InputError(
            f"parcel file '{settings.path}' names no coordinate system (a shapefile's stands in its .prj file); "
            f"set 'crs', which is EPSG:2154 for the RPG of metropolitan France"
        )
    if header.crs is not None and given is not None and not header.crs.equals(given, ignore_axis_order=True):
        raise InputError(
            f"parcel file '{settings.path}' says it is in {header.crs.name}, the settings say {given.name}; "
            f"remove 'crs' from the settings, or mend the file"
        )
    return header.crs or given  # type: ignore[return-value]  # one of them is given


def _column(settings: ParcelSettings, header: FileHeader, wanted: str) -> str:
    found = [name for name in header.columns if name.lower() == wanted.lower()]
    if not found:
        raise InputError(
            f"parcel file '{settings.path}' has no column '{wanted}'; it has {list(header.columns)}: "
            f"set 'id_column' and 'code_column' to two of these, 'id_column: null' where no column tells the parcels apart"
        )
    name = wanted if wanted in found else found[0]
    if name in header.lists:
        raise InputError(
            f"parcel file '{settings.path}': column '{name}' holds several values a row; one text or number is needed: "
            f"set 'id_column' and 'code_column' to others, or write the file with the first of them"
        )
    return name


def _can_be_in(bounds: Bounds, crs: CRS) -> bool:
    """Whether some of a rectangle lies where the coordinate system is meant to be used."""
    area = crs.area_of_use
    if area is None or not all(map(math.isfinite, bounds)):
        return True  # nothing to compare: custom system, or a file without features
    west, south, east, north = between(crs, 4326).transform_bounds(*bounds)
    is_place = all(map(math.isfinite, (west, south, east, north)))
    return is_place and west <= area.east and area.west <= east and south <= area.north and area.south <= north


def _rounded(bounds: Bounds) -> tuple[int, ...]:
    return tuple(round(value) for value in bounds)


def _repair(geometries: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """[n] valid polygons or multipolygons, empty where a geometry has no area; and [n] true where one was changed for it."""
    is_changed = ~shapely.is_valid(geometries) & ~shapely.is_missing(geometries)
    valid = geometries.copy()
    valid[is_changed] = shapely.make_valid(geometries[is_changed])
    is_mixed = ~np.isin(shapely.get_type_id(valid), [shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON])
    for row in np.flatnonzero(is_mixed):
        parts = shapely.get_parts(valid[row]) if valid[row] is not None else []
        valid[row] = shapely.union_all([part for part in parts if shapely.area(part) > 0])
    return valid, is_changed | (is_mixed & (shapely.area(valid) > 0))


def _reach_into(polygons: Any, grid: Grid) -> Any:
    """[n] bool, true where a polygon shares area, not only an edge, with the grid."""
    box = shapely.box(*grid.bounds)
    return shapely.intersects(polygons, box) & ~shapely.touches(polygons, box)
