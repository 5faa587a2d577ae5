"""Composite rasters on disk: 48 bands `B02_01` … `B08_12`, and 12 bands of observation counts."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.errors

from cropray.bands import BAND_IDS, FEATURE_COLUMNS, N_BANDS, N_MONTHS, NODATA
from cropray.errors import SchemaError
from cropray.grid import Grid
from cropray.storage import Location, local_file, whole_file
from cropray.workspace import require, require_place

N_OBS_BANDS: Final = tuple(f"n_obs_{month:02d}" for month in range(1, N_MONTHS + 1))
# Deflate level 1: twice as fast as 6 and, with differences between neighbours (predictor 2), as small.
_COG_OPTIONS: Final = {
    "driver": "COG", "compress": "deflate", "level": 1, "predictor": 2, "blocksize": 256,
    "overview_resampling": "nearest",
}  # fmt: skip


def write_composite(path: Location, composite: npt.NDArray[np.uint16], grid: Grid) -> None:
    """Write [T, C, H, W] uint16 monthly medians whole, as a COG with band-major bands; 0 is no data."""
    if composite.shape != (N_MONTHS, N_BANDS, *grid.shape):
        raise ValueError(f"a composite of this grid is {(N_MONTHS, N_BANDS, *grid.shape)}; got {composite.shape}")
    band_major = composite.transpose(1, 0, 2, 3).reshape(-1, *grid.shape)
    _write_cog(path, band_major, grid, FEATURE_COLUMNS, nodata=NODATA)


def write_n_obs(path: Location, n_obs: npt.NDArray[np.uint8], grid: Grid) -> None:
    """Write [T, H, W] uint8 counts of clear observations whole, as a COG."""
    if n_obs.shape != (N_MONTHS, *grid.shape):
        raise ValueError(f"counts of this grid are {(N_MONTHS, *grid.shape)}; got {n_obs.shape}")
    _write_cog(path, n_obs, grid, N_OBS_BANDS, nodata=None)


def read_composite(path: Location, grid: Grid | None = None) -> npt.NDArray[np.uint16]:
    """Monthly medians [T, C, H, W] uint16, gap-filled; 0 is no data.

    Args:
        path: the file.
        grid: where it must lie; None: anywhere.

    Raises:
        MissingArtefactError: no such file.
        InputError: it lies elsewhere.
        SchemaError: the file is damaged, or its bands are not the 48 features in order.
    """
    band_major = _read(path, "uint16", FEATURE_COLUMNS, grid)
    return np.ascontiguousarray(band_major.reshape(len(BAND_IDS), N_MONTHS, *band_major.shape[1:]).swapaxes(0, 1))


def read_n_obs(path: Location, grid: Grid | None = None) -> npt.NDArray[np.uint8]:
    """Clear observations per month before gap filling, [T, H, W] uint8.

    Args:
        path: the file.
        grid: where it must lie; None: anywhere.

    Raises:
        MissingArtefactError: no such file.
        InputError: it lies elsewhere.
        SchemaError: the file is damaged or has other bands.
    """
    counts: npt.NDArray[np.uint8] = _read(path, "uint8", N_OBS_BANDS, grid)
    return counts


def _write_cog(path: Location, bands: npt.NDArray[Any], grid: Grid, names: tuple[str, ...], nodata: int | None) -> None:
    profile = {
        "dtype": bands.dtype, "count": len(bands), "height": grid.height, "width": grid.width, "nodata": nodata,
        "crs": f"EPSG:{grid.epsg}", "transform": rasterio.Affine(*grid.transform),
    }  # fmt: skip
    with whole_file(path) as temporary, rasterio.open(temporary, "w", **_COG_OPTIONS, **profile) as dataset:
        dataset.write(bands)
        dataset.descriptions = names


def _read(path: Location, dtype: str, names: tuple[str, ...], grid: Grid | None) -> npt.NDArray[Any]:
    try:
        with local_file(require(path, "acquire")) as file, rasterio.open(file) as dataset:
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
