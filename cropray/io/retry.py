"""Asking a remote service again: by class of error, with random waits that grow."""

import datetime as dt
import email.utils
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

ResultT = TypeVar("ResultT")


class Verdict(Enum):
    """What an error asks for."""

    WAIT = "wait"
    """The same request later: the service is busy, down or out of reach."""
    SPLIT = "split"
    """Smaller requests: this one is too much for the service."""
    STOP = "stop"
    """Nothing: the same request will fail again."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """An error, understood."""

    verdict: Verdict
    kind: str
    """Its class, as it is counted: `429`, `ConnectionError`, …"""
    retry_after_s: float = 0.0
    """How long the service asks to be left alone."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a request is made, and how long is waited in between."""

    max_attempts: int
    first_wait_s: float
    max_wait_s: float

    def wait_s(self, attempt: int, retry_after_s: float) -> float:
        """Seconds to wait after a failed attempt; the first is 0.

        Uniform from 0 to the doubling limit ("full jitter"): clients that failed together do not come back together.
        What the service asks for comes first, the random part after it.

        Source: AWS Architecture Blog, "Exponential Backoff And Jitter", 2015.
        """
        limit = min(self.max_wait_s, self.first_wait_s * 2.0 ** min(attempt, 100))  # 2.0 ** 1024 overflows
        return retry_after_s + random.uniform(0.0, limit)


def with_retries(
    ask: Callable[[], ResultT],
    judge: Callable[[Exception], Judgement],
    policy: RetryPolicy,
    errors: Counter[str],
    sleep: Callable[[float], None] = time.sleep,
) -> ResultT:
    """The answer to a request that is repeated for as long as its errors ask to wait, as `judge` understands them.

    `ask` makes the request once. Every error's kind is counted in `errors`.

    Raises:
        Exception: what `ask` raised last, when its verdict is not to wait or no attempt is left.
    """
    for attempt in range(policy.max_attempts):
        try:
            return ask()
        except Exception as error:
            judgement = judge(error)
            errors[judgement.kind] += 1
            if judgement.verdict is not Verdict.WAIT or attempt == policy.max_attempts - 1:
                raise
        sleep(policy.wait_s(attempt, judgement.retry_after_s))
    raise AssertionError("at least one attempt is made")


def retry_after_s(header: str | None) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date; 0 for none or an unreadable one.

    Source: RFC 9110, 10.2.3.
    """
    if header is None:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    return max(0.0, (date - dt.datetime.now(dt.UTC)).total_seconds())
