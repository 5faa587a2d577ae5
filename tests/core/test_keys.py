"""What an account of an artefact holds, and how two of them differ."""

from typing import Literal

import pytest

from cropray.core.closure import Code
from cropray.core.fingerprint import fingerprint
from cropray.core.keys import differences, key_of
from cropray.core.settings import Settings


class Inner(Settings):
    width: int = 4


class Tagged(Settings):
    kind: Literal["files"] = "files"


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
        (key(rate=0.2), "setting fit.rate was 0.1, is 0.2"),
        (key(inner=Inner(width=5)), "setting fit.inner.width was 4, is 5"),
        (key(late=0.5), "setting fit.late counts now: it is 0.5"),
        (key(content={"zone a": "y"}), "zone a was x, is y"),
        (key(content={"zone a": None}), "zone a: no longer there"),
        (key(content={"zone a": "x", "zone b": "y"}), "zone b is new"),
        (key(content={"zone b": "y"}), "zone a does not count any more"),
        (key(Code({"a:fit": "1"}, CODE.libraries, CODE.names)), "code of a:mean does not count any more"),
        (key(Code({**CODE.symbols, "a:mean": "3"}, CODE.libraries, CODE.names)), "code of a:mean changed"),
        (key(Code(CODE.symbols, {"numpy": "3"}, CODE.names)), "numpy was 2.4.6, is 3"),
    ],
)
def test_the_first_difference_is_told(now, words):
    assert now.digest != BEFORE.digest
    assert next(differences(BEFORE.parts, now.parts), None) == words


def test_digests_tell_a_person_nothing():
    before, now = ({"content": {"labels of zone a": fingerprint(text)}} for text in "xy")
    assert next(differences(before, now), None) == "labels of zone a changed"


def test_settings_come_first_and_all_differences_can_be_told():
    now = key(Code(CODE.symbols, {"numpy": "3"}, CODE.names), {"zone a": "y"}, rate=0.2)
    assert list(differences(BEFORE.parts, now.parts)) == [
        "setting fit.rate was 0.1, is 0.2", "zone a was x, is y", "numpy was 2.4.6, is 3"
    ]  # fmt: skip


def test_settings_of_another_artefact_are_set_apart():
    code = Code({}, {}, frozenset({"rate", "late"}))
    keys = [key_of(code, {"fit": Fit(late=late)}, {}, apart=["fit.late"]) for late in (0.0, 0.5)]
    assert keys[0].digest == keys[1].digest
    assert keys[0].parts["settings"] == {"fit.rate": 0.1}


def test_which_settings_these_are_always_counts():
    assert key_of(Code({}, {}, frozenset()), {"source": Tagged()}, {}).parts["settings"] == {"source.kind": "files"}


def test_equal_accounts():
    assert next(differences(BEFORE.parts, key().parts), None) is None


def test_code_that_moved_makes_what_it_made():
    moved = key(Code({"b:fit": "1", "a:mean": "2"}, CODE.libraries, CODE.names))
    assert moved.digest == BEFORE.digest
    assert list(differences(BEFORE.parts, moved.parts)) == []


def test_code_that_moved_and_changed_is_told():
    moved = key(Code({"b:fit": "1", "b:mean": "3"}, CODE.libraries, CODE.names))
    assert moved.digest != BEFORE.digest
    told = ["code of a:mean does not count any more", "code of b:mean is new"]
    assert list(differences(BEFORE.parts, moved.parts)) == told


def test_a_second_symbol_of_the_same_name_counts():
    assert key(Code({**CODE.symbols, "b:fit": "1"}, CODE.libraries, CODE.names)).digest != BEFORE.digest
