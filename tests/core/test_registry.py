"""Classes that are chosen by name."""

import importlib.metadata
from dataclasses import dataclass

import pytest

from cropray.core import registry as module
from cropray.core.errors import ConfigError
from cropray.core.registry import Catalogue, Registry, plugged, take_over


@dataclass
class Plain:
    width: int = 1


class Broken:
    def __init__(self, depth=1):
        len(depth)  # a fault of its own


class Other:
    pass


@pytest.fixture
def shapes(monkeypatch):
    monkeypatch.setattr(module, "_OUTSIDE", {})
    registry = Registry("shape")
    registry.register("plain")(Plain)
    return registry


def test_a_name_is_given_once(shapes):
    assert shapes.register("plain")(Plain) is Plain  # its module is read again
    with pytest.raises(ConfigError, match=r"shape 'plain' is there twice, as .*Plain and as .*Other: rename one"):
        shapes.register("plain")(Other)
    with pytest.raises(ConfigError, match="'plain' is there twice"):
        take_over({("shape", "plain"): Other})
    assert shapes.make({"name": "plain", "width": 4}) == Plain(4)


def test_a_name_of_the_package_is_not_taken_by_a_plugin(shapes):
    shapes._entries["round"] = Other
    with pytest.raises(ConfigError, match="shape 'round' is there twice"):
        shapes.register("round")(Plain)


def test_a_fault_of_an_entry_is_no_wrong_setting(shapes):
    shapes.register("broken")(Broken)
    with pytest.raises(ConfigError, match=r"shape 'broken': .*'widht'"):
        shapes.make({"name": "broken", "widht": 3})
    with pytest.raises(TypeError, match="has no len"):
        shapes.make("broken")


def test_a_plugin_that_cannot_be_loaded_is_named(monkeypatch, shapes):
    point = importlib.metadata.EntryPoint("mine", "no_such_module.shapes", "cropray.entries")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    plugged.cache_clear()
    with pytest.raises(ConfigError, match=r"cropray\.entries: mine = 'no_such_module\.shapes' cannot be loaded"):
        plugged("cropray.entries")
    with pytest.raises(ConfigError, match="mend or uninstall it"):
        shapes.entry("octagon")


def test_an_object_s_name_is_given_once():
    things = Catalogue("thing", ("a",), lambda thing: thing[0])
    things.add("bee")
    try:
        things.add("bee")
        for taken in ("bear", "apple"):
            with pytest.raises(ConfigError, match=rf"thing '{taken[0]}' is there twice, as .* and as {taken}"):
                things.add(taken)
        assert list(things) == ["a", "bee"]
    finally:
        things.remove("b")
