"""What an artefact was made from: content, settings and code, and the first thing in which two such accounts differ.

Source of the rule: an artefact is up to date while the content it was made from, the settings that decide it and the code
that decides it are what they were. Resources (workers, threads, devices, memory) decide no content.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin

from cropray.core.closure import Code, placeless
from cropray.core.fingerprint import fingerprint
from cropray.core.settings import Settings

Parts = Mapping[str, Mapping[str, Any]]
_DIGEST: Final = re.compile(r"[0-9a-f]{16,}")  # tells a person nothing


@dataclass(frozen=True, slots=True)
class Key:
    """An account of what an artefact was made from."""

    parts: Parts
    """`content`, `settings`, `code`, `libraries` → name → a value or its digest; JSON."""

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256; equal accounts have equal digests, wherever their code stands."""
        return fingerprint({**self.parts, "code": placeless(self.parts["code"])})


def key_of(
    code: Code, settings: Mapping[str, Settings], content: Mapping[str, object], apart: Collection[str] = ()
) -> Key:
    """Draw up an account.

    Args:
        code: what makes the artefact, followed from its function.
        settings: section of the job → its settings.
        content: what is read, by a name for people → its digest, or a number or text that says it; None: it is not there.
        apart: `section.setting` of those that decide other artefacts than this one.
    """
    found = {f"{name}.{key}": v for name, s in settings.items() for key, v in deciding(s, code.names)}
    decided = {name: value for name, value in found.items() if name not in apart}
    return Key(
        {"content": dict(content), "settings": decided, "libraries": dict(code.libraries), "code": dict(code.symbols)}
    )


def deciding(settings: Settings, names: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of the settings that decide a result.

    Resources never do. A setting at its default does where the code reads it: one that is new and read by other code
    leaves what was made before as it is. A field of one value only says which settings these are, and always does.

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
        elif name in names or _is_tag(field.annotation) or value != field.get_default(call_default_factory=True):
            yield name, values[name]


def _is_tag(annotation: object) -> bool:
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def differences(before: Parts, now: Parts) -> Iterator[str]:
    """All that differs between two accounts, in words; settings, which may be the cause of others, come first."""
    for part in ("settings", "content", "libraries", "code"):
        old, new = before.get(part, {}), now.get(part, {})
        if part == "code":
            old, new = _without_moved(old, new), _without_moved(new, old)
        for name in sorted(old.keys() | new.keys()):
            called = _TITLES[part].format(name)
            if name not in new:
                yield f"{called} does not count any more"
            elif name not in old:
                yield f"{called} is new" if part != "settings" else f"{called} counts now: it is {new[name]}"
            elif old[name] != new[name]:
                yield f"{called}{_change(part, old[name], new[name])}"


def _without_moved(code: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """What does not stand in the other account as well, under the same name in another module."""
    there = Counter(placeless({symbol: digest for symbol, digest in other.items() if symbol not in code}))
    kept = {}
    for symbol, digest in code.items():
        (known,) = placeless({symbol: digest})
        if symbol not in other and there[known]:
            there[known] -= 1
        else:
            kept[symbol] = digest
    return kept


_TITLES: Final = {"settings": "setting {}", "content": "{}", "libraries": "{}", "code": "code of {}"}


def _change(part: str, old: object, new: object) -> str:
    if part == "content" and (old is None or new is None):
        return ": there now" if old is None else ": no longer there"
    is_said = part != "code" and not any(isinstance(value, str) and _DIGEST.fullmatch(value) for value in (old, new))
    return f" was {old}, is {new}" if is_said else " changed"
