"""What a job file chooses by name: classes whose fields are settings of their own, and objects.

A choice is the name of an entry, or `{name: focal, gamma: 1.5}`. An entry registers itself as its module is read; a
plug-in's module is named by the entry point `cropray.entries`. Needs the standard library only.

Code that is looked up so is not seen by whoever follows names (`cropray.core.closure`): chosen entries are roots of their own.
"""

import difflib
import functools
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

from cropray.core.errors import ConfigError

Choice: TypeAlias = str | Mapping[str, Any]
"""A name, or a mapping with `name` and settings of the entry."""
T = TypeVar("T")
NAME: Final = "name"
_PACKAGE: Final = __name__.partition(".")[0]
ENTRY_POINTS: Final = f"{_PACKAGE}.entries"  # of the code that a registered model carries there are none
_OUTSIDE: Final[dict[tuple[str, str], Any]] = {}
"""(kind, name) → entry that no module of cropray registers, of all kinds."""


class Registry(Generic[T]):
    """Entries of one kind."""

    def __init__(self, kind: str, module: str = "") -> None:
        """Args: kind: for messages; module: is imported where a name is not known yet."""
        self.kind = kind
        self._module = module
        self._entries: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """A class decorator.

        Raises:
            ConfigError: the name is another class's; the same one may be read again.
        """

        def keep(entry: type[T]) -> type[T]:
            require_same(f"{self.kind} '{name}'", self._known().get(name, entry), entry)
            if is_outside(entry):
                _OUTSIDE[self.kind, name] = entry
            else:
                self._entries[name] = entry
            return entry

        return keep

    def entry(self, choice: Choice) -> type[T]:
        """The class of a choice.

        Raises:
            ConfigError: there is none.
        """
        name = name_of(choice)
        known = self._known() if name in self._known() else self.known()
        if name not in known:
            raise ConfigError(f"'{name}' is no {self.kind}; {nearest(name, list(known))}")
        return known[name]

    def known(self) -> Mapping[str, type[T]]:
        """All entries, those of plug-ins too."""
        if self._module:
            importlib.import_module(self._module)
        plugged(ENTRY_POINTS)
        return self._known()

    def _known(self) -> Mapping[str, type[T]]:
        return {**self._entries, **{name: entry for (kind, name), entry in _OUTSIDE.items() if kind == self.kind}}

    def make(self, choice: Choice) -> T:
        """The entry with its settings.

        Raises:
            ConfigError: there is none, or it has no such setting.
        """
        entry, options = self.entry(choice), options_of(choice)
        try:
            inspect.signature(entry).bind(**options)
        except TypeError as error:
            raise ConfigError(f"{self.kind} '{name_of(choice)}': {error}") from None
        return entry(**options)


def require_same(what: str, known: Any, new: Any) -> None:
    """See that a name that is given again is given to the same class.

    Raises:
        ConfigError: it is another's.
    """
    one, other = (f"{e.__module__}.{e.__qualname__}" if isinstance(e, type) else str(e) for e in (known, new))
    if one != other and known != new:
        raise ConfigError(f"{what} is there twice, as {one} and as {other}: rename one, or uninstall its plug-in")


@functools.cache
def plugged(group: str) -> dict[str, Any]:
    """What the installed plug-ins give by the entry points of a group, by what each is called in messages.

    Raises:
        ConfigError: one cannot be loaded.
    """
    found = {}
    for point in importlib.metadata.entry_points(group=group):
        called = f"entry point {group}: {point.name} = '{point.value}'"
        try:
            found[called] = point.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"the plug-in of {called} cannot be loaded ({error}); mend or uninstall it") from None
    return found


class Catalogue(Generic[T]):
    """Entries of one kind that are objects, in the order in which they came."""

    def __init__(self, kind: str, own: Sequence[T], name_of: Callable[[T], str]) -> None:
        """Args: kind: for messages; own: cropray's; name_of: what an entry is called."""
        self.kind = kind
        self._own = {name_of(entry): entry for entry in own}
        self._name_of = name_of

    def add(self, entry: T) -> None:
        """One of one's own.

        Raises:
            ConfigError: the name is another's; the same entry may be added again.
        """
        name = self._name_of(entry)
        known = self._own.get(name, _OUTSIDE.get((self.kind, name), entry))
        require_same(f"{self.kind} '{name}'", known, entry)
        _OUTSIDE[self.kind, name] = entry

    def remove(self, name: str) -> None:
        """Forget one of one's own."""
        del _OUTSIDE[self.kind, name]

    def __iter__(self) -> Iterator[T]:
        """Cropray's first."""
        plugged(ENTRY_POINTS)
        yield from self._own.values()
        yield from [entry for (kind, _), entry in _OUTSIDE.items() if kind == self.kind]


def is_outside(entry: type) -> bool:
    """Whether a class is not of this package."""
    return entry.__module__.partition(".")[0] != _PACKAGE


def entries_outside() -> Mapping[tuple[str, str], Any]:
    """What only this process may know, for others: pickling it names its modules, or carries it where it has none."""
    return dict(_OUTSIDE)


def take_over(entries: Mapping[tuple[str, str], Any]) -> None:
    """Make another process' `entries_outside` known to this one."""
    for (kind, name), entry in entries.items():
        require_same(f"{kind} '{name}'", _OUTSIDE.get((kind, name), entry), entry)
    _OUTSIDE.update(entries)


def name_of(choice: Choice) -> str:
    """Name of the entry.

    Raises:
        ConfigError: the choice has none.
    """
    if isinstance(choice, str):
        return choice
    if not isinstance(choice.get(NAME), str):
        raise ConfigError(f"{dict(choice)} names nothing: write {{name: …}} and what belongs to it")
    return str(choice[NAME])


def options_of(choice: Choice) -> dict[str, Any]:
    """Settings of the entry that the choice gives."""
    return {} if isinstance(choice, str) else {name: value for name, value in choice.items() if name != NAME}


def text_of(choice: Choice) -> str:
    """For people: `focal(gamma=1.5)`."""
    options = ",".join(f"{name}={value}" for name, value in options_of(choice).items())
    return f"{name_of(choice)}({options})" if options else name_of(choice)


def nearest(name: str, known: Sequence[str]) -> str:
    """What was probably meant."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(known))}"
