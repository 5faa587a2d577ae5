"""Changes of the package's sources, as keys see them."""

from pathlib import Path

import pytest

import cropray
from cropray.core import closure, symbols

SOURCES = Path(cropray.__file__).parent


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Replace a text in a copy of a module, whose source counts from then on; the others are read once for all tests."""
    read_module, planted = symbols.read_module, {}

    def read(name):
        return planted.get(name) or read_module(name)

    def plant(path, old, new):
        text = (SOURCES / path).read_text()
        assert text.count(old) >= 1
        copy = tmp_path / Path(path).name
        copy.write_text(text.replace(old, new, 1))
        parts = Path("cropray", path).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        with monkeypatch.context() as patched:
            patched.setattr(symbols, "_source", lambda _: copy)
            planted[name] = read_module.__wrapped__(name)

    for module in (symbols, closure):
        monkeypatch.setattr(module, "read_module", read)
    return plant
