"""Reading a dataset with Ray Data: once, into the object store, where all trials of all nodes share it."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data

from cropray.cluster.resources import READ_CPUS
from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import SchemaError
from cropray.core.sensors import NODATA
from cropray.core.until_step import hide_after
from cropray.datasets.manifest import BandSums, Manifest
from cropray.datasets.schema import WEIGHT
from cropray.datasets.storage import training_tiles
from cropray.datasets.tiles import TrainingTiles
from cropray.io.storage import Location, arrow_path, files_below
from cropray.io.workspace import Workspace, require

READ_ATTEMPTS: Final = 3
_LOG: Final = logging.getLogger(__name__)
_FAILURES: Final = (ray.exceptions.RayError, pa.ArrowException, OSError, ValueError)


def load_pixels(
    workspace: Workspace, zone_ids: Sequence[str], cube: CubeSpec = STUDY_CUBE, *, is_weighted: bool = False
) -> dict[str, "ray.ObjectRef[pa.Table]"]:
    """Pixel tables of some zones, one object per zone: label, the cube's columns and, where there are such, weights.

    Raises:
        MissingArtefactError: a zone has no table.
        SchemaError: a shard cannot be read.
    """
    columns = ["label", *cube.columns, *([WEIGHT] if is_weighted else [])]
    return _load({zone: workspace.pixels(zone) for zone in zone_ids}, columns)


def load_tiles(workspace: Workspace, zone_ids: Sequence[str]) -> dict[str, "ray.ObjectRef[TrainingTiles]"]:
    """Tiles of some zones, one object of plain arrays per zone; workers map them without a copy. Raises as `load_pixels`.

    The flags of filled steps and the places of the tiles stay in the shards: no model reads them. A tile of 32 pixels
    and the study's cube takes 99 328 bytes; with them it was 111 624.
    """
    tables = _load({zone: workspace.tiles(zone) for zone in zone_ids}, ["x", "labels"])
    return {zone: _as_tiles.remote(table) for zone, table in tables.items()}


def show_until(
    blocks: Mapping[str, "ray.ObjectRef[Any]"], manifest: Manifest, step: int | None
) -> tuple[Mapping[str, "ray.ObjectRef[Any]"], Manifest]:
    """(what `load_pixels` or `load_tiles` gave, with the steps of time after one missing, if there is one; the manifest with the sums of that).

    Networks are normalised by the sums: those of later steps would tell something of them.
    """
    if step is None:
        return blocks, manifest
    made = {
        zone: _show_until.options(num_returns=2).remote(block, manifest.cube, step) for zone, block in blocks.items()
    }
    sums = dict(zip(made, ray.get([found for _, found in made.values()]), strict=True))
    zones = tuple(replace(zone, sums=sums.get(zone.zone_id, zone.sums)) for zone in manifest.zones)
    return {zone: shown for zone, (shown, _) in made.items()}, replace(manifest, zones=zones)


def shown_until(
    block: "pa.Table | TrainingTiles", cube: CubeSpec, step: int
) -> tuple["pa.Table | TrainingTiles", BandSums]:
    """One zone's part of `show_until`."""
    if isinstance(block, TrainingTiles):
        tiles = replace(block, x=hide_after(block.x, cube, step))
        return tiles, _sums(np.moveaxis(tiles.x, 2, 0))
    names = cube.band_columns
    rows = hide_after(np.stack([block[name].to_numpy() for name in names], 1), cube, step)
    for name, column in zip(names, rows.T, strict=True):
        block = block.set_column(block.column_names.index(name), name, pa.array(column))
    return block, _sums(rows.T.reshape(cube.n_bands, -1))


def _sums(bands: npt.NDArray[np.uint16]) -> BandSums:
    """Of [C, …] numbers."""
    values = [band[band != NODATA].astype(np.float64) for band in bands]
    return BandSums(
        tuple(len(v) for v in values), tuple(float(v.sum()) for v in values), tuple(float((v**2).sum()) for v in values)
    )


def _load(folders: dict[str, Location], columns: Sequence[str]) -> dict[str, "ray.ObjectRef[pa.Table]"]:
    files = [
        f for folder in folders.values() for f in files_below(require(folder, "dataset")) if f.suffix == ".parquet"
    ]
    parts: dict[str, list[ray.ObjectRef[pa.Table]]] = {zone: [] for zone in folders}
    blocks, held = _read(files, columns)
    for block, zones in zip(blocks, held, strict=True):
        for zone in zones:
            parts[zone].append(block)
    return {zone: _one_table.remote(zone, list(columns), *blocks) for zone, blocks in parts.items()}


def _read(files: Sequence[Location], columns: Sequence[str]) -> tuple[list["ray.ObjectRef[pa.Table]"], list[list[str]]]:
    """(blocks, zones in each block). What Ray Data's own retries do not mend is tried again.

    SchemaError where it failed each time; damaged shards are named.
    """
    for attempt in range(1, READ_ATTEMPTS):
        try:
            return _read_once(files, columns)
        except _FAILURES as error:
            _LOG.warning("attempt %d of %d to read %d shards failed: %s", attempt, READ_ATTEMPTS, len(files), error)
    try:
        return _read_once(files, columns)
    except _FAILURES as error:
        reason = str(error).strip().splitlines()[-1]
        where = _damaged(files) or "the dataset"
        raise SchemaError(
            f"{where} cannot be read ({reason}), {READ_ATTEMPTS} times; run `cropray dataset CONFIG.yaml --set overwrite=true`"
        ) from error


def _read_once(
    files: Sequence[Location], columns: Sequence[str]
) -> tuple[list["ray.ObjectRef[pa.Table]"], list[list[str]]]:
    filesystem, _ = arrow_path(files[0])
    with _one_task_per_shard():
        dataset = ray.data.read_parquet(
            [arrow_path(file)[1] for file in files],
            filesystem=filesystem,
            columns=["zone_id", *columns],
            partitioning=None,
            override_num_blocks=len(files),
            num_cpus=READ_CPUS,
        )
    blocks = dataset.to_arrow_refs()
    return blocks, ray.get([_zones_of.remote(block) for block in blocks])


@contextlib.contextmanager
def _one_task_per_shard() -> Iterator[None]:
    """Ray Data's first Parquet source.

    The second one packs shards into tasks of its own choice, which took 1.1 GB each and twice the time on shards of a
    few megabytes, and lists files in actors that it does not replace.
    """
    context = ray.data.DataContext.get_current()
    before = context.use_datasource_v2
    context.use_datasource_v2 = False
    try:
        yield
    finally:
        context.use_datasource_v2 = before


def _damaged(files: Sequence[Location]) -> str:
    """The shards that cannot be opened: Ray Data does not say which one stopped it."""
    found = []
    for file in files:
        try:
            with file.open("rb") as stream:
                pq.ParquetFile(stream).read()
        except (OSError, pa.ArrowException):
            found.append(f"shard '{file}'")
    return ", ".join(found)


@ray.remote(num_cpus=READ_CPUS)  # type: ignore[untyped-decorator]  # ray is untyped
def _zones_of(block: pa.Table) -> list[str]:
    return sorted(set(block["zone_id"].to_pylist())) if len(block) else []


@ray.remote(num_cpus=READ_CPUS)  # type: ignore[untyped-decorator]  # ray is untyped
def _one_table(zone: str, columns: list[str], *blocks: pa.Table) -> pa.Table:
    table = pa.concat_tables(blocks)
    return table.filter(pc.equal(table["zone_id"], zone)).select(columns).combine_chunks()


_show_until = ray.remote(num_cpus=READ_CPUS)(shown_until)


@ray.remote(num_cpus=READ_CPUS)  # type: ignore[untyped-decorator]  # ray is untyped
def _as_tiles(table: pa.Table) -> TrainingTiles:
    return training_tiles(table)
