"""Labelled points: a user's own Parquet table becomes a dataset of pixel tables, without images and tiles."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, field_validator, model_validator

from cropray.core.cube import STUDY_CUBE, CubeSpec, PointCube
from cropray.core.cube_settings import OwnBand
from cropray.core.errors import InputError, LeakageError
from cropray.core.folds import make_folds
from cropray.core.legend import MAX_CLASSES, Legend, legend_from_names
from cropray.core.missing import is_missing
from cropray.core.sensors import NODATA, REFLECTANCE_SCALE, SATURATED, Band
from cropray.core.settings import Settings
from cropray.datasets.build import band_sums
from cropray.datasets.doubts import alike_doubts, some
from cropray.datasets.manifest import ZoneEntry
from cropray.datasets.point_numbers import PointValues, stored_numbers, stored_weights
from cropray.datasets.schema import POINT_PARCEL, WEIGHT, pixel_schema
from cropray.datasets.storage import PIXEL_FILE, shard_hashes
from cropray.io.raw_files import InputSetting, in_words, is_there
from cropray.io.storage import Location, arrow_path, local_folder, relative, whole_folder
from cropray.io.workspace import Workspace
from cropray.io.zones import SPLITS, is_zone_id

TEXT_COLUMNS: Final = ("zone_id", "region", "split", "label")
COORDINATES: Final = {"lon": 180.0, "lat": 90.0}  # largest absolute value, degrees (WGS 84)
_SETTING: Final = "points.path"  # in messages
_NOT_FEATURES: Final = {*TEXT_COLUMNS, *COORDINATES, WEIGHT, *pixel_schema().names} - {*STUDY_CUBE.columns}
_STATIC_VALUES: Final = PointValues(1.0, 0.0)
_LARGEST_OF_8_BITS: Final = 255


class StaticFeature(OwnBand):
    """A column of the table that has no time. A stored number n > 0 is the value `n · scale + offset`; 0 is missing."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Name of the column: letters, digits, `_` and `-`."""

    @field_validator("id")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name in _NOT_FEATURES:
            raise ValueError(f"'{name}' is a column that every dataset has; rename the static one")
        return name


class PointsSettings(Settings):
    """A table of labelled points."""

    path: InputSetting
    """Parquet file, on a disk or in object storage (`s3://…`, `gs://…`, `az://…`): `zone_id region split label lon lat` and a
    column per band and step of `cube`, `B02_01 … B08_12`, 0 = missing.
    A column `weight`, where there is one, says how often each row counts in training; validation and test count each once."""
    static: tuple[StaticFeature, ...] = ()
    """Columns without time that models of pixels read beside the bands, as `{id: elevation, unit: m, scale: 1, offset: -500}`.
    The table holds values in the unit, whole numbers too; NaN or empty = missing, and where `offset` is 0 also 0."""
    scale: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """What the numbers of bands are multiplied with to become values in the unit of their band, which are then stored by
    the band's own scale and offset; 1 where they are such values, NaN or empty = missing. None: whole numbers are the
    bands' stored numbers, and fractions are values in the unit, as far as that is not reflectance."""
    offset: float = Field(default=0.0, allow_inf_nan=False)
    """Added after the multiplication; needs `scale`."""

    @model_validator(mode="after")
    def _offset_has_a_scale(self) -> Self:
        if self.offset and self.scale is None:
            raise ValueError(
                "'offset' is added to what 'scale' gives; set 'scale' too, to 1 where nothing is multiplied"
            )
        return self

    def of_cube(self, cube: CubeSpec) -> CubeSpec:
        """A cube with the static features.

        Raises:
            ValueError: one is called as another column is.
        """
        static = tuple(Band(one.id, one.unit, one.scale, one.offset) for one in self.static)
        return PointCube(cube.bands, cube.step, cube.months, static) if static else cube

    @property
    def values(self) -> PointValues | None:
        """How the table's numbers become values; None: they are the bands' stored numbers."""
        return None if self.scale is None else PointValues(self.scale, self.offset)


def columns_of_points(cube: CubeSpec | PointCube) -> tuple[str, ...]:
    """What a table of points needs."""
    return (*TEXT_COLUMNS, *COORDINATES, *cube.columns)


def read_points(path: Location, cube: CubeSpec = STUDY_CUBE, values: PointValues | None = None) -> pa.Table:
    """Read and check a table of labelled points, before anything is written.

    Args:
        path: Parquet file. `zone_id`, `region`, `split` (`train` or `test`) and `label` (any class name) are texts,
            `lon` and `lat` degrees, the cube's columns whole numbers that its bands make values of (reflectance ×
            10 000), 0 = missing; or what `values` converts. Static features are values, NaN or empty = missing.
            `weight` may be there: numbers > 0.
        cube: bands and steps of the features, and static ones.
        values: how the table's numbers become values in the units of the bands; None: see above.

    Returns:
        Exactly `columns_of_points(cube)`: strings, float64, uint16, and `weight`, where there is one, float32; rows in
        the file's order.

    Raises:
        InputError: the file, a column, a type or a value cannot be used; the message names it.
        LeakageError: a zone belongs to both splits.
    """
    raw = _read(path, cube)
    is_reflectance = all(band.is_plain_reflectance for band in cube.bands)
    if values is None and is_reflectance and {raw[name].type for name in cube.band_columns} <= {pa.uint8(), pa.int8()}:
        raise InputError(
            f"points '{path}': all features are of 8 bits, which cannot hold digital numbers (reflectance × 10 000); "
            f"convert them, or set points.scale to what makes values of them"
        )
    table = _typed(raw, path, cube, values)
    if table.num_rows == 0:
        raise InputError(f"points '{path}' has no rows")
    _check_values(table, path)
    _check_zones(table, path)
    return table


def points_doubts(table: pa.Table, path: Location, cube: CubeSpec = STUDY_CUBE) -> list[str]:
    """What a reader of the scores must know of a table that `read_points` checked: unused columns, names alike, saturation."""
    doubts = []
    unused = sorted(set(_column_names(path)) - {*columns_of_points(cube), WEIGHT})
    if unused:
        doubts.append(f"columns of the points table that are not used ({len(unused)}): {some(unused)}")
    for column, names in (("label", "labels"), ("region", "regions"), ("zone_id", "zone ids")):
        doubts += alike_doubts(names, pc.unique(table[column]).to_pylist())
    missing = {name: pc.sum(pc.equal(table[name], NODATA)).as_py() for name in cube.static_ids}
    if any(missing.values()):
        listing = some([f"{name} {n:,}" for name, n in missing.items() if n])
        doubts.append(f"points without a value of static features (where the offset is 0, also those of 0): {listing}")
    if WEIGHT in table.column_names:
        ends = pc.min_max(table[WEIGHT]).as_py()
        doubts.append(
            f"training weighs the points by the column {WEIGHT} ({ends['min']:g} to {ends['max']:g}); validation and test "
            f"count each once"
        )
    largest = max(pc.max(table[name]).as_py() for name in cube.band_columns)
    if largest <= _LARGEST_OF_8_BITS and all(band.is_plain_reflectance for band in cube.bands):
        doubts.append(
            f"no feature is larger than {largest}, a reflectance of {largest * REFLECTANCE_SCALE:.2%}: land is brighter; "
            f"are these digital numbers (reflectance × 10 000)?"
        )
    n_saturated = sum(pc.sum(pc.equal(table[name], SATURATED)).as_py() for name in cube.band_columns)
    if n_saturated:
        doubts.append(
            f"{n_saturated:,} features are {SATURATED}, which stands for saturated or no value in many products and is "
            f"taken as a number here; if it is none, write 0"
        )
    return doubts


def points_legend(table: pa.Table) -> Legend:
    """The legend of a checked table: its class names in alphabetical order.

    Raises:
        InputError: more classes than a class id can hold.
    """
    names = sorted(pc.unique(table["label"]).to_pylist())
    if len(names) > MAX_CLASSES:
        raise InputError(f"the points have {len(names)} different labels, at most {MAX_CLASSES} are possible")
    return legend_from_names(names)


def write_points(table: pa.Table, workspace: Workspace, legend: Legend, cube: CubeSpec = STUDY_CUBE) -> None:
    """Write a checked table as pixel tables, one zone a partition, each zone whole.

    Rows have `parcel`, `row` and `col` −1; `n_clear` counts the steps with any value.
    """
    for zone_id, rows in _by_zone(table):
        with whole_folder(workspace.pixels(zone_id)) as folder:
            pq.write_table(_pixel_table(rows, legend, cube), folder / PIXEL_FILE, compression="zstd")


def points_folds(table: pa.Table, n_folds: int) -> dict[str, int]:
    """Training zone of a checked table → validation fold.

    Raises:
        ConfigError: fewer training zones than folds.
    """
    zones = {zone_id: rows for zone_id, rows in _by_zone(table) if _first(rows, "split") == "train"}
    counts = {zone_id: _class_counts(rows) for zone_id, rows in zones.items()}
    return make_folds(counts, {zone_id: _first(rows, "region") for zone_id, rows in zones.items()}, n_folds)


def points_entries(
    table: pa.Table,
    workspace: Workspace,
    folds: Mapping[str, int],
    n_trimmed: Mapping[str, int],
    cube: CubeSpec = STUDY_CUBE,
) -> list[ZoneEntry]:
    """Manifest entries of the zones of a table as `write_points` wrote it, sorted by zone id.

    `folds` are those of training zones; `n_trimmed` counts the points that a zone had before and the table has no more.
    """
    return [
        ZoneEntry(
            zone_id=zone_id,
            region=_first(rows, "region"),
            split="train" if zone_id in folds else "test",
            fold=folds.get(zone_id),
            counts=_class_counts(rows),
            n_trimmed=n_trimmed.get(zone_id, 0),
            n_tiles=0,
            sums=band_sums(_features(rows, cube).transpose(2, 1, 0)[..., None]),
            files=_hashes(workspace, zone_id),
            n_empty=int((_features(rows, cube) == NODATA).all(axis=(1, 2)).sum()),
        )
        for zone_id, rows in _by_zone(table)
    ]


def _read(path: Location, cube: CubeSpec) -> pa.Table:
    if not is_there(path, _SETTING):
        raise InputError(f"points '{path}' does not exist; set points.path to a Parquet file")
    try:
        names, wanted = _column_names(path), columns_of_points(cube)
        wanted = (*wanted, WEIGHT) if WEIGHT in names else wanted
        missing = [name for name in wanted if name not in names]
        twice = sorted({name for name in names if names.count(name) > 1} & set(wanted))
        if twice:
            raise InputError(f"points '{path}' has the columns {twice} more than once; remove all but one of each")
        if missing:
            raise InputError(
                f"points '{path}' lacks the columns {missing}; it has {sorted(names)}. Needed are "
                f"{', '.join((*TEXT_COLUMNS, *COORDINATES))} and {cube.band_columns[0]} … {cube.band_columns[-1]}, as "
                f"'cube' says{f', and {listing} of points.static' if (listing := ', '.join(cube.static_ids)) else ''}"
            )
        with in_words(path, _SETTING):
            filesystem, file = arrow_path(path)
            return pq.read_table(file, columns=list(wanted), filesystem=filesystem).select(wanted)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"points '{path}' is not a readable Parquet file ({error}); export it again") from None


def _column_names(path: Location) -> list[str]:
    with in_words(path, _SETTING):
        filesystem, file = arrow_path(path)
        return list(pq.read_schema(file, filesystem=filesystem).names)


def _typed(table: pa.Table, path: Location, cube: CubeSpec, values: PointValues | None) -> pa.Table:
    wanted = {name: pa.string() for name in TEXT_COLUMNS} | {name: pa.float64() for name in COORDINATES}
    columns = {}
    for name, type_ in wanted.items():
        if table[name].null_count:
            raise InputError(
                f"points '{path}': column '{name}' has {table[name].null_count} empty values; "
                f"write 0 for a missing feature and drop rows without label, zone or place"
            )
        try:
            columns[name] = table[name].cast(type_)
        except pa.ArrowException:
            raise InputError(f"points '{path}': column '{name}' is {table[name].type}, it must be {type_}") from None
    bands = [(band, values) for band in cube.bands for _ in cube.step_names]
    bands += [(band, _STATIC_VALUES) for band in cube.static]
    makers = {n: partial(stored_numbers, band=b, values=v) for n, (b, v) in zip(cube.columns, bands, strict=True)}
    weight = {WEIGHT: stored_weights} if WEIGHT in table.column_names else {}
    for name, stored in (makers | weight).items():
        try:
            columns[name] = stored(table[name])
        except ValueError as error:
            raise InputError(f"points '{path}': column '{name}' {error}") from None
    return pa.table(columns)


def _check_values(table: pa.Table, path: Location) -> None:
    for name in ("zone_id", "region", "label"):
        unset = [text for text in pc.unique(table[name]).to_pylist() if is_missing(text)]
        if unset:
            n = pc.sum(pc.is_in(table[name], pa.array(unset))).as_py()
            raise InputError(
                f"points '{path}': column '{name}' has {n} empty values, written as {', '.join(map(repr, unset))}; "
                f"drop these rows, or write a name that does not stand for a missing value"
            )
    for name, limit in COORDINATES.items():
        values = table[name].to_numpy()
        outside = np.flatnonzero(~(np.abs(values) <= limit))
        if outside.size:
            raise InputError(
                f"points '{path}', row {outside[0]}: {name} is {values[outside[0]]}, not within ±{limit:g}°; "
                f"{name} must be degrees in WGS 84"
            )
    splits = set(pc.unique(table["split"]).to_pylist())
    unknown = sorted(splits - set(SPLITS))
    if unknown:
        raise InputError(f"points '{path}' has the splits {unknown}; a split must be one of {list(SPLITS)}")
    absent = sorted(set(SPLITS) - splits)
    if absent:
        raise InputError(
            f"points '{path}' has no {absent[0]} zone; mark whole zones as '{absent[0]}' in the column split"
        )
    unfit = [zone_id for zone_id in pc.unique(table["zone_id"]).to_pylist() if not is_zone_id(zone_id)]
    if unfit:
        raise InputError(f"points '{path}' has zone ids {unfit[:5]}; use letters, digits, '-' and '_' only")


def _check_zones(table: pa.Table, path: Location) -> None:
    for column, consequence in (("region", InputError), ("split", LeakageError)):
        several = _zones_with_several(table, column)
        if several:
            zone_id, values = several[0]
            raise consequence(
                f"points '{path}': {len(several)} zones have more than one {column}, zone '{zone_id}' has {values}; "
                f"a zone belongs to exactly one {column}: give the parts different zone ids"
            )


def _zones_with_several(table: pa.Table, column: str) -> list[tuple[str, list[str]]]:
    """Zones that occur with more than one value of `column`, with those values."""
    groups = table.group_by("zone_id").aggregate([(column, "distinct")])
    several = groups.filter(pc.greater(pc.list_value_length(groups[f"{column}_distinct"]), 1))
    return [(row["zone_id"], sorted(row[f"{column}_distinct"])) for row in several.to_pylist()]


def _by_zone(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Rows of each zone in the table's order, zones sorted by id."""
    zone_ids, codes = np.unique(np.array(table["zone_id"].to_pylist()), return_inverse=True)
    ordered = table.take(np.argsort(codes, kind="stable"))
    starts = np.searchsorted(np.sort(codes), np.arange(len(zone_ids) + 1))
    for zone_id, start, stop in zip(zone_ids.tolist(), starts[:-1], starts[1:], strict=True):
        yield zone_id, ordered.slice(start, stop - start)


def _pixel_table(rows: pa.Table, legend: Legend, cube: CubeSpec) -> pa.Table:
    ids = {name: class_id for class_id, name in enumerate(legend.names)}
    no_place = np.full(rows.num_rows, POINT_PARCEL, np.int32)
    columns: Mapping[str, object] = {
        "parcel": no_place,
        "row": no_place,
        "col": no_place,
        "label": np.array([ids[name] for name in rows["label"].to_pylist()], np.uint8),
        "n_clear": (_features(rows, cube) != NODATA).any(axis=1).sum(axis=1, dtype=np.uint8),
    }
    schema = pixel_schema(cube)
    if WEIGHT in rows.column_names:
        schema = schema.append(pa.field(WEIGHT, pa.float32(), nullable=False))
    return pa.table({name: columns[name] if name in columns else rows[name] for name in schema.names}, schema=schema)


def _features(rows: pa.Table, cube: CubeSpec) -> npt.NDArray[np.uint16]:
    """[N, C, T] digital numbers."""
    columns = np.stack([rows[name].to_numpy() for name in cube.band_columns], axis=1)
    return columns.reshape(-1, cube.n_bands, cube.n_steps)


def _class_counts(rows: pa.Table) -> dict[str, int]:
    """Class name → points, in alphabetical order as in the legend."""
    return dict(sorted((row["values"], row["counts"]) for row in pc.value_counts(rows["label"]).to_pylist()))


def _first(rows: pa.Table, column: str) -> str:
    value = rows[column][0].as_py()
    assert isinstance(value, str)
    return value


def _hashes(workspace: Workspace, zone_id: str) -> dict[str, str]:
    folder = workspace.pixels(zone_id)
    with local_folder(folder) as files:
        return shard_hashes(files, relative(folder, workspace.dataset))
