"""What an artefact was made from: content, settings and code, and the first thing in which two such accounts differ.

Source of the rule: an artefact is up to date while the content it was made from, the settings that decide it and the code
that decides it are what they were. Resources (workers, threads, devices, memory) decide no content.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cropray.core.closure import Code
from cropray.settings import Settings, fingerprint

Parts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Key:
    """An account of what an artefact was made from."""

    parts: Parts
    """`content`, `settings`, `code`, `libraries` → name → a value or its digest; JSON."""

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256; equal accounts have equal digests."""
        return fingerprint(self.parts)


def key_of(code: Code, settings: Mapping[str, Settings], content: Mapping[str, object]) -> Key:
    """Draw up an account.

    Args:
        code: what makes the artefact, followed from its function.
        settings: section of the job → its settings.
        content: name → value or digest of what is read.
    """
    decided = {f"{name}.{key}": v for name, s in settings.items() for key, v in deciding(s, code.names)}
    return Key(
        {"content": dict(content), "settings": decided, "libraries": dict(code.libraries), "code": dict(code.symbols)}
    )


def deciding(settings: Settings, names: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of the settings that decide a result.

    Resources never do. A setting at its default does where the code reads it: one that is new and read by other code
    leaves what was made before as it is.

    Args:
        settings: of one section.
        names: what the code reads (`Code.names`).
    """
    values, resources = settings.model_dump(mode="json"), settings.resources()
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if name in resources:
            continue
        if isinstance(value, Settings):
            yield from ((f"{name}.{key}", inner) for key, inner in deciding(value, names))
        elif name in names or value != field.get_default(call_default_factory=True):
            yield name, values[name]


def first_difference(before: Parts, now: Parts) -> str | None:
    """What differs first between two accounts, in words; None where nothing does."""
    for part in ("content", "settings", "libraries", "code"):
        old, new = before.get(part, {}), now.get(part, {})
        for name in sorted(old.keys() | new.keys()):
            if name not in new:
                return f"{part}: '{name}' is not used any more"
            if name not in old:
                return f"{part}: '{name}' is new"
            if old[name] != new[name]:
                return f"{part}: '{name}' {_change(part, old[name], new[name])}"
    return None


def _change(part: str, old: object, new: object) -> str:
    return f"was {old}, is {new}" if part in {"settings", "libraries"} else "is another"
