"""`config`: every setting of a job, with what it means, its default, and where its value comes from."""

import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cropray.config import JobConfig, complete_job
from cropray.core.settings import Settings
from cropray.io.job_file import kinds_of, load_settings, read_yaml
from cropray.io.storage import Location
from cropray.search.recipe import read_recipe
from cropray.search.space import Range, Space

_WIDTH: Final = 120
_WORDS: Final = {int: "whole number", float: "number", str: "text", bool: "true or false", NoneType: "null"}
_BOUNDS: Final = {
    "gt": "> {}",
    "ge": "≥ {}",
    "lt": "< {}",
    "le": "≤ {}",
    "min_length": "length ≥ {}",
    "pattern": "matches `{}`",
}
_HEAD: Final = """\
# Configuration

A job is one YAML file. `--set section.setting=VALUE` changes one of its values for one command; unknown keys are refused, with the
nearest known one. Relative paths start at the current folder. `cropray config` prints this page for the families, sources and
entries that are installed, `cropray config JOB.yaml` the values of a job and where each comes from, and `cropray new NAME` writes
a job file to begin with. (This page is the output of `cropray config --markdown`.)
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a job file."""

    name: str
    type: str
    """In words, with its bounds."""
    default: str | None
    """As YAML; None: it has to be given, or is a section with defaults of its own."""
    is_required: bool
    doc: str


@dataclass(frozen=True, slots=True)
class Section:
    """The keys of one mapping of a job file."""

    path: str
    """`dataset`; empty: the file itself."""
    variant: str
    """`source: stac`, where the mapping may be one of several kinds; else empty."""
    doc: str
    settings: tuple[Setting, ...]


def run_config(config: str | Location | None, overrides: Sequence[str], *, as_markdown: bool) -> None:
    """Print all settings: of a job with their values and where these come from, or with their defaults.

    Args:
        config: job file; None: none, only defaults.
        overrides: `a.b=c`, of the job.
        as_markdown: print the page of the docs instead.

    Raises:
        ConfigError: the config cannot be used.
    """
    lines = _page() if as_markdown else _defaults() if config is None else _of_job(config, overrides)
    print("\n".join(lines))


def sections(model: type[BaseModel], path: str = "", variant: str = "") -> Iterator[Section]:
    """A mapping and those within it, in the order of their fields."""
    yield Section(path, variant, _line(model.__doc__), tuple(_setting(model, name) for name in model.model_fields))
    for name, field in model.model_fields.items():
        below = [kind for kind in _kinds(field.annotation) if not issubclass(kind, Space | Range)]
        for kind in below:
            yield from sections(kind, f"{path}.{name}".strip("."), _source(kind) if len(below) > 1 else "")


def _kinds(annotation: Any) -> list[type[BaseModel]]:
    return [kind for _, kind in kinds_of(annotation) if not get_args(kind)]  # without `Annotated`


def _source(model: type[BaseModel]) -> str:
    return f"source: {', '.join(get_args(model.model_fields['source'].annotation))}"


def _setting(model: type[BaseModel], name: str) -> Setting:
    field = model.model_fields[name]
    kinds = _kinds(field.annotation)
    fields = (getattr(base, "model_fields", {}).get(name) for base in model.__mro__)
    known = (one.description for one in fields if one is not None)
    doc = next(filter(None, known), kinds[0].__doc__ if len(kinds) == 1 else "")
    if any(issubclass(kind, Space) for kind in kinds):
        doc = f"What is searched of `{name}`: lists of values, or `{{low, high, log}}`, by the names of its settings."
    default = field.get_default(call_default_factory=True)
    is_section = isinstance(default, Settings) and not isinstance(default, Space)
    return Setting(
        name,
        ", ".join([_type(field.annotation), *_bounds(field.metadata)]),
        None if field.is_required() or is_section else as_yaml(_plain(default)),
        field.is_required(),
        _line(doc),
    )


def _type(annotation: Any) -> str:
    """In words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return ", ".join([_type(arguments[0]), *_bounds(arguments[1:])])
    if origin is Literal:
        return " or ".join(f"`{as_yaml(value)}`" for value in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin in (dict, Mapping):
        return "mapping"
    if isinstance(annotation, type):
        kinds: dict[type, str] = {Space: "section", BaseModel: "section", PurePath: "path"}
        return _WORDS.get(annotation) or next(
            (word for kind, word in kinds.items() if issubclass(annotation, kind)), "path"
        )
    return " or ".join(dict.fromkeys(map(_type, arguments)))


def _bounds(metadata: Sequence[Any]) -> Iterator[str]:
    for mark in metadata:
        if isinstance(mark, FieldInfo):
            yield from _bounds(mark.metadata)
        else:
            yield from (
                text.format(getattr(mark, key)) for key, text in _BOUNDS.items() if getattr(mark, key, None) is not None
            )


def _line(doc: str | None) -> str:
    """Of a docstring, whose None is YAML's null."""
    return " ".join(inspect.cleandoc(doc or "").split()).replace("None:", "null:")


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def as_yaml(value: Any) -> str:
    """On one line."""
    value = list(value) if isinstance(value, tuple) else value
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
        .removesuffix("...\n")
        .strip()
    )


def _title(section: Section) -> str:
    variant = f" ({section.variant})" if section.variant else ""
    return f"{section.path}{variant}" if section.path else "The job"


def _defaults() -> Iterator[str]:
    for section in sections(complete_job()):
        yield f"\n{_title(section)}: {section.doc}"
        for setting in section.settings:
            yield from _said(section.path, setting, setting.default, "required" if setting.is_required else "")


def _said(path: str, setting: Setting, value: str | None, origin: str) -> Iterator[str]:
    name = f"{path}.{setting.name}".strip(".")
    yield f"{name}: {value or ''}".rstrip() + (f"   # {origin}" if origin else "")
    yield textwrap.fill(f"{setting.doc} ({setting.type})", _WIDTH, initial_indent="    ", subsequent_indent="    ")


def _of_job(config: str | Location, overrides: Sequence[str]) -> Iterator[str]:
    job = load_settings(JobConfig, config, overrides)
    given, recipe = read_yaml(config), read_recipe(job.recipe)
    changed = [override.partition("=")[0].split(".") for override in overrides]
    for path, settings, name in _leaves(job):
        where = [*path, name]
        setting = _setting(type(settings), name)
        value = as_yaml(settings.model_dump(mode="json", include={name}).get(name))
        if any(where[: len(key)] == key or key[: len(where)] == where for key in changed):
            origin = "--set"
        elif _holds(given, where):
            origin = str(config)
        elif setting.default is not None and yaml.safe_load(value) == yaml.safe_load(setting.default):
            origin = "default"
        elif _holds(recipe, where):
            without = job.left_out.get(".".join(where), ())
            origin = f"recipe {job.recipe}" + (f" without {', '.join(without)}" if without else "")
        else:
            origin = "follows from the others"
        if origin != "default" and setting.default is not None:
            origin += f"; default {setting.default}"
        yield from _said(".".join(path), setting, value, origin)


def _leaves(settings: Settings, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Settings, str]]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from _leaves(value, (*path, name))
        elif not isinstance(settings, Space) or value is not None:
            yield path, settings, name


def _holds(given: Any, where: Sequence[str]) -> bool:
    for name in where:
        if not isinstance(given, dict) or name not in given:
            return False
        given = given[name]
    return True


def _page() -> Iterator[str]:
    yield _HEAD
    for section in sections(complete_job()):
        yield f"## {_title(section)}"
        yield f"\n{section.doc}\n\n| setting | type | default | what it is |\n|---|---|---|---|"
        for setting in section.settings:
            yield _row(f"`{setting.name}`", setting.type, _default(section.path, setting), setting.doc)
        yield ""


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(path: str, setting: Setting) -> str:
    if setting.default is not None:
        return f"`{setting.default}`"
    anchor = f"{path}{setting.name}".replace(".", "")  # as GitHub makes them of headings
    return "required" if setting.is_required else f"[below](#{anchor})"
