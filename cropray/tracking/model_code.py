"""The code that a registered model carries: cropray's modules that its loader imports, under a name of their own.

A package named `cropray` in a model would hide the installed one from whoever loads the model, or be hidden by it; so it
is renamed after its content, and models of several versions can be loaded side by side.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Final

from cropray.settings import fingerprint
from cropray.tracking.operations import RefusedError

PACKAGE: Final = "cropray"
_IMPORT: Final = re.compile(rf"^(\s*(?:from|import)\s+){PACKAGE}\b", re.MULTILINE)
_MODULE: Final = re.compile(rf"{PACKAGE}(\.\w+)+")


@dataclass(frozen=True, slots=True)
class ModelCode:
    """What a loader needs to be imported."""

    package: str
    """Name of the carried package."""
    loader: str
    """Name of the loader's module in it."""
    files: dict[str, str]
    """Path below the package → source."""
    requirements: tuple[str, ...]
    """`distribution==version` of every library that these files import."""

    def write(self, parent: Path) -> Path:
        """Write the package below a folder; returns its own folder."""
        for name, source in self.files.items():
            path = parent / self.package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, encoding="utf-8")
        return parent / self.package


def model_code(loader: str) -> ModelCode:
    """The code of a loader: its module and what that imports as it loads, module by module.

    Imports within functions are left out: what they name is not needed to predict.

    Args:
        loader: `cropray.training.xgboost.served` …

    Raises:
        RefusedError: it is no module of cropray.
    """
    if not _MODULE.fullmatch(loader):  # it may come out of a file
        raise RefusedError(f"'{loader}' is no module of {PACKAGE}")
    sources, libraries = _closure(loader)
    package = f"{PACKAGE}_model_{fingerprint(sources)[:8]}"
    files = {name: _IMPORT.sub(rf"\g<1>{package}", source) for name, source in sources.items()}
    return ModelCode(package, loader.replace(PACKAGE, package, 1), files, _requirements(libraries))


def _closure(loader: str) -> tuple[dict[str, str], set[str]]:
    """({path below the package: source}, names of imported libraries)."""
    root = Path(str(resources.files(PACKAGE)))
    sources: dict[str, str] = {}
    libraries: set[str] = set()
    pending = [loader]
    while pending:
        parts = pending.pop().split(".")
        if parts[0] != PACKAGE:
            libraries.add(parts[0])
            continue
        pending += [".".join(parts[:-1])] if len(parts) > 1 else []  # its package is imported first
        path = root.joinpath(*parts[1:], "__init__.py")
        path = path if path.exists() else root.joinpath(*parts[1:]).with_suffix(".py")
        name = path.relative_to(root).as_posix()
        if name not in sources and path.exists():  # not a module: a name out of one
            sources[name] = path.read_text(encoding="utf-8")
            pending += _imports(ast.parse(sources[name]))
    return dict(sorted(sources.items())), libraries - set(sys.stdlib_module_names)


def _imports(module: ast.Module) -> Iterator[str]:
    for statement in module.body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            yield statement.module
            if statement.module.startswith(PACKAGE):
                yield from (f"{statement.module}.{alias.name}" for alias in statement.names)


def _requirements(libraries: set[str]) -> tuple[str, ...]:
    """The distributions in the versions of this process; of a local build (`2.8.0+cpu`) the public version."""
    owners = metadata.packages_distributions()
    names = sorted({owners[library][0] for library in libraries})
    return tuple(f"{name}=={metadata.version(name).partition('+')[0]}" for name in names)
