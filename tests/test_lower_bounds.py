"""Lower bounds of pyproject.toml are there and no newer than what is installed; `make lowest` runs the tests with them."""

from importlib.metadata import version

import pytest
from packaging.version import Version

from tests.lower_bounds import lowest, requirements


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_each_dependency_has_a_bound_that_this_environment_keeps(requirement):
    name, _, bound = lowest(requirement).partition("==")
    if name in ("gcsfs", "adlfs"):
        return  # stores that no test has
    assert Version(version(name)) >= Version(bound)


def test_the_bounds_cover_what_is_imported():
    names = {requirement.name for requirement in requirements()}
    assert len(names) == len(requirements()) > 30
    assert {"torch", "ray", "xgboost", "lightgbm", "optuna"} <= names
