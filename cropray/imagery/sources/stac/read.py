"""The part of a raster file that a zone needs, from a disk or over the network, on the zone's grid."""

import functools
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.errors
import rasterio.windows

from cropray.core.errors import InputError
from cropray.core.grid import MAX_DRIFT_PX, Grid, Window
from cropray.core.redaction import hide_secrets_of_network, redact
from cropray.core.sensors import NODATA, SATURATED
from cropray.imagery.sources.stac.doors import driver_of
from cropray.io.retry import Judgement, RetryPolicy, Verdict, with_retries

ResultT = TypeVar("ResultT")

BUSY: Final = (408, 425, 429, 500, 502, 503, 504)  # statuses that pass

_GDAL_OPTIONS: Final = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no look for files beside it: each would be a request
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # the whole directory of a scene's COG in the first request
}
_STATUS: Final = re.compile(r"HTTP response code: (\d{3})")


def read_band(href: str, grid: Grid, out: npt.NDArray[Any], policy: RetryPolicy, timeout_s: float) -> None:
    """First band of a file on a grid; each value is repeated where its pixels are larger.

    The file must lie in the grid's system, with pixels that line up, of its size or a multiple. `out`, [H, W] uint8 or
    uint16, is filled: 0 outside the file and where it has no data. `timeout_s` is the longest silence of a server, s.

    Raises:
        InputError: the file cannot be read, or does not fit the grid.
    """

    def read() -> None:
        with rasterio.open(href, driver=driver_of(href)) as dataset:
            read_on_grid(dataset, grid, out)

    try:
        with_network(href, read, policy, timeout_s)
    except (rasterio.errors.RasterioError, OSError) as error:
        attempts = f", after {policy.max_attempts} attempts" if _judge_of(href)(error).verdict is Verdict.WAIT else ""
        raise InputError(f"{plain(href)}: {redact(str(error))}{attempts}") from None
    except ValueError as error:
        raise InputError(f"{plain(href)} does not fit the zone's grid: {error}") from None


def plain(href: str) -> str:
    """An address for messages: without its query, where signatures stand."""
    return redact(href.partition("?")[0])


def signed(href: str, service: Literal["planetary_computer"] | None) -> str:
    """An address as a service gives it out for reading, for an hour or so; None: as it is."""
    if service is None:
        return href
    import planetary_computer  # noqa: PLC0415  it takes a second to load, and few need it

    return str(planetary_computer.sign_url(href))


def with_network(href: str, read: Callable[[], ResultT], policy: RetryPolicy, timeout_s: float) -> ResultT:
    """The result of a function that opens and reads one file with rasterio; repeated while the network fails.

    Raises:
        Exception: what `read` raised last.
    """
    hide_secrets_of_network()
    errors: Counter[str] = Counter()
    options = {
        **_GDAL_OPTIONS,
        "GDAL_HTTP_CONNECTTIMEOUT": f"{timeout_s:g}",
        "GDAL_HTTP_LOW_SPEED_TIME": f"{timeout_s:g}",
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1",  # bytes per second
    }

    def attempt() -> ResultT:
        # GDAL remembers what a server answered, its failures too: at a second attempt it must forget.
        forget = {"CPL_VSIL_CURL_NON_CACHED": "/vsicurl/"} if errors else {}
        with rasterio.Env(**options, **forget):
            return read()

    return with_retries(attempt, _judge_of(href), policy, errors)


def _judge_of(href: str) -> Callable[[Exception], Judgement]:
    is_remote = "://" in href and not href.startswith("file:")
    return _judge if is_remote else _stop


def _judge(error: Exception) -> Judgement:
    """What GDAL says of the network passes, except for a status that will not change."""
    if not isinstance(error, rasterio.errors.RasterioError | OSError):
        return _stop(error)
    status = _STATUS.search(str(error))
    is_final = status is not None and int(status[1]) not in BUSY
    return Judgement(Verdict.STOP if is_final else Verdict.WAIT, status[1] if status else type(error).__name__)


def _stop(error: Exception) -> Judgement:
    return Judgement(Verdict.STOP, type(error).__name__)


def read_on_grid(dataset: Any, grid: Grid, out: npt.NDArray[Any]) -> None:
    """First band of rasterio's open dataset on a grid, as `read_band`.

    Raises:
        ValueError: it does not fit the grid.
        OSError: it does not say where it lies.
        RasterioError: it cannot be read.
    """
    fine, step = _grid_of(dataset, grid.resolution_m)
    _require_type(dataset.dtypes[0], out.dtype)
    wanted = fine.window_of(grid)
    top, left = max(wanted.row, 0), max(wanted.col, 0)
    bottom, right = min(wanted.row + wanted.height, fine.height), min(wanted.col + wanted.width, fine.width)
    inside = Window(top, left, bottom - top, right - left)
    if inside == wanted and step == 1 and dataset.dtypes[0] == out.dtype:
        dataset.read(1, window=rasterio.windows.Window(left, top, wanted.width, wanted.height), out=out)
    else:
        out[...] = 0
        if top < bottom and left < right:
            values = np.minimum(_read_window(dataset, inside, step), np.iinfo(out.dtype).max)
            out[top - wanted.row : bottom - wanted.row, left - wanted.col : right - wanted.col] = values
    if dataset.nodata not in {None, NODATA}:
        out[out == dataset.nodata] = NODATA
    if out.dtype == np.uint16:
        out[out == SATURATED] = NODATA


def _grid_of(dataset: Any, resolution_m: float) -> tuple[Grid, int]:
    """The file's grid at a resolution, and how many of its pixels make one of the file's."""
    if dataset.crs is None or dataset.transform.is_identity:  # also what is left of an answer that was cut off
        raise OSError("its directory does not say where it lies")
    found = Grid.of_transform(_epsg_of(dataset.crs.to_wkt()), dataset.transform, dataset.shape)
    step = max(1, round(found.resolution_m / resolution_m))
    if abs(found.resolution_m / (step * resolution_m) - 1) * max(dataset.shape) > MAX_DRIFT_PX:
        raise ValueError(
            f"its transform is {dataset.transform[:6]}, north up and {resolution_m:g} m × 1, 2, … are needed"
        )
    return Grid(found.epsg, found.x_min, found.y_max, dataset.height * step, dataset.width * step, resolution_m), step


def _require_type(there: str, wanted: np.dtype[Any]) -> None:
    """Scene classes may be 8 or 16 bits; a band of 8 bits is a picture, no reflectance × 10000."""
    if there not in {"uint16", wanted.name}:
        raise ValueError(f"it holds {there} values, uint16 digital numbers (reflectance × 10000) are needed")


@functools.lru_cache(maxsize=1000)
def _epsg_of(wkt: str) -> int:
    return rasterio.CRS.from_wkt(wkt).to_epsg() or 0


def _read_window(dataset: Any, window: Window, step: int) -> npt.NDArray[Any]:
    """A window in steps of `step` to the file's pixel."""
    row, col = window.row // step, window.col // step
    n_rows = -(-(window.row + window.height) // step) - row
    n_cols = -(-(window.col + window.width) // step) - col
    values = dataset.read(1, window=rasterio.windows.Window(col, row, n_cols, n_rows))
    if step > 1:
        values = values.repeat(step, axis=0).repeat(step, axis=1)
    top, left = window.row - row * step, window.col - col * step
    inside: npt.NDArray[Any] = values[top : top + window.height, left : left + window.width]
    return inside
