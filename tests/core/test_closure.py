"""Which changes of code count, on a small package that is changed one thing at a time."""

import importlib
import sys

import pytest

from cropray.core import closure as closure_module
from cropray.core import symbols
from cropray.core.closure import closure

PACKAGE = {
    "__init__.py": '"""A package."""\n__version__ = "1"\n',
    "rules.py": '''
"""Rules."""
import numpy as np
from pydantic import BaseModel

HALF = 0.5


class Settings(BaseModel):
    """Base."""


class FitSettings(Settings):
    """How."""

    rate: float = 0.1
    """A rate."""
    workers: int = 1

    @property
    def slow(self) -> float:
        return self.rate * HALF


class Table:
    """Zones."""

    zones: tuple[str, ...] = ()

    def fold(self, i: int) -> tuple[str, ...]:
        """The zones of a fold."""
        return self.zones[i::3]

    def last(self) -> str:
        return self.zones[-1]


class Net(np.ndarray):
    def forward(self, x):
        return x


def load() -> Table:
    return Table()


def mean(x: "np.ndarray") -> float:
    """A mean."""
    total: float = np.sum(x)  # all of it
    return total / len(x)


def other(x):
    return x + 1
''',
    "fits.py": '''
from typing import TYPE_CHECKING
from tiny import rules
from tiny.rules import FitSettings, mean

if TYPE_CHECKING:
    from tiny.rules import Table

KINDS = {}


def register(function):
    KINDS[function.__name__] = function
    return function


def fit(x, settings: FitSettings, table: "Table"):
    """Fit."""
    return mean(x) * settings.slow + len(table.fold(0))


def graft(x):
    return rules.other(x)


def late(x):
    from tiny.late import rule

    return rule(x)
''',
    "late.py": "def rule(x):\n    return x * 2\n",
    "nets.py": "from tiny.fits import register\n\n\n@register\ndef net(x):\n    return x\n",
}


@pytest.fixture
def read(tmp_path, monkeypatch):
    """A function that writes the package with some texts replaced, and follows one of its functions."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "tiny"
    folder.mkdir()

    def forget():
        for name in [name for name in sys.modules if name.partition(".")[0] == "tiny"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        for function in (symbols.read_module, symbols._exists):
            function.cache_clear()

    def read(root="fit", module="fits", **changes):
        for name, original in PACKAGE.items():
            text = original
            for old, new in changes.get(name.removesuffix(".py"), ()):
                assert old in text
                text = text.replace(old, new)
            (folder / name).write_text(text)
        forget()
        return closure(getattr(importlib.import_module(f"tiny.{module}"), root))

    yield read
    forget()


def test_what_is_reached(read):
    code = read()
    assert {s for s in code.symbols if not s.startswith("tiny.rules:Settings")} == {
        "tiny.fits:fit", "tiny.rules:mean", "tiny.rules:FitSettings", "tiny.rules:FitSettings.slow", "tiny.rules:Table",
        "tiny.rules:Table.fold", "tiny.rules:HALF",
    }  # fmt: skip
    assert list(code.libraries) == ["numpy"]
    assert {"rate", "slow", "fold"} <= code.names
    assert "workers" not in code.names


@pytest.mark.parametrize(
    "change",
    [
        {"rules": [("# all of it", "# every one")]},
        {"rules": [('"""A mean."""', '"""The mean of all."""'), ('"""Zones."""', "")]},
        {"rules": [("total: float = ", "total: int = ")]},
        {"rules": [('x: "np.ndarray") -> float', "x)")]},
        {"rules": [("    workers: int = 1\n", "    workers: int = 1\n    momentum: float = 0.0\n")]},
        {"rules": [("return x + 1", "return x + 2")]},
        {"nets": [("return x", "return x * x")]},
        {"late": [("x * 2", "x * 3")]},
        {"__init__": [('"1"', '"2"')]},
        {"fits": [("KINDS[function.__name__]", "KINDS[function.__qualname__]")]},
        {"rules": [("self.zones[-1]", "self.zones[-2]")]},
        {"rules": [("    def last", "    def first(self) -> str:\n        return self.zones[0]\n\n    def last")]},
    ],
    ids=[
        "comment",
        "docstring",
        "local",
        "signature",
        "setting",
        "other",
        "network",
        "lazy",
        "release",
        "registry",
        "method",
        "new-method",
    ],
)
def test_what_does_not_count(read, change):
    assert read(**change) == read()


@pytest.mark.parametrize(
    ("change", "symbol"),
    [
        ({"rules": [("total / len(x)", "total / (len(x) - 1)")]}, "tiny.rules:mean"),
        ({"rules": [("[i::3]", "[i::2]")]}, "tiny.rules:Table.fold"),
        ({"rules": [("HALF = 0.5", "HALF = 0.25")]}, "tiny.rules:HALF"),
        ({"rules": [("self.rate * HALF", "self.rate / 2 * HALF")]}, "tiny.rules:FitSettings.slow"),
        ({"rules": [("zones: tuple[str, ...] = ()", 'zones: tuple[str, ...] = ("a",)')]}, "tiny.rules:Table"),
    ],
    ids=["function", "method", "constant", "property", "default"],
)
def test_what_counts_names_the_place(read, change, symbol):
    before, after = read().symbols, read(**change).symbols
    assert [name for name in before if after.get(name) != before[name]] == [symbol]


def test_modules_late_imports_and_registrations_are_followed(read):
    assert "tiny.rules:other" in read("graft").symbols
    assert "tiny.late:rule" in read("late").symbols
    changed = {"fits": [("KINDS[function.__name__]", "KINDS[function.__qualname__]")]}
    assert read("net", "nets", **changed) != read("net", "nets")


def test_methods_that_a_library_calls_count(read):
    assert read("Net", "rules") != read(
        "Net", "rules", rules=[("def forward(self, x):\n        return x", "def forward(self, x):\n        return -x")]
    )


def test_a_library_counts_by_its_release(read, monkeypatch):
    monkeypatch.setattr(closure_module.importlib.metadata, "version", lambda _: "9.9+cu130")
    assert read().libraries == {"numpy": "9.9"}


def test_what_cannot_be_followed_is_refused():
    with pytest.raises(ValueError, match="source of module 'math' is not at hand"):
        closure(__import__("math").sqrt)


def test_where_a_late_import_stands_does_not_count(read):
    before = read("late")
    now = read(
        "late",
        fits=[("from tiny.late import rule", "from tiny.nets import rule")],
        nets=[("from tiny", "def rule(x):\n    return x * 2\n\n\nfrom tiny")],
    )
    assert "tiny.nets:rule" in now.symbols
    assert now.digest == before.digest
    assert now != before
