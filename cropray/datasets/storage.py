"""One zone of a dataset on disk, without Ray."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import SchemaError
from cropray.datasets.schema import pixel_schema, tile_schema
from cropray.datasets.tiles import Tiles, TrainingTiles
from cropray.io.storage import Location, file_hash, files_below
from cropray.io.workspace import Workspace, require
from cropray.io.zones import Zone

TILES_PER_SHARD: Final = 64  # one row group: 64 tiles of 32 px are 7 MB, what one training step reads

PIXEL_FILE: Final = "part-0.parquet"  # the one shard of a zone's pixel table


def write_tiles(tiles: Tiles, zone: Zone, folder: Path, cube: CubeSpec = STUDY_CUBE) -> None:
    """Write tiles as Parquet shards of `TILES_PER_SHARD` rows."""
    size = tiles.labels.shape[-1]
    schema = tile_schema(size, cube)
    for number, start in enumerate(range(0, len(tiles.row), TILES_PER_SHARD)):
        part = slice(start, start + TILES_PER_SHARD)
        n = len(tiles.row[part])
        columns = {
            "zone_id": pa.array([zone.zone_id] * n, pa.string()),
            "region": pa.array([zone.region] * n, pa.string()),
            "row": pa.array(tiles.row[part]),
            "col": pa.array(tiles.col[part]),
        }
        for name, array in (("x", tiles.x), ("labels", tiles.labels), ("valid", tiles.valid.view(np.uint8))):
            columns[name] = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array[part]))
        table = pa.table([columns[name] for name in schema.names], schema=schema)
        pq.write_table(table, folder / f"shard-{number:04d}.parquet", compression="zstd")


def shard_hashes(folder: Path, prefix: str) -> dict[str, str]:
    """`prefix/file name` → SHA-256 of each shard in a folder."""
    return {f"{prefix}/{file.name}": file_hash(file) for file in sorted(folder.glob("*.parquet"))}


def read_pixels(workspace: Workspace, zone_id: str, cube: CubeSpec = STUDY_CUBE) -> pa.Table:
    """The pixel table of a zone, columns of `pixel_schema(cube)`.

    Raises:
        MissingArtefactError: the zone has no table.
        SchemaError: a file is damaged or has other columns; it is named.
    """
    return _read(workspace.pixels(zone_id), pixel_schema(cube))


def read_tiles(workspace: Workspace, zone_id: str, tile_size: int, cube: CubeSpec = STUDY_CUBE) -> Tiles:
    """The tiles of a zone; raises as `read_pixels`."""
    table = _read(workspace.tiles(zone_id), tile_schema(tile_size, cube))
    tiles = training_tiles(table)
    return Tiles(
        x=tiles.x,
        labels=tiles.labels,
        valid=_tensor(table, "valid").view(np.bool_),
        row=table["row"].to_numpy(),
        col=table["col"].to_numpy(),
    )


def training_tiles(table: pa.Table) -> TrainingTiles:
    """Columns `x` and `labels` of `tile_schema` as arrays; without a copy where the table is one chunk."""
    return TrainingTiles(_tensor(table, "x"), _tensor(table, "labels"))


def _tensor(table: pa.Table, name: str) -> npt.NDArray[Any]:
    column = table[name].combine_chunks()
    chunk = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    array: npt.NDArray[Any] = chunk.to_numpy_ndarray()
    return array


def _read(folder: Location, schema: pa.Schema) -> pa.Table:
    files = [file for file in files_below(require(folder, "dataset")) if file.suffix == ".parquet"]
    return pa.concat_tables([_read_file(file, schema) for file in files]) if files else schema.empty_table()


def _read_file(file: Location, schema: pa.Schema) -> pa.Table:
    try:
        with file.open("rb") as stream:
            table = pq.ParquetFile(stream).read(columns=schema.names)
    except (OSError, pa.ArrowException) as error:
        raise SchemaError(
            f"shard '{file}' cannot be read ({error}); run `cropray dataset CONFIG.yaml --set overwrite=true`"
        ) from None
    if table.schema.names != schema.names or table.schema.types != schema.types:
        missing = sorted(set(schema.names) - set(table.schema.names))
        raise SchemaError(
            f"shard '{file}' has other columns than this cropray reads (missing: {missing or 'none, types differ'}); "
            f"run `cropray dataset CONFIG.yaml --set overwrite=true`"
        )
    return table
