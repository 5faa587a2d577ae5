"""How a YAML file becomes a settings record.

One YAML file per job is read into one frozen pydantic model; `--set a.b=c` changes single
values before validation. Unknown keys are refused and the nearest known key is named.
"""

import datetime as dt
import difflib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, Tag, ValidationError

from cropray.core.errors import ConfigError, InputError
from cropray.core.settings import REFUSED_ADDRESS, Settings

if TYPE_CHECKING:
    from cropray.io.storage import Location

SettingsT = TypeVar("SettingsT", bound=Settings)


def load_settings(model: type[SettingsT], path: "str | Location", overrides: Iterable[str] = ()) -> SettingsT:
    """Read a YAML file of one mapping, on a disk or in object storage, apply overrides and validate the result.

    An override is a text `dotted.key=value`, whose value is read as YAML.

    Raises:
        ConfigError: the file is missing, is no mapping, or a key or value is refused.
    """
    raw = read_yaml(path)
    for override in overrides:
        _apply_override(raw, override)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error, model.whole())}") from None


def dump_yaml(settings: Settings) -> str:
    """The resolved settings as YAML that `load_settings` reads back."""
    return yaml.dump(settings.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quotes the line breaks of Unicode, which YAML would fold; PyYAML writes them as they are."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_folded = any(mark in text for mark in "\x85\u2028\u2029")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if is_folded else None)


_Dumper.add_representer(str, _represent_text)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping: PyYAML would take the last and say nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Before `<<` is resolved: there a key may well stand in both."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            known = (key.tag, str(key.value))
            line = key.start_mark.line + 1
            if known in first:
                raise yaml.YAMLError(
                    f"the key '{key.value}' stands twice, in lines {first[known]} and {line}; remove one of them"
                )
            first[known] = line
        return node


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506  it is a SafeLoader


def read_yaml(path: "str | Location") -> dict[str, Any]:
    """What a YAML file says, before it is read as settings.

    Raises:
        ConfigError: the file is missing, is no mapping, or holds a key twice.
    """
    from cropray.io.raw_files import as_input, read_bytes  # noqa: PLC0415  settings of files build on this module

    try:
        location = as_input(path)
    except ValueError as error:
        raise ConfigError(f"config file: {error}") from None
    try:
        raw = _load(read_bytes(location, "config file").decode("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"config file '{path}' does not exist; give the path of a YAML job file") from None
    except InputError as error:  # it names the file
        raise ConfigError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file '{path}' cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config file '{path}' is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"config file '{path}' must hold 'key: value' lines; found {type(raw).__name__}")
    return raw


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set '{override}' is not of the form a.b=value")
    try:
        value = _load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set '{override}': the value is not valid YAML: {error}") from None
    *parents, leaf = key.split(".")
    node = raw
    for name in parents:
        if node.get(name) is None:
            node[name] = {}
        node = node[name]
        if not isinstance(node, dict):
            raise ConfigError(f"--set '{override}': '{name}' is a single value, it has no '{leaf}'")
    node[leaf] = value


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    lines = []
    for item in error.errors():
        where, _ = _locate(model, item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            lines.append(_unknown_key(model, item["loc"]))
        elif item["type"] == "missing":
            lines.append(f"'{where}' is required and was not given")
        elif item["type"] == "union_tag_invalid":
            lines.append(f"'{where}' cannot be '{item['ctx']['tag']}'; it can be {item['ctx']['expected_tags']}")
        elif item["type"] == REFUSED_ADDRESS:
            lines.append(f"'{'.'.join(filter(None, (where, item['ctx']['where'])))}': {message}")
        else:
            seen = _seen(item["input"], is_text_wanted=item["type"] == "string_type")
            lines.append(f"'{where}': {message}{seen}" if where else message)
    return "; ".join(lines)


def _seen(value: object, *, is_text_wanted: bool) -> str:
    if is_text_wanted and isinstance(value, (int, float, dt.date)):  # YAML made it of what was meant as a text
        return f" (got {value}); put it in quotes"
    is_short = isinstance(value, (str, int, float, bool)) or value is None
    return f" (got {value!r})" if is_short else ""


def _unknown_key(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    where, _ = _locate(model, loc)
    _, known = _locate(model, loc[:-1])
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(sorted(known))}"
    return f"unknown key '{where}'; {hint}"


def _locate(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """A location as the file spells it, and the keys that are known there.

    pydantic puts the tag of a chosen union member into the location; the file has no such level.
    """
    node, names = model, []
    members: dict[str, type[BaseModel] | None] = {}  # by their tags; None: they are no settings
    for name in map(str, loc):
        if name in members:
            node, members = members[name] or node, {}
            continue
        names.append(name)
        if name in node.model_fields:
            annotation = node.model_fields[name].annotation
            found = list(kinds_of(annotation))
            members = {**dict.fromkeys(_tags(annotation)), **{tag: member for tag, member in found if tag is not None}}
            node = next((member for _, member in found), node)
    return ".".join(names), list(node.model_fields)


def kinds_of(annotation: Any, tag: str | None = None) -> Iterator[tuple[str | None, type[BaseModel]]]:
    """(tag, settings class) of each class that an annotation names."""
    tag = next((m.tag for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Tag)), tag)
    if hasattr(annotation, "model_fields"):
        yield tag, annotation
    for argument in get_args(annotation):
        yield from kinds_of(argument, tag)


def _tags(annotation: Any) -> Iterator[str]:
    for mark in getattr(annotation, "__metadata__", ()):
        if isinstance(mark, Tag):
            yield mark.tag
    for argument in get_args(annotation):
        yield from _tags(argument)
