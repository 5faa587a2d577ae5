"""The oldest versions that pyproject.toml allows, as constraints: `make lowest` installs them and runs the fast tests.

`python -m tests.lower_bounds` prints them: what cropray itself names, its extras too; what these bring is the
installer's choice, as are development tools (`dev`), for nobody installs old ones.
"""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def requirements() -> list[Requirement]:
    """Of cropray and its extras, but for the tools of development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for name in extras if name != "dev" for text in extras[name])]
    return [Requirement(text) for text in texts]


def lowest(requirement: Requirement) -> str:
    """`name==version` of a requirement's lower bound."""
    (bound,) = (part.version for part in requirement.specifier if part.operator == ">=")
    return f"{requirement.name}=={bound}"


def main() -> None:
    """Print all."""
    print("\n".join(sorted(lowest(requirement) for requirement in requirements())))


if __name__ == "__main__":
    main()
