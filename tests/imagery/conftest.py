"""Each test's servers and files are new, though a port or a path may come again."""

import pytest

from cropray.imagery import files, stac


@pytest.fixture(autouse=True)
def nothing_is_remembered():
    for remembered in (stac._find, files._header):
        remembered.cache_clear()
