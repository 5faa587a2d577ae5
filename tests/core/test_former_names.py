"""Modules under the names that they had before."""

import importlib
import subprocess
import sys

import pytest

from cropray.core.former_names import FORMER


@pytest.mark.parametrize(("former", "name"), FORMER.items())
def test_a_former_name_is_the_same_module(former, name):
    sys.modules.pop(former, None)
    with pytest.warns(DeprecationWarning, match=f"'{former}' is now '{name}'"):
        assert importlib.import_module(former) is importlib.import_module(name)


def test_a_script_of_before_runs():
    code = "from cropray.grid import Grid; from cropray.imagery.stac import StacScenes; print(Grid.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "cropray.core.grid"


def test_a_name_that_never_was_is_not_there():
    with pytest.raises(ModuleNotFoundError, match=r"cropray\.nothing"):
        importlib.import_module("cropray.nothing")
