"""Recipes: sets of settings that a job puts under its own (`recipe: study | best | path/to/file.yaml`).

A recipe is a YAML file of the sections that say how models are made: those of families, `search` and `decision`. What a job says
itself goes before, key by key; a list, or a choice by name with its settings, counts as one value. Shipped recipes are files
of `cropray/data/recipes`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field, create_model

from cropray.core.errors import ConfigError
from cropray.core.registry import nearest
from cropray.core.settings import Settings
from cropray.io.job_file import load_settings
from cropray.search.decision import DecisionSettings
from cropray.search.space import SearchSettings, complete
from cropray.training.family import FamilySettings, families, family

STUDY: Final = "study"  # of a job that names none
_SEARCH: Final = "search"
_ENDINGS: Final = (".yaml", ".yml")

Raw = Mapping[str, Any]
"""Settings as a file has them."""


class Change(Settings):
    """One row of the table of `cropray ablate`: what is changed beside the rows before it."""

    name: str
    """For people."""
    model: str
    """The family whose score the row shows."""
    beside: tuple[str, ...] = ()
    """Families that are searched as well, of one that is made of others."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """As a recipe has them; empty: those of the row before, which are the study's of the first one."""

    @property
    def models(self) -> list[str]:
        """All families that are searched."""
        return [*self.beside, self.model]


class RecipeFile(Settings):
    """What a recipe's file may say; `_complete` adds `search` and a section for each family."""

    decision: DecisionSettings = DecisionSettings()
    """How models decide."""

    ablation: tuple[Change, ...] = ()
    """The way from the study's recipe to this one."""


def shipped() -> tuple[str, ...]:
    """Names of the recipes that come with cropray."""
    folder = resources.files("cropray").joinpath("data", "recipes")
    return tuple(sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")))


def read_recipe(choice: str) -> Raw:
    """The settings of a recipe, as a job file would spell them; only those that it gives.

    Args:
        choice: name of a shipped one, or a YAML file, on a disk or in object storage.

    Raises:
        ConfigError: there is none, or it holds what no recipe may say.
    """
    found: Raw = _read(choice).model_dump(mode="json", exclude_unset=True, exclude={"ablation"})
    return found


def way_to(choice: str, models: Sequence[str]) -> list[tuple[Change, Raw]]:
    """The way from the study's recipe to another: each row of a table, and the settings of the recipe so far.

    Args:
        choice: as of `read_recipe`.
        models: families of the job, which are compared where the recipe's file describes no way.
    """
    so_far, found = read_recipe(STUDY), list[tuple[Change, Raw]]()
    for change in _read(choice).ablation:
        so_far = put_under(change.settings, so_far, _complete())
        found.append((change, so_far))
    if found:
        return found
    ends = {STUDY: read_recipe(STUDY), choice: read_recipe(choice)}
    fitted = tuple(name for name in models if family(name).combine is None)
    return [
        (Change(name=f"{end}: {model}", model=model, beside=() if model in fitted else fitted), raw)
        for model in models
        for end, raw in ends.items()
    ]


def _read(choice: str) -> RecipeFile:
    is_file = choice.endswith(_ENDINGS) or "/" in choice
    if not is_file and choice not in shipped():
        raise ConfigError(
            f"there is no recipe '{choice}'; {nearest(choice, shipped())} A file of one's own is given by a path that ends "
            f"in .yaml"
        )
    place = choice if is_file else str(resources.files("cropray").joinpath("data", "recipes", f"{choice}.yaml"))
    if is_file and "://" not in choice and not Path(choice).exists():
        raise ConfigError(
            f"the recipe '{choice}' does not exist; set 'recipe' to a file, from the current folder, or to one of "
            f"{', '.join(shipped())}"
        )
    return load_settings(_complete(), place)


def put_under(job: Raw, recipe: Raw, model: type[BaseModel]) -> dict[str, Any]:
    """A job's own settings with those of a recipe where it says nothing.

    Args:
        job: as its file has it.
        recipe: see `read_recipe`.
        model: the class that the result is read into, by which sections are told from values.
    """
    return _under(job, {**recipe, _SEARCH: dict(_searched(job, recipe))}, model)


def _searched(job: Raw, recipe: Raw) -> Iterator[tuple[str, Any]]:
    """The recipe's `search`, without lists for what the job fixes: they yield to it as a family's own grid does.

    A list that is the family's own grid says nothing more, and is left to it: it also yields to a network without the field.
    """
    for name, value in recipe.get(_SEARCH, {}).items():
        if name not in families():
            yield name, value
            continue
        own, grid = job.get(name), family(name).grid
        fixed = own if isinstance(own, Mapping) else {}
        says = {field: v for field, v in value.items() if field not in fixed and v != list(grid.get(field, ()))}
        yield name, says


def _under(job: Raw, recipe: Raw, model: type[BaseModel]) -> dict[str, Any]:
    merged = {**recipe, **job}
    for name in job.keys() & recipe.keys():
        field = model.model_fields.get(name)
        section = None if field is None else field.annotation
        if isinstance(job[name], Mapping) and isinstance(section, type) and issubclass(section, BaseModel):
            merged[name] = _under(job[name], recipe[name], section)
    return merged


def _complete() -> type[RecipeFile]:
    sections = tuple((name, each.settings) for name, each in families().items())
    return _complete_of(complete(), sections)


@cache
def _complete_of(
    search: type[SearchSettings], sections: tuple[tuple[str, type[FamilySettings]], ...]
) -> type[RecipeFile]:
    fields: dict[str, Any] = {name: (settings, settings()) for name, settings in sections}
    return create_model("Recipe", __base__=RecipeFile, search=(search, search()), **fields)
