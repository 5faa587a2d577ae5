"""Earth Engine's client: listings and medians of steps, asked for with our own patience.

The client library keeps one session per process. It must never be used in a process that was forked after it was
set up (two processes would then share its connections), so every worker process connects for itself.
"""

import datetime as dt
import io
import os
import socket
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import ee
import google.auth
import google.auth.credentials
import google.auth.exceptions
import httplib2
import numpy as np
import requests

from cropray.core.cube import STUDY_CUBE, Season
from cropray.core.errors import CroprayError
from cropray.core.grid import Grid, Window
from cropray.core.sensors import SCL_CLEAR_MAX, SCL_CLEAR_MIN
from cropray.imagery.sources.earth_engine.ledger import Account
from cropray.imagery.sources.earth_engine.months import MonthPixels, MonthUnit
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings, fits_one_request, ids_of, step_dtype
from cropray.io.retry import Judgement, RetryPolicy, Verdict, retry_after_s, with_retries

ResultT = TypeVar("ResultT")

_STUDY: Final = ids_of(STUDY_CUBE.bands)
_SCL: Final = "SCL"
_N_OBS: Final = "n_obs"
_TOO_MUCH: Final = ("memory", "timed out", "total request size", "too many pixels")  # in the text of a 400
_SCOPES: Final = ("https://www.googleapis.com/auth/earthengine", "https://www.googleapis.com/auth/cloud-platform")
_CATALOGUE_TIMEOUT_S: Final = 10.0


class EarthEngineError(CroprayError, RuntimeError):
    """Earth Engine refused, or did not answer however often it was asked."""


class _Transport:
    """HTTP for the client library, in httplib2's terms: every request takes its turn and is counted.

    Errors of the connection become the built-in ones, as the library's own transport makes them.
    """

    def __init__(self, timeout_s: float, take_turn: Callable[[], None]) -> None:
        self.account = Account()
        self._timeout_s = timeout_s
        self._take_turn = take_turn
        self._session = requests.Session()

    def request(
        self, uri: str, method: str = "GET", body: Any = None, headers: Any = None, **_: Any
    ) -> tuple[httplib2.Response, bytes]:
        """Send one request."""
        self._take_turn()
        self.account.requests += 1
        try:
            answer = self._session.request(method, uri, data=body, headers=headers, timeout=self._timeout_s)
        except requests.exceptions.Timeout as error:
            raise TimeoutError(f"no answer within {self._timeout_s:g} s ({error})") from error
        except requests.exceptions.RequestException as error:
            raise ConnectionError(str(error)) from error
        self.account.bytes += len(answer.content)
        return httplib2.Response({**answer.headers, "status": answer.status_code}), answer.content


class EarthEngine:
    """A connected client; one per process, used by one thread. What it asks for may raise an `EarthEngineError`."""

    def __init__(
        self,
        settings: EarthEngineSettings,
        take_turn: Callable[[], None] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect, with the credentials of this machine.

        `take_turn` returns when the next HTTP request may be sent; `sleep` waits before another attempt.

        Raises:
            EarthEngineError: no credentials, refused, or no answer.
        """
        self._settings = settings
        self._policy = RetryPolicy(settings.max_attempts, settings.first_wait_s, settings.max_wait_s)
        self._sleep = sleep
        self._transport = _Transport(settings.timeout_s, take_turn)
        self._pid = os.getpid()
        self._ask(self._connect)

    def take_account(self) -> Account:
        """What was sent since this was last called."""
        account, self._transport.account = self._transport.account, Account()
        return account

    def list_assets(self, grid: Grid, season: Season) -> tuple[str, ...]:
        """`system:index` of the collection's assets that reach into the grid from a day before to a day after.

        The archive's own dates are those of tiles; a datatake may begin on the other side of midnight.
        """
        x_min, y_min, x_max, y_max = grid.bounds
        outline = ee.Geometry.Rectangle([x_min, y_min, x_max, y_max], f"EPSG:{grid.epsg}", geodesic=False)
        start, end = season.start - dt.timedelta(days=1), season.end + dt.timedelta(days=1)
        collection = ee.ImageCollection(self._settings.collection).filterBounds(outline)
        collection = collection.filterDate(f"{start}", f"{end}")
        indexes = self._ask(lambda: ee.data.computeValue(collection.aggregate_array("system:index")))
        return tuple(map(str, indexes))

    def month(self, unit: MonthUnit) -> MonthPixels:
        """Median and number of the clear observations of one step, on exactly the unit's grid."""
        expression = month_expression(unit.acquisitions, unit.band_ids)
        pixels = self.pixels(expression, unit.grid, step_dtype(unit.band_ids))
        return MonthPixels(np.stack([pixels[band] for band in unit.band_ids]), np.ascontiguousarray(pixels[_N_OBS]))

    def pixels(self, expression: ee.Image, grid: Grid, dtype: np.dtype[Any]) -> Any:
        """[H, W] of an image's bands on exactly a grid, asked for in quarters where it is too much for one answer.

        `dtype` has a field for each of its bands, in their order.
        """
        pixels = np.zeros(grid.shape, dtype)
        self._fill(pixels, expression, grid, Window(0, 0, *grid.shape))
        return pixels

    def _fill(self, pixels: Any, expression: ee.Image, grid: Grid, window: Window) -> None:
        """Ask for one window; for its quarters where it is too much for the server."""
        is_small = max(window.height, window.width) <= self._settings.min_window_px
        if is_small or fits_one_request(window.height * window.width, pixels.dtype):
            try:
                pixels[window.slices] = self._ask(
                    lambda: _compute(expression, grid.crop(window), pixels.dtype), may_split=not is_small
                )
            except _TooMuchError:
                pass
            else:
                return
        self._transport.account.splits += 1
        for quarter in _quarters(window):
            self._fill(pixels, expression, grid, quarter)

    def _ask(self, ask: Callable[[], ResultT], *, may_split: bool = False) -> ResultT:
        if os.getpid() != self._pid:
            raise RuntimeError("this client was made in another process; make one here")
        errors: Counter[str] = Counter()
        try:
            return with_retries(ask, judge, self._policy, errors, self._sleep)
        except Exception as error:
            if may_split and judge(error).verdict is Verdict.SPLIT:
                raise _TooMuchError from error
            raise EarthEngineError(_explain(error, errors)) from error
        finally:
            self._transport.account.errors += errors

    def _connect(self) -> None:
        ee.Reset()
        ee.data.setMaxRetries(0)  # its own retries cannot tell errors apart and do not heed Retry-After
        # `Initialize` also fetches a list of deprecated assets, without a time limit of its own.
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_CATALOGUE_TIMEOUT_S)
        try:
            ee.Initialize(
                credentials=_credentials(self._settings),
                url=self._settings.endpoint or ee.data.HIGH_VOLUME_API_BASE_URL,
                project=self._settings.project,
                http_transport=self._transport,
            )
        finally:
            socket.setdefaulttimeout(before)


class _TooMuchError(Exception):
    """A window must be asked for in parts."""


def _compute(expression: ee.Image, grid: Grid, dtype: np.dtype[Any]) -> Any:
    params = {"expression": expression, "fileFormat": "NPY", "grid": _pixel_grid(grid)}
    pixels = np.load(io.BytesIO(ee.data.computePixels(params)))
    if pixels.shape != grid.shape or pixels.dtype != dtype:
        raise ValueError(f"pixels {pixels.shape} {pixels.dtype}; asked for {grid.shape} {dtype}")
    return pixels


def judge(error: Exception) -> Judgement:
    """What an error of the client asks for.

    The client's own exception carries no status; the HTTP error that it was raised from does. Connections that break
    and answers that do not come raise built-in errors, and a damaged body fails where it is decoded.
    """
    response = getattr(error, "resp", None) or getattr(error.__context__, "resp", None)
    status = int(getattr(response, "status", 0) or 0)
    text = str(error).lower()
    if status == 429 or status >= 500:
        return Judgement(Verdict.WAIT, str(status), retry_after_s(response.get("retry-after") if response else None))
    if status == 400 and any(words in text for words in _TOO_MUCH):
        return Judgement(Verdict.SPLIT, "too much")
    if status:
        return Judgement(Verdict.STOP, str(status))
    is_damaged = isinstance(error, (ValueError, EOFError)) and not isinstance(error, CroprayError)
    is_refused = isinstance(error, google.auth.exceptions.GoogleAuthError) and not error.retryable
    if is_damaged or (isinstance(error, (OSError, google.auth.exceptions.GoogleAuthError)) and not is_refused):
        return Judgement(Verdict.WAIT, type(error).__name__)
    return Judgement(Verdict.STOP, type(error).__name__)


def _explain(error: Exception, errors: Counter[str]) -> str:
    tries = ", ".join(f"{n} × {kind}" for kind, n in sorted(errors.items()))
    if isinstance(error, CroprayError):
        return str(error)
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        return f"Google refuses the credentials ({error}); run `earthengine authenticate`, or mend the key file"
    hint = ""
    if judge(error).verdict is Verdict.SPLIT:
        hint = "; a smaller imagery.min_window_px lets it be asked for in smaller parts"
    return f"Earth Engine says '{error}' (failed attempts: {tries}){hint}"


def _credentials(settings: EarthEngineSettings) -> Any:
    if settings.credentials == "anonymous":
        return google.auth.credentials.AnonymousCredentials()
    if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*quota project.*")  # the project stands in the settings
            try:
                credentials, _ = google.auth.default(scopes=_SCOPES)
            except (google.auth.exceptions.GoogleAuthError, ValueError) as error:
                raise EarthEngineError(f"GOOGLE_APPLICATION_CREDENTIALS cannot be used: {error}") from None
            return credentials
    try:
        return ee.data.get_persistent_credentials()
    except ee.EEException:
        raise EarthEngineError(
            "no credentials for Earth Engine on this machine; run `earthengine authenticate`, or set "
            "GOOGLE_APPLICATION_CREDENTIALS to a service account's key file"
        ) from None


def month_expression(acquisitions: Sequence[Sequence[str]], band_ids: Sequence[str] = _STUDY) -> ee.Image:
    """Median of the clear observations as uint16, rounded half up, and their number as uint8; 0 where there is none.

    Assets of one acquisition stand together, the first with data counts. Bands (Earth Engine's ids) of 20 m are resampled by
    nearest neighbour, which is its default. Rules are those of `composite.monthly_median`: SCL 4–7 is clear, a pixel with
    any band 0 is no data.
    """
    clear = ee.ImageCollection.fromImages([_clear(_mosaic(parts, band_ids), band_ids) for parts in acquisitions])
    # `round` does not say which way it rounds a half.
    median = clear.median().add(0.5).floor().unmask(0, False).toUint16()
    n_obs = clear.select([band_ids[0]]).count().unmask(0, False).toUint8().rename([_N_OBS])
    return median.addBands(n_obs)


def _mosaic(parts: Sequence[str], band_ids: Sequence[str]) -> ee.Image:
    images = [_with_data(asset, band_ids) for asset in parts]
    return images[0] if len(images) == 1 else ee.ImageCollection.fromImages(images[::-1]).mosaic()  # the last is on top


def _with_data(asset: str, band_ids: Sequence[str]) -> ee.Image:
    image = ee.Image(asset).select([*band_ids, _SCL])
    has_data = image.select([_SCL])
    for band in band_ids:
        has_data = has_data.And(image.select([band]))  # a reducer would pass over a band that is masked
    return image.updateMask(has_data)


def _clear(image: ee.Image, band_ids: Sequence[str]) -> ee.Image:
    scl = image.select([_SCL])
    return image.select(list(band_ids)).updateMask(scl.gte(SCL_CLEAR_MIN).And(scl.lte(SCL_CLEAR_MAX)))


def _pixel_grid(grid: Grid) -> dict[str, Any]:
    """A grid as Earth Engine writes it: exactly these pixels, nothing resampled that lies on them."""
    return {
        "dimensions": {"width": grid.width, "height": grid.height},
        "affineTransform": {
            "scaleX": grid.resolution_m, "shearX": 0, "translateX": grid.x_min,
            "shearY": 0, "scaleY": -grid.resolution_m, "translateY": grid.y_max,
        },
        "crsCode": f"EPSG:{grid.epsg}",
    }  # fmt: skip


def _quarters(window: Window) -> Iterator[Window]:
    height, width = (window.height + 1) // 2, (window.width + 1) // 2
    for row in range(0, window.height, height):
        for col in range(0, window.width, width):
            yield Window(
                window.row + row, window.col + col, min(height, window.height - row), min(width, window.width - col)
            )
