"""The base of every settings record, and how a YAML file becomes one.

One YAML file per job is read into one frozen pydantic model; `--set a.b=c` changes single
values before validation. Unknown keys are refused and the nearest known key is named.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cropray.errors import ConfigError


class Settings(BaseModel):
    """A frozen record of settings; fields are documented by attribute docstrings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the settings' canonical JSON."""
        return fingerprint(self.model_dump(mode="json"))


SettingsT = TypeVar("SettingsT", bound=Settings)


def fingerprint(value: object) -> str:
    """Hexadecimal SHA-256 of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def load_settings(model: type[SettingsT], path: str | Path, overrides: Iterable[str] = ()) -> SettingsT:
    """Read a YAML file, apply `a.b=c` overrides and validate the result.

    Args:
        model: the settings class to build.
        path: a YAML file holding one mapping.
        overrides: texts `dotted.key=value`; the value is read as YAML.

    Raises:
        ConfigError: the file is missing, is no mapping, or a key or value is refused.
    """
    raw = _read_yaml(Path(path))
    for override in overrides:
        _apply_override(raw, override)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error, model)}") from None


def dump_yaml(settings: Settings) -> str:
    """The resolved settings as YAML that `load_settings` reads back."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"config file '{path}' does not exist; give the path of a YAML job file") from None
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
        value = yaml.safe_load(text)
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
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(_unknown_key(model, item["loc"]))
        elif item["type"] == "missing":
            lines.append(f"'{where}' is required and was not given")
        else:
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"'{where}': {message}" + _seen(item["input"]) if where else message)
    return "; ".join(lines)


def _seen(value: object) -> str:
    is_short = isinstance(value, (str, int, float, bool)) or value is None
    return f" (got {value!r})" if is_short else ""


def _unknown_key(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    known = _known_keys(model, loc[:-1])
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(sorted(known))}"
    return f"unknown key '{'.'.join(str(part) for part in loc)}'; {hint}"


def _known_keys(model: type[BaseModel], parents: tuple[int | str, ...]) -> list[str]:
    node: Any = model
    for name in parents:
        fields: Mapping[str, Any] = getattr(node, "model_fields", {})
        if str(name) in fields:
            annotation = fields[str(name)].annotation
            candidates = [annotation, *getattr(annotation, "__args__", ())]
            node = next((c for c in candidates if hasattr(c, "model_fields")), node)
    return list(getattr(node, "model_fields", {}))
