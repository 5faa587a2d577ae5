"""Which code decides an artefact: the closure of functions and classes over the names that they use.

A key over whole files repeats a country's work for a changed comment, and one over a hand-kept list of files forgets
some. So the source is followed name by name: from a root to every function, class and constant of the same package that
it can reach, each taken as a syntax tree without comments, docstrings and annotations, and to the libraries that these use.

Objects are followed by their declared types: parameters, results and fields are annotated everywhere in this package. What is
looked up by a name at run time (a registered network, a source chosen in the job) has to be a root of its own.
"""

import importlib.metadata
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from cropray.core.fingerprint import fingerprint
from cropray.core.symbols import Symbol, read_module, targets

Root = Callable[..., object] | type
# Libraries that carry, store, check or show values and change none: their version decides no artefact.
PLUMBING: Final = frozenset(
    {
        *("ee", "fsspec", "google", "httplib2", "planetary_computer", "pyarrow", "pystac", "pystac_client", "requests"),
        *("safetensors", "upath", "urllib3", "yaml"),  # carry and store
        *("jinja2", "matplotlib", "mlflow", "PIL", "pydantic", "pydantic_core", "ray"),  # show, check and call
    }
)
REGISTRIES: Final = frozenset(
    {
        *("cropray.core.features:FEATURES", "cropray.core.metrics:METRICS", "cropray.core.sensors:SENSORS"),
        "cropray.imagery.registry:SOURCES",
    }
)
"""Lists of what is chosen by a name, or only shown: an entry counts where it is chosen, as a root of its own."""
_RELEASE: Final = "__version__"  # of a package; the code itself is followed


@dataclass(frozen=True, slots=True)
class Code:
    """All that a root can reach."""

    symbols: Mapping[str, str]
    """`module:name` → SHA-256 of its normalised syntax tree."""
    libraries: Mapping[str, str]
    """Top-level package → version without its local part (`+cpu`), for libraries that compute."""
    names: frozenset[str]
    """Attributes that are read and texts that are spelled anywhere in it: a setting that is not among them decides nothing."""

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of symbols, wherever they stand, and libraries."""
        return fingerprint([placeless(self.symbols), self.libraries])


def placeless(symbols: Mapping[str, str]) -> list[str]:
    """Names and digests without their modules, sorted: a function that moved to another file makes what it made."""
    return sorted(f"{symbol.rpartition(':')[2]} {digest}" for symbol, digest in symbols.items())


def code_digest(*roots: Root) -> str:
    """`closure(…).digest`: of everything that decides what these functions make."""
    return closure(*roots).digest


def closure(*roots: Root) -> Code:
    """Follow functions and classes to all that they use.

    Args:
        roots: functions or classes, of this package or of a plug-in's.

    Raises:
        ValueError: a root's source is not at hand.
    """
    walk = _Walk({root.__module__.partition(".")[0] for root in roots} | {__name__.partition(".")[0]})
    walk.queue.extend((root.__module__, root.__qualname__.partition(".")[0]) for root in roots)
    walk.run()
    return Code(dict(sorted(walk.symbols.items())), dict(sorted(walk.libraries.items())), frozenset(walk.names))


class _Walk:
    """From symbol to symbol, until nothing new is reached."""

    def __init__(self, packages: set[str]) -> None:
        self.packages = packages
        self.queue: deque[tuple[str, str]] = deque()
        self.symbols: dict[str, str] = {}
        self.libraries: dict[str, str] = {}
        self.names: set[str] = set()
        self._methods: dict[str, list[tuple[str, Symbol]]] = {}  # by name, of classes that were reached

    def run(self) -> None:
        while self.queue:
            module, name = self.queue.popleft()
            if f"{module}:{name}" not in REGISTRIES | self.symbols.keys():
                self._take(f"{module}:{name}", read_module(module).symbol(name))

    def _take(self, key: str, symbol: "Symbol") -> None:
        found = [(key, symbol)]
        while found:
            key, symbol = found.pop()
            self.symbols[key] = symbol.digest
            for target, attribute in symbol.uses:
                self._follow(target, attribute)
            for name, method in symbol.methods.items():
                self._methods.setdefault(name, []).append((f"{key}.{name}", method))
            self.names |= symbol.names
            for name in self.names & self._methods.keys():
                found += self._methods.pop(name)

    def _follow(self, target: str, attribute: str | None) -> None:
        if target.partition(".")[0] not in self.packages:
            self.libraries |= _version(target.partition(".")[0])
        elif attribute != _RELEASE:
            self.queue.extend(targets(target, attribute))


@cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _version(package: str) -> dict[str, str]:
    if package in PLUMBING or package in sys.stdlib_module_names:
        return {}
    names = _distributions().get(package, [])
    return {package: "/".join(sorted({importlib.metadata.version(name).partition("+")[0] for name in names}))}
