"""No setting is there for nothing: each is read by the code that it belongs to, or as a part of the job."""

import ast
import functools
import importlib
from pathlib import Path
from typing import Literal, get_args, get_origin

import cropray
from cropray.core.settings import Settings
from cropray.search.space import Space
from cropray.training.deep.settings import NetworkSettings
from cropray.training.family import FamilySettings

PACKAGE = Path(cropray.__file__).parent


def settings_classes(base=Settings):
    for kind in base.__subclasses__():
        if kind.__module__.startswith("cropray.") and not issubclass(kind, Space):  # its fields are a family's
            yield kind
        yield from settings_classes(kind)


@functools.cache
def reads():
    """(module, owner, name) of every `owner.name`, and (module, "", text) of every text: names that are looked up."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                owner = getattr(node.value, "attr", getattr(node.value, "id", ""))
                found.add((module, owner.lstrip("_"), node.attr))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add((module, "", node.value))
    return found


def is_tag(field):
    """Whether a field can have one value only: it tells its class from others when a file is read."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def is_section(field):
    """Whether it is a family's, which is looked up by the family's name."""
    return isinstance(field.annotation, type) and issubclass(field.annotation, Space | FamilySettings)


def is_inherited(kind, name):
    """Whether the code of another class reads a field."""
    return any(name in base.model_fields for base in kind.__bases__ if base in settings_classes())


def unread(kinds, found):
    """`Class.field` of what nobody reads.

    It is read in the package of its class, under the name of a section that holds it (`job.map.device`), or as
    `settings.name` by what stands above all packages (or, Earth Engine, by the one that talks to it); of networks,
    as `settings.name` by the families that share them or as `config.name` by the network that a family has. A section that
    has a family's name is looked up by it.
    """
    names = []
    for kind in kinds:
        home = kind.__module__.rpartition(".")[0] if kind.__module__.count(".") > 1 else kind.__module__
        above = tuple({home, "cropray.stages", "cropray.planning", "cropray.search", "cropray.imagery"})
        sections = {
            name for of in kinds for name, field in of.model_fields.items() if kind.__name__ in str(field.annotation)
        }
        generic = {"settings", "source", "target", "job", "config"}
        of_nets = ("cropray.nets", "cropray.training") if issubclass(kind, NetworkSettings) else home
        read = {
            name
            for module, owner, name in found
            if owner in sections
            or module.startswith(home)
            or (module.startswith(above) and owner in generic)
            or (module.startswith(of_nets) and owner in {"config", "settings"})
        }
        names += [
            f"{kind.__name__}.{name}"
            for name, field in kind.model_fields.items()
            if name not in read and not is_section(field) and not is_tag(field) and not is_inherited(kind, name)
        ]
    return names


def all_settings():
    for path in PACKAGE.rglob("*.py"):
        if "Settings)" in path.read_text():
            importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    return list(settings_classes())


def test_every_setting_is_read():
    assert unread(all_settings(), reads()) == []


def test_a_setting_that_others_have_too_is_missed_where_it_is_not_read():
    found = {read for read in reads() if read[1:] != ("map", "device") and read[0] != "cropray.maps.settings"}
    assert unread(all_settings(), found) == ["MapSettings.device"]
