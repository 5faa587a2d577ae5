"""The code that a registered model carries: the modules that its loader imports, under a name of their own.

A package named `cropray` in a model would hide the installed one from whoever loads the model, or be hidden by it; so it
is renamed after its content, and models of several versions can be loaded side by side. The modules of a plug-in stand in
a folder of that package; they name each other by `from … import …`, relative or not.
"""

import ast
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Final

from cropray.core.fingerprint import fingerprint
from cropray.tracking.outages import RefusedError

PACKAGE: Final = "cropray"
PLUGIN: Final = "plugin"  # folder of the carried package with a plug-in's own
_MODULE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


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


def model_code(loader: str, modules: Sequence[str] = ()) -> ModelCode:
    """The code of a loader: its module and what that imports as it loads, module by module.

    Imports within functions are left out: what they name is not needed to predict.

    Args:
        loader: `cropray.training.xgboost.served` …, or a module of a plug-in.
        modules: of plug-ins, which the loader imports by what the model's card says.

    Raises:
        RefusedError: its source is not at hand, or it imports a library that no installed distribution has.
    """
    tops = [module.partition(".")[0] for module in (loader, *modules)]
    for module, top in zip((loader, *modules), tops, strict=True):
        # It may come out of a file.
        if not _MODULE.fullmatch(module) or top in sys.stdlib_module_names or _source(module) is None:
            raise RefusedError(f"the source of '{module}', which loads the model, is not at hand")
    sources, libraries = _closure([loader, *modules], {PACKAGE, *tops})
    package = f"{PACKAGE}_model_{fingerprint(sources)[:8]}"
    names = {top: f"{package}.{PLUGIN}.{top}" for top in tops} | {PACKAGE: package}
    files = {name: _renamed(source, names) for name, source in sources.items()}
    return ModelCode(package, loader.replace(tops[0], names[tops[0]], 1), files, _requirements(libraries))


def _renamed(source: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        source = re.sub(rf"^(\s*(?:from|import)\s+){old}\b", rf"\g<1>{new}", source, flags=re.MULTILINE)
    return source


def _closure(roots: Sequence[str], own: set[str]) -> tuple[dict[str, str], set[str]]:
    """({path below the carried package: source}, names of imported libraries)."""
    sources: dict[str, str] = {}
    libraries: set[str] = set()
    pending = list(roots)
    while pending:
        module = pending.pop()
        top, *inner = module.split(".")
        if top not in own:
            libraries.add(top)
            continue
        pending += [module.rpartition(".")[0]] if inner else []  # its package is imported first
        path = _source(module)
        if path is None:  # not a module: a name out of one
            continue
        is_package = path.name == "__init__.py"
        parts = [*([] if top == PACKAGE else [PLUGIN, top]), *inner]
        name = "/".join([*parts, "__init__.py"] if is_package else [*parts[:-1], f"{parts[-1]}.py"])
        if name not in sources:
            sources[name] = path.read_text(encoding="utf-8")
            inside = module if is_package else module.rpartition(".")[0]
            pending += _imports(ast.parse(sources[name]), inside)
    return dict(sorted(sources.items())), libraries - set(sys.stdlib_module_names)


def _source(module: str) -> Path | None:
    """The file of a module of cropray or a plug-in, found without importing it; None: there is none."""
    top, *inner = module.split(".")
    for root in _roots(top):
        if root.is_file():
            return root if not inner else None
        for path in (root.joinpath(*inner, "__init__.py"), root.joinpath(*inner).with_suffix(".py")):
            if path.is_file() and (inner or path.name == "__init__.py"):
                return path
    return None


def _roots(top: str) -> list[Path]:
    """Folders of a package, or the file of a module."""
    if top == PACKAGE:
        return [Path(str(resources.files(PACKAGE)))]
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # it was loaded in a way that tells nothing
        spec = importlib.machinery.PathFinder.find_spec(top)
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(folder) for folder in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin is not None and spec.origin.endswith(".py") else []


def _imports(module: ast.Module, inside: str) -> Iterator[str]:
    """Names of all that a module imports as it loads; `inside` is the package that it stands in."""
    for statement in module.body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:
                parents = inside.split(".")[: len(inside.split(".")) - statement.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in statement.names)


def _requirements(libraries: set[str]) -> tuple[str, ...]:
    """The distributions in the versions of this process; of a local build (`2.8.0+cpu`) the public version."""
    owners = metadata.packages_distributions()
    if unknown := sorted(libraries - owners.keys()):
        raise RefusedError(
            f"the model's loader imports {', '.join(unknown)}, which no installed distribution has: it could be loaded "
            f"nowhere else"
        )
    names = sorted({owners[library][0] for library in libraries})
    return tuple(f"{name}=={metadata.version(name).partition('+')[0]}" for name in names)
