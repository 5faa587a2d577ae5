"""Asking a STAC API which items there are, and asking again where the network or the server failed."""

import datetime as dt
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import pystac.errors
import pystac_client.errors
import pystac_client.exceptions
import pystac_client.warnings
import urllib3
from pystac_client.stac_api_io import StacApiIO

from cropray.core.errors import InputError
from cropray.core.redaction import hide_secrets_of_network, redact
from cropray.imagery.sources.stac.read import BUSY
from cropray.io.retry import Judgement, RetryPolicy, Verdict, with_retries

Item = dict[str, Any]
Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a search gave, all pages."""

    items: list[Item]
    n_matched: int | None
    """How many items the server itself counts; None: it does not say."""

    @property
    def n_missing(self) -> int:
        """Items that the server counts and does not list."""
        return max(0, (self.n_matched or 0) - len(self.items))


_PAGE: Final = 100  # items asked for at once: about 2 MB of JSON at Earth Search


def search_items(
    place: Place, bbox: tuple[float, ...], span: tuple[dt.datetime, dt.datetime], policy: RetryPolicy, timeout_s: float
) -> Answer:
    """Items of a collection that reach into a box, all pages.

    `place` is the API's root and the collection's id, `bbox` west, south, east, north, degrees, `span` the first and last
    instant, UTC, `timeout_s` the longest silence of a server, s.

    Raises:
        InputError: the server refuses, or still fails after the last attempt; the message holds its words.
    """
    url, collection = place
    start, end = (f"{instant:%Y-%m-%dT%H:%M:%SZ}" for instant in span)
    hide_secrets_of_network()

    def ask() -> Answer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pystac_client.warnings.PystacClientWarning)
            client = pystac_client.Client.open(url, stac_io=_network(policy, timeout_s), timeout=timeout_s)
            found = client.search(collections=[collection], bbox=list(bbox), datetime=f"{start}/{end}", limit=_PAGE)
            pages = list(found.pages_as_dicts())
        counts = [page.get("numberMatched") or (page.get("context") or {}).get("matched") for page in pages[:1]]
        items = [item for page in pages for item in page.get("features", ())]
        return Answer(items, int(counts[0]) if counts and counts[0] else None)

    try:
        return with_retries(ask, _judge, policy, Counter())
    except (
        pystac_client.exceptions.APIError,
        pystac_client.errors.ClientTypeError,
        pystac_client.warnings.PystacClientWarning,  # raised by a catalogue that cannot be searched
        pystac.errors.STACError,
        pystac.errors.STACTypeError,
        ValueError,  # no JSON
    ) as error:
        raise InputError(
            f"STAC API {redact(url)}, collection '{collection}', {start} to {end}: {_words(error)}; "
            f"check 'url' and 'collection', or run the stage again later"
        ) from None


def _network(policy: RetryPolicy, timeout_s: float) -> StacApiIO:
    """Busy answers are waited for here, as long as their `Retry-After` says; lost connections by `with_retries`."""
    retry = urllib3.Retry(
        total=None,
        connect=0,
        read=0,
        other=0,
        redirect=5,
        status=policy.max_attempts - 1,
        status_forcelist=BUSY,
        allowed_methods=None,
        backoff_factor=policy.first_wait_s / 2,
        backoff_max=policy.max_wait_s,
        backoff_jitter=policy.first_wait_s,
        raise_on_status=False,
    )
    return StacApiIO(max_retries=retry, timeout=timeout_s)


def _judge(error: Exception) -> Judgement:
    """A lost connection or a cut-off answer passes; an answer with a status has had its attempts."""
    is_lost = isinstance(error, pystac_client.exceptions.APIError) and getattr(error, "status_code", None) is None
    verdict = Verdict.WAIT if is_lost or isinstance(error, ValueError) else Verdict.STOP
    return Judgement(verdict, type(error).__name__)


def _words(error: Exception) -> str:
    status = getattr(error, "status_code", None)
    text = redact(" ".join(str(error).split()))[:300] or type(error).__name__
    return f"HTTP {status}: {text}" if status else text
