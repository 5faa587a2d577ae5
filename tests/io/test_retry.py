"""When a request is made again, and after how long."""

import datetime as dt
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cropray.io.retry import Judgement, RetryPolicy, Verdict, retry_after_s, with_retries

POLICY = RetryPolicy(max_attempts=5, first_wait_s=1.0, max_wait_s=6.0)


def judge(error):
    return Judgement(*error.args)


class Service:
    """Raises its errors one after the other, then answers."""

    def __init__(self, *judgements):
        self.errors = [RuntimeError(*judgement) for judgement in judgements]
        self.waits = []
        self.counted = Counter()

    def answer(self):
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    def ask(self, policy=POLICY):
        return with_retries(self.answer, judge, policy, self.counted, self.waits.append)


BUSY = (Verdict.WAIT, "429")


def test_a_busy_service_is_asked_again_until_it_answers():
    service = Service(BUSY, (Verdict.WAIT, "503"), BUSY)
    assert service.ask() == "answer"
    assert len(service.waits) == 3
    assert service.counted == {"429": 2, "503": 1}


def test_attempts_end():
    service = Service(*[BUSY] * 5)
    with pytest.raises(RuntimeError):
        service.ask()
    assert (len(service.waits), service.counted["429"], service.errors) == (4, 5, [])


@pytest.mark.parametrize("verdict", [Verdict.STOP, Verdict.SPLIT])
def test_what_waiting_cannot_mend_is_asked_once(verdict):
    service = Service((verdict, "400"), BUSY)
    with pytest.raises(RuntimeError):
        service.ask()
    assert (service.waits, service.counted, len(service.errors)) == ([], {"400": 1}, 1)


def test_a_wait_that_is_asked_for_comes_first():
    service = Service((Verdict.WAIT, "429", 100.0), BUSY)
    service.ask()
    assert 100 <= service.waits[0] <= 101
    assert service.waits[1] <= 2


@given(st.integers(0, 2000))
def test_waits_double_up_to_their_limit(attempt):
    assert 0 <= POLICY.wait_s(attempt, 0) <= min(6, 2**attempt)


def test_waits_are_spread_over_the_whole_range():
    # 500 uniform draws from 0–4 s: both outer quarters are hit (each missed with probability 0.75^500).
    waits = [POLICY.wait_s(2, 0) for _ in range(500)]
    assert min(waits) < 1
    assert max(waits) > 3


@pytest.mark.parametrize(("header", "seconds"), [(None, 0), ("7", 7), ("1.5", 1.5), ("-3", 0), ("soon", 0)])
def test_retry_after_in_seconds(header, seconds):
    assert retry_after_s(header) == seconds


def test_retry_after_as_a_date():
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=90)
    assert retry_after_s(later.strftime("%a, %d %b %Y %H:%M:%S GMT")) == pytest.approx(90, abs=5)
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
