"""Composite rasters on disk: a band for each band and step of the cube, `B02_01` …, and one of counts for each step."""

import json
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.errors

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import SchemaError
from cropray.core.grid import Grid
from cropray.core.sensors import NODATA
from cropray.io.storage import Location, local_file, whole_file
from cropray.io.workspace import require, require_place

CUBE_TAG: Final = "CROPRAY_CUBE"  # JSON of the cube; a raster without it is of the study's
# Deflate level 1: twice as fast as 6 and, with differences between neighbours (predictor 2), as small.
_COG_OPTIONS: Final = {
    "driver": "COG", "compress": "deflate", "level": 1, "predictor": 2, "blocksize": 256,
    "overview_resampling": "nearest",
}  # fmt: skip


def write_composite(path: Location, composite: npt.NDArray[np.uint16], grid: Grid, cube: CubeSpec = STUDY_CUBE) -> None:
    """Write [T, C, H, W] uint16 medians of the steps whole, as a COG with band-major bands; 0 is no data."""
    _require(composite, np.uint16, (*cube.shape, *grid.shape), "a composite")
    band_major = composite.transpose(1, 0, 2, 3).reshape(-1, *grid.shape)
    _write_cog(path, band_major, grid, cube, nodata=NODATA)


def write_n_obs(path: Location, n_obs: npt.NDArray[np.uint8], grid: Grid, cube: CubeSpec = STUDY_CUBE) -> None:
    """Write [T, H, W] uint8 counts of clear observations whole, as a COG."""
    _require(n_obs, np.uint8, (cube.n_steps, *grid.shape), "an array of counts")
    _write_cog(path, n_obs, grid, cube, nodata=None)


def read_composite(path: Location, grid: Grid | None = None, cube: CubeSpec = STUDY_CUBE) -> npt.NDArray[np.uint16]:
    """Medians of the steps [T, C, H, W] uint16, gap-filled, 0 = no data, of a file on a grid; None: anywhere.

    Raises:
        MissingArtefactError: no such file.
        InputError: it lies elsewhere.
        SchemaError: the file is damaged, or is of another cube.
    """
    band_major = _read(path, "uint16", cube.columns, grid, cube)
    return np.ascontiguousarray(band_major.reshape(cube.n_bands, cube.n_steps, *band_major.shape[1:]).swapaxes(0, 1))


def read_n_obs(path: Location, grid: Grid | None = None, cube: CubeSpec = STUDY_CUBE) -> npt.NDArray[np.uint8]:
    """Clear observations per step before gap filling, [T, H, W] uint8; as `read_composite`, whose cube it is of."""
    counts: npt.NDArray[np.uint8] = _read(path, "uint8", n_obs_bands(cube), grid, cube)
    return counts


def n_obs_bands(cube: CubeSpec) -> tuple[str, ...]:
    """Names of the bands of observation counts."""
    return tuple(f"n_obs_{step}" for step in cube.step_names)


def _require(array: npt.NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...], what: str) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{what} of this grid is {shape} of {np.dtype(dtype)}; got {array.shape} of {array.dtype}")


def _write_cog(path: Location, bands: npt.NDArray[Any], grid: Grid, cube: CubeSpec, nodata: int | None) -> None:
    profile = {
        "dtype": bands.dtype, "count": len(bands), "height": grid.height, "width": grid.width, "nodata": nodata,
        "crs": f"EPSG:{grid.epsg}", "transform": rasterio.Affine(*grid.transform),
    }  # fmt: skip
    with whole_file(path) as temporary, rasterio.open(temporary, "w", **_COG_OPTIONS, **profile) as dataset:
        dataset.write(bands)
        dataset.descriptions = n_obs_bands(cube) if nodata is None else cube.columns
        dataset.update_tags(**{CUBE_TAG: json.dumps(cube.to_record())})


def _read(path: Location, dtype: str, names: tuple[str, ...], grid: Grid | None, cube: CubeSpec) -> npt.NDArray[Any]:
    try:
        with local_file(require(path, "acquire")) as file, rasterio.open(file) as dataset:
            _require_cube(path, dataset, cube)
            if dataset.descriptions != names or set(dataset.dtypes) != {dtype}:
                raise SchemaError(
                    f"'{path}' has {dataset.count} {dataset.dtypes[0]} bands {dataset.descriptions[:2]}…; it needs "
                    f"{len(names)} {dtype} bands {names[:2]}…: run `cropray acquire CONFIG.yaml` again"
                )
            require_place(path, dataset, grid, "acquire")
            bands: npt.NDArray[Any] = dataset.read()
            return bands
    except rasterio.errors.RasterioError as error:
        raise SchemaError(f"'{path}' is damaged ({error}); remove it and run `cropray acquire CONFIG.yaml`") from None


def _require_cube(path: Location, dataset: Any, cube: CubeSpec) -> None:
    """Refuse what says that it is of another cube; what says nothing has the study's where it has its bands."""
    tag = dataset.tags().get(CUBE_TAG)
    if tag is None and dataset.descriptions not in (STUDY_CUBE.columns, n_obs_bands(STUDY_CUBE)):
        return
    try:
        there = STUDY_CUBE if tag is None else CubeSpec.from_record(json.loads(tag))
    except (KeyError, TypeError, ValueError) as error:
        raise SchemaError(
            f"'{path}' has a tag {CUBE_TAG} that is no cube ({type(error).__name__}: {error}); remove it and run "
            f"`cropray acquire CONFIG.yaml`"
        ) from None
    if there.fingerprint() != cube.fingerprint():
        raise SchemaError(
            f"'{path}' is of another cube, {there.describe()}; needed is {cube.describe()}: run `cropray acquire "
            f"CONFIG.yaml` again, or put 'cube' back"
        )
