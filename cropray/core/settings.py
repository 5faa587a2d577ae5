"""The base of every settings record."""

from collections.abc import Iterator, Mapping
from typing import Final, LiteralString

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from cropray.core.addresses import refuse_secrets
from cropray.core.fingerprint import fingerprint

REFUSED_ADDRESS: Final[LiteralString] = "address_with_secret"  # type of pydantic's error


class Settings(BaseModel):
    """A frozen record of settings; fields are documented by attribute docstrings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, values: object) -> object:
        """Any text may be an address; what is refused here is not repeated by other messages."""
        for where, text in _texts(values):
            try:
                refuse_secrets(text)
            except ValueError as error:
                raise PydanticCustomError(REFUSED_ADDRESS, "{reason}", {"where": where, "reason": str(error)}) from None
        return values

    @classmethod
    def whole(cls) -> "type[Settings]":
        """The class with all sections that are known now; what a file is read into."""
        return cls

    def resources(self) -> frozenset[str]:
        """Fields that say where and how fast something is made, and change nothing of it: they enter no key."""
        return frozenset()

    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the settings' canonical JSON, without resources."""
        return fingerprint(self.model_dump(mode="json", exclude=set(self.resources())))


def _texts(value: object, where: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """(dotted name, text) of all texts in what a file or a caller gives."""
    if isinstance(value, str):
        yield ".".join(where), value
    elif isinstance(value, Mapping):
        for name, below in value.items():
            yield from _texts(below, (*where, str(name)))
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _texts(below, where)
