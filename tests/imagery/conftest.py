"""Each test's servers and files are new, though a port or a path may come again."""

import pytest

from cropray.imagery.sources.files import scenes as files
from cropray.imagery.sources.stac import scenes as stac


@pytest.fixture(autouse=True)
def nothing_is_remembered():
    for remembered in (stac._find, files._header):
        remembered.cache_clear()
