"""What a job file chooses by name: classes whose fields are settings of their own.

A choice is the name of an entry, or `{name: focal, gamma: 1.5}`. An entry registers itself as its module is read; a
plug-in's module is named by the entry point `cropray.entries`. Needs the standard library only.

Code that is looked up so is not seen by whoever follows names (`cropray.core.closure`): chosen entries are roots of their own.
"""

import difflib
import importlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

from cropray.errors import ConfigError

Choice: TypeAlias = str | Mapping[str, Any]
"""A name, or a mapping with `name` and settings of the entry."""
T = TypeVar("T")
NAME: Final = "name"
ENTRY_POINTS: Final = "cropray.entries"


class Registry(Generic[T]):
    """Entries of one kind."""

    def __init__(self, kind: str, module: str = "") -> None:
        """Args: kind: for messages; module: is imported where a name is not known yet."""
        self.kind = kind
        self._module = module
        self._entries: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """A class decorator."""

        def keep(entry: type[T]) -> type[T]:
            self._entries[name] = entry
            return entry

        return keep

    def entry(self, choice: Choice) -> type[T]:
        """The class of a choice.

        Raises:
            ConfigError: there is none.
        """
        name = name_of(choice)
        if name not in self._entries:
            if self._module:
                importlib.import_module(self._module)
            for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
                point.load()
        if name not in self._entries:
            raise ConfigError(f"'{name}' is no {self.kind}; {nearest(name, list(self._entries))}")
        return self._entries[name]

    def make(self, choice: Choice) -> T:
        """The entry with its settings.

        Raises:
            ConfigError: there is none, or it has no such setting.
        """
        entry, options = self.entry(choice), options_of(choice)
        try:
            return entry(**options)
        except TypeError as error:
            raise ConfigError(f"{self.kind} '{name_of(choice)}': {error}") from None


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
