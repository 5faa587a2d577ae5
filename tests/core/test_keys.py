"""What an account of an artefact holds, and how two of them differ."""

import pytest

from cropray.core.closure import Code
from cropray.core.keys import first_difference, key_of
from cropray.settings import Settings


class Inner(Settings):
    width: int = 4


class Fit(Settings):
    rate: float = 0.1
    late: float = 0.0
    workers: int = 1
    inner: Inner = Inner()

    def resources(self):
        return frozenset({"workers"})


CODE = Code({"a:fit": "1", "a:mean": "2"}, {"numpy": "2.4.6"}, frozenset({"rate", "width"}))
BEFORE = key_of(CODE, {"fit": Fit()}, {"zone a": "x"})


def key(code=CODE, content=None, **settings):
    return key_of(code, {"fit": Fit(**settings)}, content or {"zone a": "x"})


def test_what_is_read_is_in_it():
    assert BEFORE.parts["settings"] == {"fit.rate": 0.1, "fit.inner.width": 4}


def test_resources_and_what_nobody_reads_are_not():
    assert key(workers=8).digest == BEFORE.digest


def test_what_was_set_counts_though_it_is_read_by_no_name():
    assert key(late=0.5).parts["settings"]["fit.late"] == 0.5


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (key(rate=0.2), "settings: 'fit.rate' was 0.1, is 0.2"),
        (key(inner=Inner(width=5)), "settings: 'fit.inner.width' was 4, is 5"),
        (key(content={"zone a": "y"}), "content: 'zone a' is another"),
        (key(content={"zone a": "x", "zone b": "y"}), "content: 'zone b' is new"),
        (key(Code({"a:fit": "1"}, CODE.libraries, CODE.names)), "code: 'a:mean' is not used any more"),
        (key(Code({**CODE.symbols, "a:mean": "3"}, CODE.libraries, CODE.names)), "code: 'a:mean' is another"),
        (key(Code(CODE.symbols, {"numpy": "3"}, CODE.names)), "libraries: 'numpy' was 2.4.6, is 3"),
    ],
)
def test_the_first_difference_is_told(now, words):
    assert now.digest != BEFORE.digest
    assert first_difference(BEFORE.parts, now.parts) == words


def test_equal_accounts():
    assert first_difference(BEFORE.parts, key().parts) is None
